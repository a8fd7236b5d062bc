"""While copies are made: one line on a terminal says how far they are, and nothing that is not so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from aiohttp import web

from meshctl.copy_progress import RATE_OVER_S, SETTLED_S, SILENT_S, Fetching
from tests.meshctl.conftest import Meshctl, Terminal, Writer
from tests.meshctl.fake_meshd import Document, FakeMeshd, pinned, send, stream

MB = 1_000_000
Said = tuple[float, str, float]  # when, by which node, megabytes


def after(said: Iterable[Said], size: int = 100) -> Fetching:
    fetching = Fetching()
    for when, node, done in said:
        fetching.heard(node, int(done * MB), size * MB, when)
    return fetching


@pytest.mark.parametrize(
    ("said", "now", "line"),
    [
        ([], 0, ""),
        ([(0, "cellar", 5)], 0, "  to cellar  5.0 MB of 100.0 MB"),
        ([(0, "cellar", 5), (1, "cellar", 15)], 1, "  to cellar  15.0 MB of 100.0 MB  10.0 MB/s"),
        (
            [(t, "cellar", 10 * t) for t in range(5)],
            4,
            "  to cellar  40.0 MB of 100.0 MB  10.0 MB/s  about 6 s left",
        ),
        (
            [(t, "cellar", 0.01 * t) for t in range(5)],
            4,
            "  to cellar  40.0 kB of 100.0 MB  10.0 kB/s  about 3 h left",
        ),
        (
            [(t, node, speed * t) for t in range(5) for node, speed in (("cellar", 10), ("desk", 2))],
            4,
            "  to cellar 40.0 MB, desk 8.0 MB of 100.0 MB  12.0 MB/s  about 46 s left",
        ),
        (
            [(t, f"node{n}", n * t) for t in range(5) for n in range(1, 6)],
            4,
            "  to 5 nodes  4.0 MB to 20.0 MB of 100.0 MB  15.0 MB/s  about 2 min left",
        ),
        ([(t, "cellar", 25 * t) for t in range(5)], 4, "  to cellar  100.0 MB of 100.0 MB  25.0 MB/s"),
    ],
    ids=("nobody", "at first", "two numbers", "one", "slow", "the slower of two", "many", "all of it"),
)
def test_bytes_rate_and_what_is_left(said: list[Said], now: float, line: str) -> None:
    assert after(said).line(now, 80) == line


def test_where_the_names_do_not_fit_the_nodes_are_counted() -> None:
    fetching = after((t, node, t) for t in range(5) for node in ("attic.example.org", "cellar.example.org"))
    whole = fetching.line(4, 200)
    assert "attic.example.org 4.0 MB, cellar.example.org 4.0 MB" in whole
    assert fetching.line(4, len(whole) + 1) == whole
    assert (
        fetching.line(4, len(whole))
        == "  to 2 nodes  4.0 MB to 4.0 MB of 100.0 MB  2.0 MB/s  about 2 min left"
    )


def test_no_end_is_foretold_before_the_rate_has_settled() -> None:
    soon = [(t / 10, "cellar", t) for t in range(int(SETTLED_S * 10))]
    assert "MB/s" in after(soon).line(soon[-1][0], 80)
    assert "left" not in after(soon).line(soon[-1][0], 80)


def test_no_end_is_foretold_while_one_of_the_nodes_gets_nothing() -> None:
    one = [(t, "cellar", t) for t in range(12)]
    fetching = after([(t, "desk", t) for t in range(5)] + one)
    assert fetching.line(11, 80) == "  to desk 4.0 MB, cellar 11.0 MB of 100.0 MB  1.0 MB/s"


def test_one_that_gets_nothing_more_has_no_rate() -> None:
    fetching = after([(t, "cellar", t) for t in range(5)])
    assert "MB/s" in fetching.line(4 + SILENT_S, 80)
    assert fetching.line(4 + SILENT_S + 0.1, 80) == "  to cellar  4.0 MB of 100.0 MB"


def test_the_rate_is_that_of_the_last_seconds_and_not_what_was_there_before() -> None:
    """Its first number may be of blocks that another entry had brought."""
    fetching = after([(0, "cellar", 50), *((t, "cellar", 50 + 0.1 * t) for t in range(1, 6))])
    assert "100.0 kB/s  about 8 min left" in fetching.line(5, 80)
    faster = [(t, "desk", t) for t in range(60)] + [(60 + t, "desk", 59 + 3 * t) for t in range(1, 12)]
    assert " 3.0 MB/s" in after(faster, 1000).line(60 + RATE_OVER_S + 1, 80)


def test_one_that_begins_anew_has_no_negative_rate() -> None:
    fetching = after([(t, "cellar", t) for t in range(1, 9)] + [(9, "cellar", 1.0)])
    assert fetching.line(9, 80) == "  to cellar  1.0 MB of 100.0 MB"


def test_one_that_has_all_is_no_longer_named() -> None:
    fetching = after([(0, "cellar", 1), (0, "desk", 2)])
    fetching.ended("cellar")
    assert fetching.line(0, 80) == "  to desk  2.0 MB of 100.0 MB"
    fetching.ended("desk")
    fetching.ended("nobody")
    assert fetching.line(0, 80) == ""


# -- on a terminal, and elsewhere ----------------------------------------------------------------------------------

CLEARED = "\r\x1b[K"
UPLOADED, ENTRY, ATTIC, CELLAR, DESK, DONE = pinned()[1:]


def fetching(node: str, megabytes: float) -> Document:
    return {"event": "fetching", "node": node, "bytes": int(megabytes * MB), "size": 300 * MB}


Step = Document | Callable[[], Awaitable[Any]]


def tells(meshd: FakeMeshd, *steps: Step) -> None:
    """The daemon's answer to a pin. steps: events, and what it waits for."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        for step in steps:
            if callable(step):
                await step()
            else:
                await send(response, step)
        return response

    meshd.does("POST", "/v1/pins", answer)


async def test_on_a_terminal_one_line_is_renewed_until_the_copies_are_there(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer, terminal: Terminal
) -> None:
    write("minutes.pdf", b"x")
    tells(
        meshd,
        *(UPLOADED, ENTRY, ATTIC, fetching("cellar", 20)),
        lambda: terminal.shows(r"  copy on attic  1/3\r\n\r\x1b\[K  to cellar  20\.0 MB of 300\.0 MB"),
        fetching("desk", 5.5),
        lambda: terminal.shows(r"\r\x1b\[K  to cellar 20\.0 MB, desk 5\.5 MB of 300\.0 MB"),
        fetching("cellar", 120),
        lambda: terminal.shows(r"\r\x1b\[K  to cellar 120\.0 MB, desk 5\.5 MB of 300\.0 MB  [\d.]+ [MG]B/s"),
        *(CELLAR, fetching("desk", 300), DESK, DONE),
    )
    running = await meshctl.start("pin", "minutes.pdf", stderr=terminal.device)
    result = await running.result()
    assert (result.code, result.out) == (0, "pinned minutes.pdf  300.0 MB  3 copies: attic, cellar, desk\n")
    await terminal.shows(r"copy on desk  3/3\r\n")
    assert f"{CLEARED}  copy on cellar  2/3\r\n{CLEARED}  to desk  5.5 MB" in terminal.seen
    assert terminal.seen.endswith(f"{CLEARED}  copy on desk  3/3\r\n"), "nothing of the line is left"


async def test_without_a_terminal_nothing_more_is_said(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("minutes.pdf", b"x")
    tells(meshd, ENTRY, ATTIC, fetching("cellar", 20), fetching("desk", 5), CELLAR, DESK, DONE)
    result = await meshctl("pin", "minutes.pdf")
    assert result.code == 0
    assert result.err == "  copy on attic  1/3\n  copy on cellar  2/3\n  copy on desk  3/3\n"


async def test_for_a_program_the_events_are_passed_on_as_they_are(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer, terminal: Terminal
) -> None:
    write("minutes.pdf", b"x")
    events = [ENTRY, ATTIC, fetching("cellar", 20), CELLAR, DESK, DONE]
    tells(meshd, *events)
    running = await meshctl.start("pin", "minutes.pdf", "--json", stderr=terminal.device)
    result = await running.result()
    assert result.documents == events
    assert terminal.seen == ""


async def test_an_event_of_a_newer_daemon_is_no_matter(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    """So the client of 0.1.0 takes `fetching`, too: it does not know that."""
    write("minutes.pdf", b"x")
    tells(meshd, ENTRY, {"event": "something-new", "node": ["attic"], "bytes": {}}, ATTIC, CELLAR, DESK, DONE)
    result = await meshctl("pin", "minutes.pdf")
    assert result.code == 0
    assert result.err == "  copy on attic  1/3\n  copy on cellar  2/3\n  copy on desk  3/3\n"


async def test_a_nodes_name_in_that_line_is_not_obeyed(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer, terminal: Terminal
) -> None:
    write("minutes.pdf", b"x")
    evil = fetching("owned\x1b[2J\u202e\x9b", 20)
    tells(meshd, ENTRY, evil, lambda: terminal.shows(r"to owned\\x1b\[2J\\u202e\\x9b  20\.0 MB"), DONE)
    running = await meshctl.start("pin", "minutes.pdf", stderr=terminal.device)
    assert (await running.result()).code == 0
    assert "\x1b[2J" not in terminal.seen
    assert "\u202e" not in terminal.seen
