"""Pinning, when something is in the way: nothing half is ever kept, and it is said what is."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest
from aiohttp import web

from tests.meshctl.conftest import BIG, Meshctl, Terminal, Writer
from tests.meshctl.fake_meshd import FakeMeshd, pinned, reads_itself, refusal, send, stream

# -- refused before anything is sent ---------------------------------------------------------------------------------


async def refused(meshctl: Meshctl, meshd: FakeMeshd, *args: str | bytes, code: int = 1) -> str:
    """What is said of a pin that sends nothing."""
    result = await meshctl("pin", *args)
    assert result.code == code
    assert result.out == ""
    assert meshd.asked == []
    return result.err


async def test_a_path_that_is_not_there(meshctl: Meshctl, meshd: FakeMeshd, write: Writer) -> None:
    write("there", b"")
    for paths in (("there", "gone"), ("gone", "there")):
        err = await refused(meshctl, meshd, *paths)
        assert err.startswith(
            "meshctl: cannot pin gone: No such file or directory; nothing was sent\n  try: "
        )


async def test_a_file_that_cannot_be_read_is_named(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer, obeying: None
) -> None:
    write("club/fine", b"")
    write("club/secret", b"").chmod(0)
    err = await refused(meshctl, meshd, "club")
    assert err.startswith("meshctl: cannot pin ")
    assert "club/secret: Permission denied; nothing was sent" in err
    (meshctl.cwd / "club" / "locked").mkdir(0)
    err = await refused(meshctl, meshd, "club")
    assert "2 things in it are in the way" in err
    assert "club/locked (Permission denied)" in err
    assert err.endswith("  try: sudo meshctl pin club   (or, if it is yours: chmod -R u+rX club)\n")
    assert "club/secret (Permission denied)" in err


async def test_what_is_no_file_is_refused_by_name(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    os.mkfifo(meshctl.cwd / "pipe")
    assert "pipe: it is a FIFO, which cannot be kept; nothing was sent" in await refused(
        meshctl, meshd, "pipe"
    )
    assert "here/pipe: it is a FIFO" in await refused(meshctl, meshd, ".")
    assert "/dev/null: it is a device" in await refused(meshctl, meshd, "/dev/null")
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(meshctl.cwd)
        listening.bind("talk")
    assert "talk: it is a socket" in await refused(meshctl, meshd, "talk")


async def test_a_tree_that_is_too_deep_is_refused_with_what_to_type(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("/".join(["club", *["d"] * 254, "deepest"]), b"")
    meshd.streams("POST", "/v1/pins", *pinned())
    assert (await meshctl("pin", "club")).code == 0
    meshd.asked.clear()
    write("/".join(["club", *["d"] * 255, "deeper"]), b"")
    err = await refused(meshctl, meshd, "club")
    assert err.startswith("meshctl: cannot pin club: club/d/d/")
    assert "in it has more than 256 names in its path; nothing was sent" in err
    assert len(err) < 500
    assert err.endswith("  try: pin it as one file: tar -cf NAME.tar club; meshctl pin NAME.tar\n")


async def test_a_path_that_is_too_long_is_refused_with_what_to_type(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    """A short path can lead to a long one: of a directory that was entered step by step, or by --name."""
    place = os.open(meshctl.cwd, os.O_RDONLY)
    for name in ["c", *["d" * 250] * 15]:
        os.mkdir(name, dir_fd=place)
        inner = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(os.open("e" * 240, os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)
    err = await refused(meshctl, meshd, "c", "--name", "n" * 255)
    assert "in it is longer than 4,095 bytes; nothing was sent" in err
    assert "tar -cf NAME.tar c; meshctl pin NAME.tar" in err


@pytest.mark.parametrize(
    ("name", "shown", "why"),
    [
        (b"caf\xe9.txt", "caf\\xe9.txt", "not valid UTF-8"),
        (b"bell\x07", "bell\\x07", "cannot be seen"),
        (b"two\nlines", "two\\x0alines", "cannot be seen"),
        ("\u202egpj.exe".encode(), "\\u202egpj.exe", "cannot be seen"),
        ("zero\u200bwidth".encode(), "zero\\u200bwidth", "cannot be seen"),
    ],
)
async def test_a_name_that_others_cannot_read(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer, name: bytes, shown: str, why: str
) -> None:
    path = meshctl.cwd / os.fsdecode(name)
    path.write_bytes(b"x")
    alone = await refused(meshctl, meshd, name, code=2)
    assert shown in alone
    assert why in alone
    assert "--name" in alone
    inside = await refused(meshctl, meshd, ".")
    assert shown in inside
    assert "rename it" in inside
    meshd.streams("POST", "/v1/pins", *pinned("fine"))
    assert (await meshctl("pin", name, "--name", "fine")).code == 0


async def test_a_chosen_name_must_be_one(meshctl: Meshctl, meshd: FakeMeshd, write: Writer) -> None:
    write("x", b"")
    for name in ("", ".", "..", "a/b", "ä" * 128, "tab\t", b"\xff"):
        err = await refused(meshctl, meshd, "x", b"--name=" + os.fsencode(name), code=2)
        assert err.startswith("meshctl: cannot pin x as "), name
    assert "needs" not in await refused(meshctl, meshd, "-", code=2)
    assert "meshctl pin - --name NAME" in await refused(meshctl, meshd, "-", code=2)
    assert "it is no name" not in await refused(meshctl, meshd, "/", code=2)


async def test_what_makes_no_sense_together(meshctl: Meshctl, meshd: FakeMeshd, write: Writer) -> None:
    write("x", b"")
    for args in (
        (),
        ("x", "x", "--name", "n"),
        ("x", "--cid", "bafy", "--name", "n"),
        ("--cid", "bafy"),
        ("x", "--replicas", "0"),
        ("x", "--replicas", "many"),
        ("x", "--no-such-option"),
    ):
        err = await refused(meshctl, meshd, *args, code=2)
        assert err.startswith("meshctl: cannot "), args
        assert "\n  try: " in err, args


# -- the daemon says no ----------------------------------------------------------------------------------------------


async def test_a_full_disk_is_said_at_once_not_as_a_broken_pipe(
    meshctl: Meshctl, meshd: FakeMeshd, big: Path
) -> None:

    @reads_itself
    async def full(_: web.Request) -> web.StreamResponse:
        return refusal(
            507, code="disk-floor", title="cannot pin big", detail="5 GB must stay free", hint="meshctl rm"
        )

    meshd.does("POST", "/v1/pins", full)
    result = await meshctl("pin", "big")
    assert result.code == 1
    assert result.err == "meshctl: cannot pin big: 5 GB must stay free\n  try: meshctl rm\n"


async def test_a_refusal_does_not_wait_for_standard_input(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    @reads_itself
    async def full(_: web.Request) -> web.StreamResponse:
        return refusal(507, code="disk-floor", title="cannot pin dump", detail="the disk is full")

    meshd.does("POST", "/v1/pins", full)
    reading, writing = os.pipe()  # somebody has it open and writes nothing
    running = await meshctl.start("pin", "-", "--name", "dump", stdin=reading)
    result = await running.result()
    os.close(reading)
    os.close(writing)
    assert (result.code, result.err) == (1, "meshctl: cannot pin dump: the disk is full\n")


async def test_a_refusal_is_heard_even_if_the_door_is_shut_right_after_it(
    meshctl: Meshctl, big: Path, short_folder: Path
) -> None:
    problem = b'{"title": "cannot pin big", "detail": "the disk is full", "code": "disk-floor", "hint": "df"}'

    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 507 Insufficient Storage\r\nContent-Type: application/problem+json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(problem), problem))
        writer.close()

    async with await asyncio.start_unix_server(slam, short_folder / "meshd.sock"):
        result = await meshctl("pin", "big")
    assert result.code == 1
    assert result.err.startswith("meshctl: cannot pin big: the disk is full\n")


async def test_a_refusal_in_the_midst_of_an_upload_ends_it(
    meshctl: Meshctl, meshd: FakeMeshd, big: Path
) -> None:
    problem = {"title": "cannot pin big", "detail": "the disk is full", "code": "disk-floor", "hint": "df"}

    @reads_itself
    async def some(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        await request.content.readexactly(1 << 20)
        await send(response, {"event": "progress", "bytes": 1 << 20})
        await send(response, {"event": "error", "problem": problem})
        return response

    meshd.does("POST", "/v1/pins", some)
    result = await meshctl("pin", "big", "--json")
    assert result.code == 1
    assert result.err.startswith("meshctl: cannot pin big: the disk is full\n")
    assert result.documents[-1] == problem


async def test_a_daemon_that_goes_away_leaves_no_doubt_about_the_doubt(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("x", b"x")
    meshd.streams("POST", "/v1/pins", *pinned()[:4], ends=False)
    result = await meshctl("pin", "x")
    assert result.code == 1
    assert "cannot tell the outcome: the daemon went away" in result.err
    assert result.err.endswith("  try: meshctl status\n")
    meshd.streams("POST", "/v1/pins", *pinned()[:4])
    assert (await meshctl("pin", "x")).err == result.err


async def test_after_a_failure_nothing_more_is_sent(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("one", b"")
    write("two", b"")
    meshd.refuses("POST", "/v1/pins", 409, code="no-mesh", title="cannot pin one", hint="meshctl init")
    assert (await meshctl("pin", "one", "two")).code == 1
    assert len(meshd.asked) == 1


# -- the file changes while it is read -------------------------------------------------------------------------------


async def came_whole(request: web.Request) -> bool:
    """Whether what is left of the body comes to its end, rather than being cut off."""
    try:
        async for _ in request.content.iter_any():
            pass
    except (ConnectionError, web.RequestPayloadError):
        return False
    return True


async def changed_while_read(meshctl: Meshctl, meshd: FakeMeshd, path: Path, new_size: int) -> str:
    """Pins a file that gets another size when its first bytes have arrived; what is said of it."""
    with path.open("wb") as file:
        file.truncate(BIG)
    whole: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @reads_itself
    async def change(request: web.Request) -> web.StreamResponse:
        await request.content.readexactly(1 << 20)
        os.truncate(path, new_size)
        whole.set_result(await came_whole(request))
        return await stream(request)

    meshd.does("POST", "/v1/pins", change)
    result = await meshctl("pin", path.name)
    assert result.code == 1
    assert await whole is False, "the daemon must see an upload that is cut off"
    return result.err


async def test_a_file_that_grows_is_not_pinned(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    err = await changed_while_read(meshctl, meshd, meshctl.cwd / "log", BIG + 1)
    assert err.startswith("meshctl: cannot pin ")
    assert "log: it was written to while it was read; nothing of this upload is pinned\n  try: " in err


async def test_a_file_that_shrinks_is_not_pinned(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    err = await changed_while_read(meshctl, meshd, meshctl.cwd / "log", 2 << 20)
    assert "log: it became shorter while it was read; nothing of this upload is pinned" in err


async def test_a_file_that_another_took_the_place_of_is_not_pinned(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    os.truncate(write("d/a", b""), BIG)
    later = write("d/b", b"x")
    write("secret", b"s")  # as long as what it takes the place of
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @reads_itself
    async def swap(request: web.Request) -> web.StreamResponse:
        await request.content.readexactly(1 << 20)
        later.unlink()
        later.symlink_to("../secret")
        try:
            async for _ in request.content.iter_any():
                pass
            outcome.set_result("whole")
        except (ConnectionError, web.RequestPayloadError):
            outcome.set_result("cut off")
        return await stream(request)

    meshd.does("POST", "/v1/pins", swap)
    result = await meshctl("pin", "d")
    assert result.code == 1
    assert "d/b: " in result.err
    assert await outcome == "cut off"


# -- Ctrl-C ----------------------------------------------------------------------------------------------------------


async def test_ctrl_c_in_the_midst_of_an_upload_leaves_nothing_pinned(
    meshctl: Meshctl, meshd: FakeMeshd, big: Path
) -> None:
    begun = asyncio.Event()
    interrupted = asyncio.Event()
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @reads_itself
    async def wait(request: web.Request) -> web.StreamResponse:
        await request.content.readexactly(1 << 20)
        begun.set()
        await interrupted.wait()
        try:
            async for _ in request.content.iter_any():
                pass
            outcome.set_result("whole")
        except (ConnectionError, web.RequestPayloadError):
            outcome.set_result("cut off")
        return await stream(request)

    meshd.does("POST", "/v1/pins", wait)
    running = await meshctl.start("pin", "big")
    await begun.wait()
    running.signal(signal.SIGINT)
    result = await running.result()
    interrupted.set()
    assert result.code == 130
    assert result.err == "meshctl: cannot pin big: interrupted; nothing is pinned\n  try: the same again\n"
    assert await outcome == "cut off"


async def interrupted_after(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal, events: int, shows: str
) -> tuple[int, str]:
    """Ctrl-C when the whole body was sent and so many events have come."""
    (meshctl.cwd / "x").write_bytes(b"x")
    read = asyncio.Event()
    over = asyncio.Event()

    async def stay(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        for event in pinned("x")[:events]:
            await send(response, event)
        read.set()
        await over.wait()
        return response

    meshd.does("POST", "/v1/pins", stay)
    running = await meshctl.start("pin", "x", stderr=terminal.device)
    await read.wait()
    await terminal.shows(shows)
    running.signal(signal.SIGINT)
    code = (await running.result()).code
    over.set()
    return code, await terminal.shows(r"meshctl: [^\r]*\r\n  try: [^\r]*")


async def test_ctrl_c_while_copies_are_made_says_that_it_goes_on(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    code, said = await interrupted_after(meshctl, meshd, terminal, 4, "copy on attic")
    assert code == 130
    assert "x is kept and its copies are made in the background" in said
    assert said.endswith("meshctl ls x")


async def test_ctrl_c_when_all_is_sent_but_nothing_is_known_does_not_promise(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    code, said = await interrupted_after(meshctl, meshd, terminal, 1, "5 B of 1 B")
    assert code == 130
    assert "cannot tell whether x is pinned: interrupted" in said
    assert said.endswith("meshctl ls x")


async def test_ctrl_c_that_ends_the_program_before_the_pipe_does_not_pin_the_half(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    @reads_itself
    async def wait(request: web.Request) -> web.StreamResponse:
        await request.content.readuntil(b"half of it")
        begun.set()
        try:
            async for _ in request.content.iter_any():
                pass
            outcome.set_result("whole")
        except (ConnectionError, web.RequestPayloadError):
            outcome.set_result("cut off")
        return await stream(request)

    meshd.does("POST", "/v1/pins", wait)
    running = await meshctl.start("pin", "-", "--name", "dump", stdin=asyncio.subprocess.PIPE)
    assert running.process.stdin is not None
    running.process.stdin.write(b"half of it")
    await begun.wait()
    running.process.stdin.close()  # the end of the output comes first, the signal right behind it
    running.signal(signal.SIGINT)
    result = await running.result()
    assert result.code == 130
    assert "nothing is pinned" in result.err
    assert await outcome == "cut off"


async def test_a_file_that_has_more_in_it_than_its_size_says_is_not_pinned_as_empty(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    whole: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @reads_itself
    async def take(request: web.Request) -> web.StreamResponse:
        whole.set_result(await came_whole(request))
        return await stream(request)

    meshd.does("POST", "/v1/pins", take)
    result = await meshctl("pin", "/proc/cpuinfo")
    assert result.code == 1
    assert "it has more in it than its size says; nothing of this upload is pinned" in result.err
    assert "cat /proc/cpuinfo | meshctl pin - --name NAME" in result.err
    assert await whole is False
