"""Listing what takes long, and following one of them again."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import pytest
from aiohttp import web

from tests.meshctl.conftest import Meshctl, Writer
from tests.meshctl.fake_meshd import NDJSON, Document, FakeMeshd, entry, mesh, pinned, send, stream

ID = "3fa91c07"


def operation(verb: str = "pin", subject: str = "minutes.pdf", **more: Any) -> Document:
    return {
        "id": ID,
        "verb": verb,
        "subject": subject,
        "by": "anna",
        "began": time.time() - 130,
        "ended": None,
        "state": "running",
        "cid": "",
        "error": None,
    } | more


def follows(meshd: FakeMeshd, document: Document, *events: Document) -> None:
    meshd.answers("GET", f"/v1/operations/{ID}", document)
    meshd.streams("GET", f"/v1/operations/{ID}/events", *events)


async def test_they_are_listed_with_who_began_them(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    answer = {"operations": [operation(), operation("leave", "", id="00000001", state="failed", by="")]}
    meshd.answers("GET", "/v1/operations", answer)
    result = await meshctl("operations")
    assert result.code == 0
    assert [line.split() for line in result.out.splitlines()] == [
        ["ID", "VERB", "OF", "STATE", "BEGAN", "BY"],
        [ID, "pin", "minutes.pdf", "running", "2", "min", "ago", "anna"],
        ["00000001", "leave", "-", "failed", "2", "min", "ago", "-"],
    ]
    assert result.err == "To follow one: meshctl operations ID\n"
    assert (await meshctl("operations", "--json")).documents == [answer]


async def test_where_there_are_none_it_says_so(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/operations", {"operations": []})
    result = await meshctl("operations")
    assert (result.code, result.out) == (0, "")
    assert result.err == "Nothing that takes long was begun here within a week.\n"


async def test_a_pin_that_another_one_began_is_shown_as_to_that_one(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    follows(meshd, operation(), *pinned())
    result = await meshctl("operations", ID)
    assert result.code == 0
    assert result.out == "pinned minutes.pdf  300.0 MB  3 copies: attic, cellar, desk\n"
    assert "copy on cellar  2/3" in result.err
    assert (await meshctl("operations", ID, "--json")).documents == pinned()


async def test_it_exits_as_the_verb_itself_would(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    few = entry(held=1, copies=[{"node": "attic", "state": "held", "detail": ""}])
    done = {"event": "done", "entry": few, "degraded": True, "missing": []}
    follows(meshd, operation("restore"), pinned()[2], done)
    result = await meshctl("operations", ID)
    assert (result.code, result.out.split("  ")[0]) == (6, "restored minutes.pdf")


@pytest.mark.parametrize(("code", "exits"), [("operation-interrupted", 1), ("not-found", 4), ("denied", 5)])
async def test_one_that_failed_or_was_interrupted_says_why(
    meshctl: Meshctl, meshd: FakeMeshd, code: str, exits: int
) -> None:
    problem = {
        "code": code,
        "title": "cannot finish: pin minutes.pdf",
        "detail": "it was interrupted; minutes.pdf is kept, with 2 of 3 copies",
        "hint": "meshctl ls minutes.pdf",
    }
    follows(meshd, operation(state="interrupted", error=problem), {"event": "error", "problem": problem})
    result = await meshctl("operations", ID)
    assert result.code == exits
    assert result.err == (
        "meshctl: cannot finish: pin minutes.pdf: it was interrupted; minutes.pdf is kept, with 2 of 3 copies\n"
        "  try: meshctl ls minutes.pdf\n"
    )


@pytest.mark.parametrize(
    ("verb", "done", "said"),
    [
        ("join", {"event": "done", "mesh": mesh(), "node": "desk", "created": True}, "is in the mesh."),
        ("leave", {"event": "done", "mesh": "archive"}, "left the mesh."),
    ],
)
async def test_the_steps_of_a_join_or_a_leave_are_shown(
    meshctl: Meshctl, meshd: FakeMeshd, verb: str, done: Document, said: str
) -> None:
    follows(
        meshd, operation(verb, "archive"), {"event": "step", "message": "asking 10.0.0.1", "key": ""}, done
    )
    result = await meshctl("operations", ID)
    assert (result.code, result.out) == (0, f"This node {said}\n")
    assert "  asking 10.0.0.1\n" in result.err


async def test_an_id_that_there_is_none_of(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    hint = "meshctl operations"
    meshd.refuses(
        "GET", "/v1/operations/x", 404, code="not-found", title="cannot find the operation 'x'", hint=hint
    )
    result = await meshctl("operations", "x")
    assert result.code == 4
    assert result.err == "meshctl: cannot find the operation 'x'\n  try: meshctl operations\n"


async def test_ctrl_c_ends_the_following_and_not_what_is_followed(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    reading, over = asyncio.Event(), asyncio.Event()

    async def stay(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        await send(response, pinned()[2])
        reading.set()
        await over.wait()
        return response

    meshd.answers("GET", f"/v1/operations/{ID}", operation())
    meshd.does("GET", f"/v1/operations/{ID}/events", stay)
    running = await meshctl.start("operations", ID, "--json")
    await reading.wait()
    assert running.process.stdout is not None
    await running.process.stdout.readline()
    running.signal(signal.SIGINT)
    result = await running.result()
    over.set()
    assert result.code == 130
    assert "it goes on" in result.err
    assert f"meshctl operations {ID}" in result.err


async def test_ctrl_c_in_a_pin_that_goes_on_says_how_to_follow_it(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    """Of two paths it is the one that is on its way: the first one is done."""
    write("first", b"x")
    write("second", b"x")
    reading, over, ids = asyncio.Event(), asyncio.Event(), ["00000001", ID]

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": NDJSON, "Meshd-Operation": ids.pop(0)})
        await response.prepare(request)
        if ids:
            for event in pinned("first"):
                await send(response, event)
            return response
        await send(response, {"event": "added", "root": "r", "size": 1, "files": 1})
        reading.set()
        await over.wait()
        return response

    meshd.does("POST", "/v1/pins", answer)
    running = await meshctl.start("pin", "first", "second", "--json")
    await reading.wait()
    assert running.process.stdout is not None
    while b'"root":"r"' not in await running.process.stdout.readline():
        pass
    running.signal(signal.SIGINT)
    result = await running.result()
    over.set()
    assert result.code == 130
    assert f"meshctl operations {ID}" in result.err
