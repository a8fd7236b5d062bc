"""Pinning several paths: four at a time, told of in their order."""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict

import pytest
from aiohttp import web

from tests.meshctl.conftest import Meshctl, Running, Writer
from tests.meshctl.fake_meshd import FakeMeshd, entry, pinned, reads_itself, refusal, send, stream


class Door:
    """Takes uploads, and ends each only when the test says so."""

    def __init__(self, meshd: FakeMeshd) -> None:
        self.begun: list[str] = []
        self.most = 0
        self._under_way = 0
        self._more = asyncio.Event()
        self.opens: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.takes: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.cellar: dict[str, asyncio.Event] = defaultdict(asyncio.Event)  # has the second copy
        self.refuses: set[str] = set()
        self.degrades: set[str] = set()
        self.stays = asyncio.Event()
        meshd.does("POST", "/v1/pins", self._pin)

    async def _pin(self, request: web.Request) -> web.StreamResponse:
        name = request.query["name"]
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        self.begun.append(name)
        self._more.set()
        try:
            await self.takes[name].wait()
            if name in self.refuses:
                return refusal(507, code="disk-floor", title=f"cannot pin {name}", detail="the disk is full")
            response = await stream(request)
            *before, cellar, desk, done = pinned(name)
            for event in before:
                await send(response, event)
            await self.cellar[name].wait()
            await send(response, cellar)
            await self.opens[name].wait()
            await send(response, desk)
            if name in self.degrades:
                copies = [{"node": "attic", "state": "held"}]
                done |= {"degraded": True, "entry": entry(name, held=1, copies=copies), "missing": []}
            await send(response, done)
            return response
        finally:
            self._under_way -= 1

    async def has_begun(self, count: int) -> list[str]:
        async with asyncio.timeout(30):
            while len(self.begun) < count:
                self._more.clear()
                await self._more.wait()
        return self.begun

    def let(self, *names: str, taken: bool = True, over: bool = True) -> None:
        for name in names:
            if taken:
                self.takes[name].set()
            if over:
                self.cellar[name].set()
                self.opens[name].set()


@pytest.fixture
def files(write: Writer) -> list[str]:
    names = [f"file-{number}" for number in range(7)]
    for name in names:
        write(name, name.encode())
    return names


@pytest.fixture
def door(meshd: FakeMeshd) -> Door:
    return Door(meshd)


async def shows(running: Running, line: str) -> None:
    """Wait until it prints this on standard error, as its next line there."""
    assert running.process.stderr is not None
    async with asyncio.timeout(30):
        assert await running.process.stderr.readline() == f"{line}\n".encode()


def lines(names: list[str]) -> str:
    return "".join(f"pinned {name}  300.0 MB  3 copies: attic, cellar, desk\n" for name in names)


async def test_four_are_pinned_at_a_time_each_begun_when_the_one_before_is_taken(
    meshctl: Meshctl, door: Door, files: list[str]
) -> None:
    running = await meshctl.start("pin", *files)
    assert await door.has_begun(1) == files[:1]
    for number in range(3):
        door.let(files[number], over=False)
        assert await door.has_begun(number + 2) == files[: number + 2]
    await shows(running, "  copy on attic  1/3")
    door.let(*files, over=False)
    door.let(files[2])
    assert await door.has_begun(5) == files[:5]
    door.cellar[files[0]].set()
    await shows(running, "  copy on cellar  2/3")  # by now a sixth would have been begun
    door.let(files[0])
    await shows(running, "  copy on desk  3/3")
    door.let(*files)
    result = await running.result()
    assert (result.code, result.out) == (0, lines(files))
    assert sorted(door.begun) == files
    assert door.most == 4


async def test_a_daemon_that_refuses_the_first_is_sent_nothing_more(
    meshctl: Meshctl, door: Door, files: list[str]
) -> None:
    door.refuses = set(files)
    door.let(*files)
    result = await meshctl("pin", *files)
    assert (result.code, result.out, door.begun) == (1, "", files[:1])
    rest = ", ".join(files[1:6])
    assert result.err == f"meshctl: cannot pin file-0: the disk is full; not begun: {rest} and 1 more\n"


async def test_what_ends_first_is_told_in_its_turn(meshctl: Meshctl, door: Door, files: list[str]) -> None:
    running = await meshctl.start("pin", *files[:3])
    door.let(files[0], over=False)
    door.let(files[1], files[2])
    await door.has_begun(3)
    door.let(files[0])
    result = await running.result()
    assert result.out == lines(files[:3])
    assert result.err == ("  copy on attic  1/3\n  copy on cellar  2/3\n  copy on desk  3/3\n" * 3)


async def test_after_a_failure_those_under_way_go_on_and_the_rest_is_named(
    meshctl: Meshctl, door: Door, files: list[str]
) -> None:
    door.refuses = {files[3]}
    door.degrades = {files[2]}
    running = await meshctl.start("pin", *files, "--json")
    door.let(*files[:3], over=False)
    await door.has_begun(4)
    door.let(files[3])
    door.let(*files[:3])
    result = await running.result()
    assert door.begun == files[:4]
    assert result.code == 1
    assert "cannot pin file-3: the disk is full; not begun: file-4, file-5, file-6\n" in result.err
    done = [one["path"] for one in result.documents if one.get("event") == "done"]
    assert done == files[:3]
    (failure,) = [one for one in result.documents if "title" in one]
    assert (failure["path"], failure["code"]) == (files[3], "disk-floor")


async def test_too_few_copies_of_one_is_exit_6(meshctl: Meshctl, door: Door, files: list[str]) -> None:
    door.degrades = {files[1]}
    door.let(*files)
    assert (await meshctl("pin", *files[:3])).code == 6


async def test_json_says_of_each_line_which_path_it_is_about(
    meshctl: Meshctl, door: Door, files: list[str]
) -> None:
    door.let(*files)
    result = await meshctl("pin", "--json", *files, f"./{files[0]}")
    paths = [*files, f"./{files[0]}"]
    assert [one["path"] for one in result.documents] == [path for path in paths for _ in range(7)]
    alone = await meshctl("pin", "--json", files[0])
    assert all("path" not in one for one in alone.documents)


async def test_of_one_name_each_waits_for_the_one_before(meshctl: Meshctl, door: Door, write: Writer) -> None:
    for path in ("a/x", "b/x"):
        write(path, b"")
    running = await meshctl.start("pin", "a/x", "b/x")
    door.let("x", over=False)
    await shows(running, "  copy on attic  1/3")  # it is taken, so another one could be begun
    door.cellar["x"].set()
    await shows(running, "  copy on cellar  2/3")
    door.let("x")
    assert (await running.result()).code == 0
    assert (door.begun, door.most) == (["x", "x"], 1)


async def test_ctrl_c_ends_all_and_says_of_each_what_is_left(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer, files: list[str]
) -> None:
    begun, sent = asyncio.Event(), asyncio.Event()
    cut = asyncio.Event()

    @reads_itself
    async def pin(request: web.Request) -> web.StreamResponse:
        name = request.query["name"]
        if name == "big":
            response = await stream(request)
            await send(response, {"event": "progress", "bytes": 1})
            begun.set()
            await sent.wait()
            try:
                async for _ in request.content.iter_any():
                    pass
            except (ConnectionError, web.RequestPayloadError):
                cut.set()
            return response
        await request.read()
        response = await stream(request)
        for event in pinned(name) if name == files[0] else pinned(name)[:4]:
            await send(response, event)
        if name == files[1]:
            await begun.wait()
            sent.set()
        if name != files[0]:
            await cut.wait()
        return response

    (meshctl.cwd / "big").touch()
    with (meshctl.cwd / "big").open("wb") as file:
        file.truncate(64 << 20)
    meshd.does("POST", "/v1/pins", pin)
    running = await meshctl.start("pin", files[0], files[1], "big", *files[2:])
    await sent.wait()
    running.signal(signal.SIGINT)
    result = await running.result()
    async with asyncio.timeout(30):
        await cut.wait()
    assert result.code == 130
    assert result.out == lines(files[:1])
    told = [line for line in result.err.splitlines() if line.startswith("meshctl: ")]
    assert told[0].startswith(
        "meshctl: cannot wait for every copy: interrupted; file-1 is kept and its copies are made"
    )
    assert "not begun: " in told[0]
    assert told[1] == "meshctl: cannot pin big: interrupted; nothing is pinned"


async def test_a_daemon_that_goes_away_is_told_of_each(
    meshctl: Meshctl, meshd: FakeMeshd, files: list[str]
) -> None:
    meshd.streams("POST", "/v1/pins", *pinned()[:4], ends=False)
    result = await meshctl("pin", *files[:1], *files[1:2])
    assert result.code == 1
    assert "cannot tell the outcome: the daemon went away" in result.err
    assert "this was file-0" in result.err
