"""The command line itself: help, mistakes, and text that cannot drive a terminal."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from aiohttp import web

from meshctl import commands, render
from meshctl.cli import VERBS
from tests.meshctl.conftest import ROOT, Meshctl, Writer
from tests.meshctl.fake_meshd import FakeMeshd, entry, pinned, status


async def test_alone_it_prints_its_help(meshctl: Meshctl) -> None:
    result = await meshctl()
    assert result.code == 2
    for verbs in VERBS.values():
        for verb in verbs:
            assert f"  {verb} " in result.out


@pytest.mark.parametrize("verb", [verb for group in VERBS.values() for verb in group])
async def test_every_verb_has_help_with_an_example(meshctl: Meshctl, verb: str) -> None:
    result = await meshctl(verb, "--help")
    assert result.code == 0
    assert "example" in result.out
    assert f"\n  meshctl {verb}" in result.out
    assert "--json" in result.out


def test_every_command_is_a_verb() -> None:
    files = {path.stem for path in Path(commands.__path__[0]).glob("*.py")} - {"__init__"}
    assert {verb for group in VERBS.values() for verb in group} == files


async def test_help_may_be_asked_for_by_its_name(meshctl: Meshctl) -> None:
    result = await meshctl("help", "pin")
    assert result.code == 0
    assert result.out == (await meshctl("pin", "--help")).out
    assert (await meshctl("help")).out == (await meshctl("--help")).out
    wrong = await meshctl("help", "pni")
    assert (wrong.code, wrong.err) == (2, "meshctl: cannot pni: there is no such verb\n  try: meshctl pin\n")


async def test_a_mistake_in_the_command_says_what_to_type(meshctl: Meshctl) -> None:
    result = await meshctl("pni")
    assert result.code == 2
    assert result.err == "meshctl: cannot pni: there is no such verb\n  try: meshctl pin\n"
    assert (await meshctl("\x1b[2J")).err.startswith("meshctl: cannot \\x1b[2J")
    for args in (("rm",), ("get",), ("--no",), ("status", "--no"), ("status", "extra"), ("--socket",)):
        result = await meshctl(*args)
        assert result.code == 2, args
        assert result.err.startswith("meshctl: cannot understand the command: ")
        assert "--help\n" in result.err
    assert (await meshctl("rm", "--json")).documents[0]["code"] == "usage"


async def test_the_version_needs_no_daemon(meshctl: Meshctl) -> None:
    assert (await meshctl("--version")).out == "meshctl 0.2.0\n"


async def test_any_locale_can_show_any_name(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshctl.env |= {"LANG": "C", "PYTHONIOENCODING": "ascii"}
    document = status()
    document["node"]["name"] = "döst"
    meshd.answers("GET", "/v1/status", document)
    result = await meshctl("status")
    assert result.code == 0
    assert "d\\xf6st" in result.out


async def test_a_full_standard_output_is_an_error_not_a_traceback(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/status", status())
    full = os.open("/dev/full", os.O_WRONLY)
    result = await meshctl("status", stdout=full)
    os.close(full)
    assert result.code == 1
    assert result.err == (
        "meshctl: cannot go on: No space left on device\n"
        "  try: df -h, make room where its output goes, then the same again\n"
    )


async def test_a_closed_standard_input_is_an_empty_one(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/status", status())
    meshctl.prefix = ["sh", "-c", '"$@" <&-', "sh"]
    assert (await meshctl("status")).code == 0
    assert (await meshctl("leave")).code == 2
    assert (await meshctl("join")).code == 2


async def test_a_pipe_that_nobody_reads_ends_it_quietly(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/status", status())
    for option in ((), ("--json",)):
        reading, writing = os.pipe()
        os.close(reading)
        result = await meshctl("status", *option, stdout=writing)
        os.close(writing)
        assert (result.code, result.err) == (141, "")


async def test_a_closed_standard_output_is_an_error_too(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshctl.prefix = ["sh", "-c", '"$@" >&-', "sh"]
    result = await meshctl("status")
    assert result.code == 1
    assert result.err.startswith(
        "meshctl: cannot go on: standard output or standard error is closed\n  try: "
    )
    assert meshd.asked == []


OF_PYTHON = {
    # each of them is there without a second file to read, or is small
    *("os", "stat", "errno", "select", "__future__", "genericpath", "posixpath", "os.path", "time"),
    *("_collections_abc", "_json", "_signal", "_socket", "_stat", "_thread"),
}
OF_EVERY_VERB = {
    *("arguments", "cli", "client", "commands", "documents", "errors", "interpreter", "interruptible_socket"),
    *("percent", "render", "response"),
}
LOADED = (
    "import sys; before = set(sys.modules); import meshctl.cli; meshctl.cli.main(sys.argv[1:]);"
    " print('LOADED', *(set(sys.modules) - before))"
)


@pytest.mark.parametrize(
    ("line", "own"),
    [
        ("status", {"commands.status", "commands.peers"}),
        ("status --json", {"commands.status", "commands.peers"}),
        (
            "pin x",
            {
                "commands.pin",
                "hints",
                "numbers",
                "pin_progress",
                "pin_upload",
                "copy_progress",
                "upload",
                "walk",
            },
        ),
        ("ls", {"commands.ls", "hints", "numbers", "pin_progress", "copy_progress", "refs"}),
        ("version", {"commands.version"}),
    ],
)
async def test_a_verb_loads_only_what_it_needs(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer, line: str, own: set[str]
) -> None:
    """Each module is a part of the start that a person waits for: argparse alone is as much as Python's own."""
    write("x", b"x")
    meshd.answers("GET", "/v1/status", status())
    meshd.answers("GET", "/v1/pins", {"entries": [entry()], "total": 1})
    meshd.answers("GET", "/healthz", {})
    meshd.streams("POST", "/v1/pins", *pinned("x"))
    result = await meshctl.python(
        "-I", "-S", "-c", f"import sys; sys.path.append({str(ROOT)!r}); {LOADED}", *line.split()
    )
    assert result.code == 0, result.err
    loaded = set(result.out.rpartition("LOADED")[2].split())
    assert "0 copies" not in result.out
    assert loaded - OF_PYTHON == {"meshctl", *(f"meshctl.{name}" for name in OF_EVERY_VERB | own)}


def test_what_a_terminal_would_obey_is_escaped_and_the_rest_is_left() -> None:
    assert render.safe("Ärger – 写真 🎉") == "Ärger – 写真 🎉"
    assert render.safe("\x00\t\n\x1b\x7f\x9b") == "\\x00\\x09\\x0a\\x1b\\x7f\\x9b"
    assert render.safe("\u200b\u202e\u2066\ufeff\u2028") == "\\u200b\\u202e\\u2066\\ufeff\\u2028"
    assert render.safe("\U000e0041") == "\\U000e0041"
    assert render.safe(os.fsdecode(b"caf\xe9")) == "caf\\xe9"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (300_000_000, "300.0 MB"),
        (2_500_000_000, "2.5 GB"),
        (10**12, "1.0 TB"),
        (5 * 10**15, "5.0 PB"),
    ],
)
def test_sizes_are_decimal(count: int, shown: str) -> None:
    assert render.size(count) == shown


def test_columns_are_as_wide_as_they_look() -> None:
    rows = [("写真", 1), ("e\u0301te\u0301", 22), ("plain", 333)]
    assert render.table(("NAME", "N"), rows, right=(1,)).splitlines() == [
        "NAME     N",
        "写真     1",
        "e\u0301te\u0301     22",
        "plain  333",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_while_waiting_for_an_answer(
    meshctl: Meshctl, meshd: FakeMeshd, number: signal.Signals
) -> None:
    asked, over = asyncio.Event(), asyncio.Event()

    async def never(_: web.Request) -> web.StreamResponse:
        asked.set()
        await over.wait()
        return web.Response()

    meshd.does("GET", "/v1/status", never)
    running = await meshctl.start("status")
    await asked.wait()
    running.signal(number)
    result = await running.result()
    over.set()
    assert (result.code, result.out) == (130, "")
    assert "interrupted" in result.err
