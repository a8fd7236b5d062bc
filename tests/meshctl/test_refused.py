"""What is mistyped, or points nowhere: refused before anything is sent, with the cause and what to type."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest
from aiohttp import web

from tests.meshctl.conftest import Meshctl, Writer
from tests.meshctl.fake_meshd import FakeMeshd, pinned, refusal, send, stream


async def said(meshctl: Meshctl, meshd: FakeMeshd, *args: str, code: int) -> str:
    """What is printed of a command that the daemon never hears of."""
    result = await meshctl(*args)
    assert (result.code, result.out) == (code, ""), result
    assert meshd.asked == []
    return result.err


# -- what to pin -------------------------------------------------------------------------------------------------------


async def test_an_empty_path_is_not_the_folder_that_one_is_in(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("here", b"x")
    err = await said(meshctl, meshd, "pin", "", code=2)
    assert err == "meshctl: cannot pin a path without a name: it is empty\n  try: meshctl pin PATH\n"


async def test_a_symlink_that_leads_nowhere_is_told_as_one(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    (meshctl.cwd / "dangling").symlink_to("gone")
    (meshctl.cwd / "loop").symlink_to("loop")
    assert await said(meshctl, meshd, "pin", "dangling", code=1) == (
        "meshctl: cannot pin dangling: it is a symlink to gone, which is not there; nothing was sent\n"
        "  try: ls -l dangling\n"
    )
    assert await said(meshctl, meshd, "pin", "loop", code=1) == (
        "meshctl: cannot pin loop: it is a symlink to loop, which leads back to it; nothing was sent\n"
        "  try: ls -l loop\n"
    )


async def test_a_symlink_that_is_followed_is_said_to_be(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    real = write("real/f", b"x").parent
    (meshctl.cwd / "link").symlink_to("real")
    meshd.streams("POST", "/v1/pins", *pinned("link"))
    for typed in ("link", "link/"):
        result = await meshctl("pin", typed)
        assert result.err.startswith(f"note: link is a symlink; what it leads to is pinned: {real}\n")
    assert "is a symlink" not in (await meshctl("pin", "real")).err


async def test_symlinks_in_a_directory_stay_symlinks_whatever_they_lead_to(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("club/a", b"x")
    for name, target in (("gone", "nowhere"), ("self", "."), ("loop", "loop"), ("out", "/etc/passwd")):
        (meshctl.cwd / "club" / name).symlink_to(target)
    meshd.streams("POST", "/v1/pins", *pinned("club"))
    result = await meshctl("pin", "club")
    assert result.code == 0
    assert result.err.startswith("note: 4 symlinks are kept in club as such, not followed\n")
    assert (meshd.last.query["files"], meshd.last.query["bytes"]) == ("1", "1")


async def test_a_fifo_a_socket_and_a_device_in_a_directory_are_named_and_not_opened(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    folder = meshctl.cwd / "club"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(folder)
        listening.bind("talk")
    err = await said(meshctl, meshd, "pin", "club", code=1)
    assert "club/pipe (it is a FIFO, which cannot be kept)" in err
    assert "club/talk (it is a socket, which cannot be kept)" in err
    assert err.endswith(
        "  try: move it elsewhere, or pin its content: cat FILE | meshctl pin - --name NAME\n"
    )


async def test_of_several_paths_it_is_said_which_were_not_begun(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    for name in ("one", "two", "three", "four"):
        write(name, b"x")

    async def only_one(request: web.Request) -> web.StreamResponse:
        name = request.query["name"]
        if name != "one":
            return refusal(
                507, code="disk-floor", title=f"cannot pin {name}", detail="the disk is full", hint="df"
            )
        response = await stream(request)
        for event in pinned(name):
            await send(response, event)
        return response

    meshd.does("POST", "/v1/pins", only_one)
    result = await meshctl("pin", "one", "two", "three", "four")
    assert result.code == 1
    assert result.out.startswith("pinned one  ")
    assert result.err.endswith(
        "meshctl: cannot pin two: the disk is full; not begun: three, four\n  try: df\n"
    )
    assert [asked.query["name"] for asked in meshd.asked] == ["one", "two"]


@pytest.mark.parametrize("number", ["0", "-1", "1001", "99999", "abc", "", "1e3", "3.5", "\u0663", "1" * 30])
async def test_a_number_of_copies_that_is_none(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer, number: str
) -> None:
    write("x", b"")
    err = await said(meshctl, meshd, "pin", "x", "--replicas", number, code=2)
    assert f"{number!r} is neither a number from 1 to 1000 nor all\n  try: meshctl pin --help\n" in err


@pytest.mark.parametrize(
    "args",
    [
        ("ls", "--limit", "0"),
        ("ls", "--limit", "\u0663"),
        ("logs", "kubo", "-n", "-1"),
        ("logs", "kubo", "-n", "\u0663"),
        ("invite", "--expires", "0"),
        ("invite", "--expires", "\u0663d"),
        ("invite", "--expires", "99d"),
    ],
)
async def test_another_number_that_is_none(meshctl: Meshctl, meshd: FakeMeshd, args: tuple[str, ...]) -> None:
    err = await said(meshctl, meshd, *args, code=2)
    assert repr(args[-1]) in err
    assert err.endswith(f"  try: meshctl {args[0]} --help\n")


# -- references --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["ls", "get", "rm", "restore"])
@pytest.mark.parametrize(
    ("ref", "why"),
    [
        ("", "no name was given"),
        (".", "that is a path of this machine"),
        ("..", "that is a path of this machine"),
        ("/etc/passwd", "that is a path of this machine"),
        ("../x", "that is a path of this machine"),
        ("club/../x", "a path inside an entry goes down only"),
        ("caf\udce9", "it is not valid UTF-8"),
        ("x" * 9000, "it is longer than any name"),
    ],
)
async def test_a_reference_that_cannot_be_one(
    meshctl: Meshctl, meshd: FakeMeshd, verb: str, ref: str, why: str
) -> None:
    err = await said(meshctl, meshd, verb, ref, code=2)
    assert err.startswith("meshctl: cannot ")
    assert why in err
    assert "\n  try: meshctl ls" in err
    assert len(err) < 400


async def test_a_path_inside_that_no_request_could_hold(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    for verb in ("ls", "get"):
        err = await said(meshctl, meshd, verb, "club/" + "x" * 9000, code=2)
        assert "its path is longer than 2000 bytes\n  try: meshctl ls club\n" in err


async def test_only_a_whole_entry_is_removed_or_restored(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    for verb, word in (("rm", "remove"), ("restore", "restore")):
        err = await said(meshctl, meshd, verb, "club/may 1.jpg", code=2)
        assert err == (
            f"meshctl: cannot {word} club/may 1.jpg: it is in club, and what is one entry stays together\n"
            "  try: meshctl ls club\n"
        )
    meshd.answers("DELETE", "/v1/pins/club", {"entry": {"name": "club"}, "nodes": []})
    assert (await meshctl("rm", "club/")).code == 0, "as ls shows it"


# -- where to write ----------------------------------------------------------------------------------------------------


async def test_a_file_in_the_place_of_a_folder(meshctl: Meshctl, meshd: FakeMeshd, write: Writer) -> None:
    write("file", b"")
    (meshctl.cwd / "loop").symlink_to("loop")
    for parent in ("file", "loop"):
        err = await said(meshctl, meshd, "get", "x", "-o", f"{parent}/x", code=1)
        assert (
            err == f"meshctl: cannot write {parent}/x: {parent} is no folder\n  try: meshctl get x -o OTHER\n"
        )


async def test_a_full_standard_output_leaves_no_doubt_that_it_is_not_all(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    async def content(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 100_000, headers={"Meshd-Kind": "file", "Meshd-Name": "x"})

    meshd.does("GET", "/v1/pins/x/content", content)
    full = os.open("/dev/full", os.O_WRONLY)
    result = await meshctl("get", "x", "-o", "-", stdout=full)
    os.close(full)
    assert result.code == 1
    assert result.err == (
        "meshctl: cannot write x to standard output: No space left on device; what was written is not all of it\n"
        "  try: df -h, make room where its output goes, then the same again\n"
    )


# -- the daemon's socket -----------------------------------------------------------------------------------------------


async def test_what_is_no_socket_is_told_as_such(meshctl: Meshctl, write: Writer) -> None:
    write("file", b"")
    for path in ("file", ".", "/dev/null"):
        result = await meshctl("--socket", path, "status")
        assert result.code == 3
        assert result.err.startswith(
            f"meshctl: cannot reach meshd: {path} is no socket\n  try: meshctl --socket PATH"
        )


async def test_a_socket_without_a_path_is_a_mistake(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    assert "--socket was given no path" in await said(meshctl, meshd, "--socket", "", "status", code=2)


async def test_a_path_too_long_for_a_socket_says_how_long_it_may_be(
    meshctl: Meshctl, short_folder: Path
) -> None:
    path = short_folder / ("x" * 120)
    meshctl.env["MESHD_SOCKET"] = str(path)
    result = await meshctl("status")
    assert result.code == 3
    assert f"a socket's path has at most 107 bytes, and this has {len(str(path))}: {path}" in result.err
    assert "  try: ln -s FOLDER /tmp/m, then: meshctl --socket /tmp/m/meshd.sock" in result.err


async def test_a_stranger_on_the_socket_is_not_taken_for_meshd(meshctl: Meshctl, short_folder: Path) -> None:
    answers = [
        b"hello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\nnonsense",
        b"",
    ]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers[0])
        writer.close()

    async with await asyncio.start_unix_server(talk, short_folder / "meshd.sock"):
        while answers:
            for verb in ("status", "doctor"):
                result = await meshctl(verb)
                assert (result.code, result.out) == (1, "")
                assert result.err.startswith("meshctl: cannot ")
                assert "\n  try: meshctl " in result.err
            answers.pop(0)


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [("watch",), ("logs", "kubo", "-f")])
async def test_ctrl_c_is_the_way_to_end_what_never_ends(
    meshctl: Meshctl, meshd: FakeMeshd, args: tuple[str, ...]
) -> None:
    over = asyncio.Event()

    async def forever(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        await send(response, {"event": "line", "time": 1, "text": "begun", "message": "begun"})
        await over.wait()
        return response

    meshd.otherwise = forever
    running = await meshctl.start(*args)
    assert running.process.stdout is not None
    assert b"begun" in await running.process.stdout.readline()
    running.signal(signal.SIGINT)
    result = await running.result()
    over.set()
    assert (result.code, result.err) == (130, "")
