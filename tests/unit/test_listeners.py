"""What the listeners bound before they know who calls: how many connections, how much time, how long a head."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from meshd.config import Control
from meshd.control.access import Gatekeeper
from meshd.control.server import KNOWN, OTHERS, OWN, ControlServer
from meshd.http.request import Request
from meshd.http.route import Bytes, Route, Text
from meshd.metrics import MetricsServer
from meshd.serving import listener
from meshd.serving.limiter import Limit
from meshd.wire import PinRequest
from tests.waiting import until

HEAD_S = 0.3
STILL_S = 15.0  # a busy machine's patience
LIMITS = {OWN: Limit(4, 4), KNOWN: Limit(4, 4), OTHERS: Limit(2, 3)}
GET = b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
NOBODY = 65534


class Api:
    """Three routes: one that answers at once, one that streams until the test ends it, one that takes a body."""

    def __init__(self) -> None:
        self.streams = 0
        self.more = asyncio.Event()
        self.routes = [
            Route("GET", "/now", "read", self.now, "text/plain"),
            Route("GET", "/watch", "read", self.watch, "text/plain"),
            Route("PUT", "/body", "read", self.body, "text/plain", PinRequest),
        ]

    async def now(self, _: Request) -> Text:
        return Text("now\n")

    async def watch(self, _: Request) -> Bytes:
        return Bytes(self._until_more())

    async def _until_more(self) -> AsyncGenerator[bytes, None]:
        yield b"begun\n"
        self.streams += 1
        await self.more.wait()
        yield b"ended\n"

    async def body(self, request: Request) -> Text:
        request.read(PinRequest)
        return Text("taken\n")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where another user may come."""
    with tempfile.TemporaryDirectory(prefix="l") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.asynccontextmanager
async def serving(folder: Path, head_s: float) -> AsyncIterator[Api]:
    made = Api()
    keeper = Gatekeeper(Control(admin_group="", read_group=""), list)
    server = ControlServer(
        folder / "meshd.sock", keeper, routes=made.routes, limits=LIMITS, head_s=head_s, grace_s=0.0
    )
    await server.start()
    yield made
    made.more.set()
    await server.stop()


@pytest.fixture
async def api(folder: Path) -> AsyncIterator[Api]:
    async with serving(folder, HEAD_S) as made:
        yield made


@pytest.fixture
async def patient_api(folder: Path) -> AsyncIterator[Api]:
    """Time ends no connection here, so what ends one is their number."""
    async with serving(folder, 300.0) as made:
        yield made


Connect = Callable[..., Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest.fixture
async def connect(folder: Path) -> AsyncIterator[Connect]:
    writers: list[asyncio.StreamWriter] = []

    async def open_one(sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(folder / "meshd.sock")
        writers.append(writer)
        writer.write(sent)
        return reader, writer

    yield open_one
    for writer in writers:
        writer.close()


async def ends(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the other side hangs up."""
    async with asyncio.timeout(STILL_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


# -- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /now HTTP/1.1\r\nHost: m\r\nX: "])
@pytest.mark.usefixtures("api")
async def test_who_sends_no_whole_head_is_hung_up_on(connect: Connect, sent: bytes) -> None:
    reader, _ = await connect(sent)
    assert await ends(reader) == b""


@pytest.mark.usefixtures("api")
async def test_a_head_that_comes_drop_by_drop_gets_no_more_time(connect: Connect) -> None:
    reader, writer = await connect(b"GET /now HTTP/1.1\r\n")

    async def drop() -> None:
        while True:
            writer.write(b"X: y\r\n")
            await asyncio.sleep(HEAD_S / 10)

    dropping = asyncio.create_task(drop())
    with contextlib.suppress(ConnectionError):  # of a drop that came after the end
        assert await ends(reader) == b""
    dropping.cancel()


async def test_a_stream_lasts_longer_than_any_silent_connection(api: Api, connect: Connect) -> None:
    watching, _ = await connect(GET % b"/watch")
    await until(lambda: api.streams)
    for _ in range(2):  # twice the time that a head has
        silent, _ = await connect()
        assert await ends(silent) == b""
    api.more.set()
    async with asyncio.timeout(STILL_S):
        assert b"ended" in await watching.readuntil(b"ended\n")


async def test_a_connection_that_is_kept_idle_is_hung_up_on_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener.Listener.__init__, "__kwdefaults__", {**_defaults(), "idle_s": 0.3})
    metrics = MetricsServer("127.0.0.1:0", Api().routes)
    await metrics.start()
    assert metrics.listening is not None
    reader, writer = await asyncio.open_connection(*metrics.listening)
    writer.write(GET % b"/now")
    assert b"200 OK" in await ends(reader)
    writer.close()
    await metrics.stop()


def _defaults() -> dict[str, object]:
    return dict(listener.Listener.__init__.__kwdefaults__ or {})


@pytest.mark.usefixtures("api")
async def test_a_small_body_that_does_not_come_is_refused(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "BODY_S", 0.2)
    reader, _ = await connect(b"PUT /body HTTP/1.1\r\nHost: m\r\nContent-Length: 10\r\n\r\n{")
    async with asyncio.timeout(STILL_S):
        answer = await reader.readuntil(b"}")
    assert b"400" in answer.split(b"\r\n")[0]
    assert b"its body did not come within" in answer


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("line", [b"X: " + b"y" * 9000, b"\r\n".join([b"X: y"] * 70)], ids=["long", "many"])
async def test_a_head_that_is_too_long_is_refused(connect: Connect, line: bytes) -> None:
    reader, _ = await connect(b"GET /now HTTP/1.1\r\nHost: m\r\n" + line + b"\r\n\r\n")
    assert (await ends(reader)).startswith(b"HTTP/1.0 400 ")


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("path", [b"/now", b"/nowhere"])
async def test_an_expectation_that_is_no_text_is_refused_and_no_news(connect: Connect, path: bytes) -> None:
    with capture_logs() as logs:
        reader, _ = await connect(
            b"GET %b HTTP/1.1\r\nHost: m\r\nExpect: \xff\xfe\r\nConnection: close\r\n\r\n" % path
        )
        assert (await ends(reader)).startswith(b"HTTP/1.1 417 ")
    assert logs == []


# -- number --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient_api")
async def test_silent_connections_make_room_the_oldest_first(connect: Connect) -> None:
    readers = [(await connect())[0] for _ in range(LIMITS[OWN].each)]
    answered, _ = await connect(GET % b"/now")
    async with asyncio.timeout(STILL_S):
        assert b"200 OK" in await answered.readuntil(b"now\n")
    assert await ends(readers[0]) == b""


async def test_where_all_are_being_answered_one_more_is_told_so_by_meshctl(
    patient_api: Api, connect: Connect, folder: Path
) -> None:
    watching = [await connect(GET % b"/watch") for _ in range(LIMITS[OWN].each)]
    await until(lambda: patient_api.streams == len(watching))
    words = ["-m", "meshctl", "--socket", str(folder / "meshd.sock"), "status"]
    meshctl = await asyncio.create_subprocess_exec(sys.executable, *words, stderr=subprocess.PIPE)
    async with asyncio.timeout(30):
        _, said = await meshctl.communicate()
    assert b"meshctl: cannot answer: user id" in said
    assert said.endswith(b"see which programs hold them, and end some: ss -xp | grep meshd.sock\n")
    patient_api.more.set()
    for reader, _ in watching:
        async with asyncio.timeout(STILL_S):
            assert b"ended" in await reader.readuntil(b"ended\n")


def as_nobody(path: Path, sent: bytes = b"") -> socket.socket:
    """A connection that the kernel says is another user's."""
    made = socket.socket(socket.AF_UNIX)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        made.connect(str(path))
    finally:
        os.seteuid(0)
        os.setegid(0)
    made.sendall(sent)
    made.setblocking(False)
    return made


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")
async def test_a_user_who_may_not_ask_cannot_lock_out_one_who_may(
    patient_api: Api, connect: Connect, folder: Path
) -> None:
    """It is still told why it may not."""
    loop = asyncio.get_running_loop()
    theirs = [as_nobody(folder / "meshd.sock") for _ in range(40)]
    asks = as_nobody(folder / "meshd.sock", GET % b"/now")
    async with asyncio.timeout(STILL_S):
        assert b" 403 " in await loop.sock_recv(asks, 4096)
    mine = [await connect(GET % b"/watch") for _ in range(LIMITS[OWN].each)]
    await until(lambda: patient_api.streams == len(mine))
    for made in [*theirs, asks]:
        made.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")
@pytest.mark.usefixtures("patient_api")
async def test_of_a_user_who_may_not_ask_few_connections_stay_open(folder: Path) -> None:
    loop = asyncio.get_running_loop()
    theirs = [as_nobody(folder / "meshd.sock") for _ in range(10)]
    async with asyncio.timeout(STILL_S):
        for made in theirs[: -LIMITS[OTHERS].each]:
            assert await loop.sock_recv(made, 4096) == b""
    for made in theirs:
        made.close()


async def test_on_the_loopback_port_the_oldest_silent_one_makes_room() -> None:
    metrics = MetricsServer("127.0.0.1:0", Api().routes, most=3, head_s=60.0)
    await metrics.start()
    assert metrics.listening is not None
    silent = [await asyncio.open_connection(*metrics.listening) for _ in range(3)]
    reader, writer = await asyncio.open_connection(*metrics.listening)
    writer.write(b"GET /now HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert b"200 OK" in await ends(reader)
    assert await ends(silent[0][0]) == b""
    for _, each in [*silent, (reader, writer)]:
        each.close()
    await metrics.stop()


class NoFilesOnce(socket.socket):
    """Cannot accept the first time: the process has all the files that it may have."""

    failed = False

    def accept(self) -> tuple[socket.socket, object]:
        if not self.failed:
            self.failed = True
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


async def test_a_listener_that_ran_out_of_files_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_PAUSE_S", 0.05)
    monkeypatch.setattr(socket, "socket", NoFilesOnce)
    metrics = MetricsServer("127.0.0.1:0", Api().routes)
    await metrics.start()
    monkeypatch.undo()
    assert metrics.listening is not None
    with capture_logs() as logs:
        reader, writer = await asyncio.open_connection(*metrics.listening)
        writer.write(b"GET /now HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in await ends(reader)
    assert [log["event"] for log in logs] == ["cannot accept connections for a moment"]
    writer.close()
    await metrics.stop()
