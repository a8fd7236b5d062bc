"""Names as they are typed: quoted in every hint, and behind -- where they look like options."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
from urllib.parse import quote

import pytest
from aiohttp import web

from meshctl import hints
from tests.meshctl.conftest import Meshctl, Terminal, Writer
from tests.meshctl.fake_meshd import FakeMeshd, Handler, entry, parse_form, peer, pinned

ODD = 'it\'s "odd" näme $HOME.bin'
DASHED = "-weird"
DASHED_PATH = f"/v1/pins/{DASHED}"


@pytest.mark.parametrize(
    "name", ["plain.pdf", ODD, "写真", "a b", "", "-weird", "--json", "-a b", "$(reboot)"]
)
def test_a_shell_takes_a_hint_apart_into_what_was_meant(name: str) -> None:
    words = shlex.split(hints.command("get", name, "-o OTHER"))
    if name.startswith("-"):
        assert words == ["meshctl", "get", "-o", "OTHER", "--", name]
    else:
        assert words == ["meshctl", "get", name, "-o", "OTHER"]
    assert shlex.split(hints.path(name)) == [f"./{name}" if name.startswith("-") else name]
    assert shlex.split(hints.quoted(name)) == [name]


def test_what_drives_a_terminal_is_escaped_in_a_hint_too() -> None:
    assert hints.command("ls", "a\x1b[2J") == "meshctl ls $'a\\x1b[2J'"


@pytest.mark.parametrize(
    "name", [b"bell\x07", b"caf\xe9 it's \\", "\u202egpj.exe".encode(), b"\x1b2f", b"two\nlines"]
)
def test_what_cannot_be_shown_can_still_be_typed(name: bytes) -> None:
    """In bash, zsh, ksh and busybox, as $'...'."""
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("bash is not installed")
    word = hints.quoted(os.fsdecode(name))
    assert word.isprintable()
    got = subprocess.run([shell, "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert got == name


def endless(asked: asyncio.Event, over: asyncio.Event) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        asked.set()
        await over.wait()
        return web.Response()

    return handler


async def test_every_hint_can_be_typed_as_it_stands(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write(ODD, b"mine")
    quoted = shlex.quote(ODD)
    path = f"/v1/pins/{quote(ODD, safe='')}"
    meshd.answers("DELETE", path, {"entry": entry(ODD), "nodes": [], "restore_until": 1_702_600_000.0})
    assert (await meshctl("rm", ODD)).out.endswith(f": meshctl restore {quoted}\n")

    kept = entry(ODD, held=1, copies=[{"node": "attic", "state": "held"}])
    done = {"event": "done", "entry": kept, "degraded": False, "missing": []}
    meshd.streams("POST", "/v1/pins", *pinned(ODD)[:3], done)
    assert (await meshctl("pin", ODD, "--detach")).err.endswith(f"To look: meshctl ls {quoted}\n")
    missing = [{"node": "desk", "state": "missing", "detail": "it is away"}]
    meshd.streams("POST", "/v1/pins", *pinned(ODD)[:3], done | {"degraded": True, "missing": missing})
    assert f"  try: meshctl ls {quoted}   (later)" in (await meshctl("pin", ODD)).err

    assert (await meshctl("get", ODD, "-o", ODD)).err.endswith(f"  try: meshctl get {quoted} -o OTHER\n")
    assert (await meshctl("get", "x", "-o", "no one/x")).err.endswith("  try: mkdir -p 'no one'\n")
    assert (await meshctl("get", ODD, "-o", "")).err.endswith(f"  try: meshctl get {quoted} -o PATH\n")
    assert (await meshctl("ls", ODD, "--limit", "1")).err.endswith(f"  try: meshctl ls {quoted}\n")
    long = "x y" * 100
    assert (await meshctl("pin", f"./{long}")).err.endswith(f"  try: meshctl pin './{long}' --name NAME\n")


@pytest.mark.parametrize("verb", ["rm", "restore", "pin"])
async def test_a_hint_after_ctrl_c_can_be_typed_too(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer, verb: str
) -> None:
    write("a b", b"x")
    asked, over = asyncio.Event(), asyncio.Event()
    meshd.otherwise = endless(asked, over)
    running = await meshctl.start(verb, "a b")
    await asked.wait()
    running.signal(signal.SIGINT)
    result = await running.result()
    over.set()
    assert result.code == 130
    assert result.err.endswith("  try: meshctl ls 'a b'\n")


async def test_a_node_that_was_not_confirmed_is_typed_with_its_dashes(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    meshd.answers("GET", "/v1/peers", {"peers": [peer(DASHED)]})
    running = await meshctl.start("forget", "--", DASHED, stdin=terminal.device, stderr=terminal.device)
    await terminal.shows(r"\[y/N\]")
    terminal.type("n\n")
    assert (await running.result()).code == 1
    await terminal.shows(f"  try: meshctl forget --yes -- {DASHED}\r\n")
    meshd.answers("DELETE", f"/v1/peers/{DASHED}", {"name": DASHED})
    assert (await meshctl("forget", "--yes", "--", DASHED)).out == f"{DASHED} is forgotten.\n"


# -- names that begin with - -----------------------------------------------------------------------------------------


async def test_two_dashes_end_the_options_of_every_verb_that_takes_names(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    found = entry(DASHED)
    meshd.answers("GET", DASHED_PATH, found)
    meshd.answers("DELETE", DASHED_PATH, {"entry": found, "nodes": [], "restore_until": 1_702_600_000.0})
    meshd.answers("DELETE", "/v1/pins/--json", {"entry": found, "nodes": []})
    meshd.streams("POST", f"/v1/trash/{DASHED}/restore", *pinned(DASHED)[2:])
    assert (await meshctl("ls", "--", DASHED)).code == 0
    removed = await meshctl("rm", "x", "--now", "--", DASHED, "--json", "-")
    assert [asked.path for asked in meshd.asked[-4:]] == [
        "/v1/pins/x",
        DASHED_PATH,
        "/v1/pins/--json",
        "/v1/pins/-",
    ]
    assert meshd.last.query["now"] == "1"
    assert "{" not in removed.out
    assert (await meshctl("rm", "--", DASHED)).out.endswith(f": meshctl restore -- {DASHED}\n")
    assert (await meshctl("restore", "--", DASHED)).code == 0
    (meshctl.cwd / DASHED).mkdir()
    result = await meshctl("get", "--output", f"./{DASHED}", "--", DASHED)
    assert result.err.endswith(f"  try: meshctl get -o OTHER -- {DASHED}\n")
    assert (await meshctl("status", "--", "x")).code == 2
    assert (await meshctl("logs", "--", "-kubo")).err == (
        "meshctl: cannot show the log of -kubo: there is no such service\n  try: meshctl logs kubo\n"
    )


async def test_a_file_whose_name_begins_with_a_dash_is_pinned_with_how_to_type_it(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write(DASHED, b"w")
    meshd.streams("POST", "/v1/pins", *pinned(DASHED))
    for args in (("--replicas", "3", "--", DASHED), (f"./{DASHED}",)):
        result = await meshctl("pin", *args)
        assert result.code == 0
        assert parse_form(meshd.last)[0].name == DASHED
        assert result.err.endswith(f"Its name begins with -, so type it behind --: meshctl get -- {DASHED}\n")
    await meshctl("pin", "--name", "n", "--", "-", stdin=b"x")  # - is standard input wherever it stands
    assert parse_form(meshd.last)[0].body == b"x"


async def test_without_the_two_dashes_they_are_suggested(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    for verb in ("rm", "get", "ls", "restore", "forget"):
        result = await meshctl(verb, DASHED)
        assert result.code == 2
        assert result.err.endswith(
            f"  try: meshctl {verb} --help\n       meshctl {verb} -- {DASHED}   (if {DASHED} is a name)\n"
        )
    for args in (("status", DASHED), ("get", "-oX"), ("rm", "--weird")):
        assert (await meshctl(*args)).err.endswith("--help\n"), args
    assert meshd.asked == []
