"""The accept loop of one socket. It bounds connections, in number and time, before their caller is authenticated.

A connection counts once it is accepted, so an unfinished TLS handshake counts, too. It has `head_s` seconds for its
first request's head, `idle_s` for each later one, and no bound while a request is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import structlog
from aiohttp import hdrs, web

from meshd.errors import MeshError
from meshd.serving.limiter import Limit, Limiter, Origin, Slot

HEAD_S = 10.0
IDLE_S = 60.0
BODY_S = 30.0
"""Seconds in which a small body must arrive. Uploads have no such bound."""
HEAD_LIMITS: dict[str, Any] = {"max_line_size": 8190, "max_field_size": 8190, "max_headers": 64}
"""Bounds of a request's head in aiohttp's parser: bytes of a line and of a header, and the number of headers."""
_CONTINUE = "100-continue"
_BACKLOG = 1024
_ADMITS = 4  # per turn of the loop: a flood blocks nobody, and a caller that sends at once is read before an eviction
_ACCEPTS = 64  # per turn of the loop, of which most are refused
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_S = 1.0  # after "too many open files"; a listening socket stays readable meanwhile
_LOG = structlog.get_logger(part="serving")


class Tls(NamedTuple):
    """handshake_s: seconds for the caller's part of the handshake. goodbye_s: seconds for the close_notify."""

    context: ssl.SSLContext
    handshake_s: float
    goodbye_s: float


def peer_uid(connection: socket.socket) -> int:
    """The peer's user id on a Unix socket, by SO_PEERCRED. Raises OSError."""
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def unix_socket(path: str) -> socket.socket:
    """A bound Unix socket. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    return sock


def refusal(error: MeshError) -> bytes:
    """The response to an unread request: the error as a problem document, with `Connection: close`."""
    body = json.dumps(error.problem()).encode()
    head = (
        f"HTTP/1.1 {error.status} Refused\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class Listener:
    """One listening socket. `serve` an aiohttp application on it; what else speaks HTTP tells by `answering` what it answers."""

    def __init__(
        self,
        limits: Mapping[str, Limit],
        origin: Callable[[socket.socket], Origin | None],
        *,
        protocol: Callable[[], asyncio.Protocol] | None = None,
        known: Callable[[asyncio.BaseTransport], Origin | None] = lambda _: None,
        full: Callable[[Origin], bytes] = lambda _: b"",
        head_s: float = HEAD_S,
        idle_s: float = IDLE_S,
        grace_s: float = 0.0,
        tls: Tls | None = None,
    ) -> None:
        """origin: of a socket that was just accepted; None where it may not speak to us at all; may raise OSError.

        protocol: makes what reads and answers one connection; None where `serve` is told. known: who it is after the
        handshake; None where that tells nothing new. full: what is sent to one that finds no room. grace_s: see Limiter.
        """
        self._protocol = protocol
        self._limiter = Limiter(limits, grace_s=grace_s)
        self._origin = origin
        self._known = known
        self._full = full
        self._head_s = head_s
        self._idle_s = idle_s
        self._tls = tls
        self._sock: socket.socket | None = None
        self._paused: asyncio.TimerHandle | None = None
        self._beginning: set[asyncio.Task[None]] = set()
        self._connections: dict[object, _Connection] = {}

    def count(self, kind: str) -> int:
        """Connections of that kind now, those in their handshake included."""
        return self._limiter.count(kind)

    async def serve(self, runner: web.BaseRunner, bind: Callable[[], socket.socket]) -> None:
        """Set the application up, and listen on the socket that `bind` makes. `stop` this before the runner's `cleanup`.

        Raises OSError; then the runner is to be cleaned up all the same.
        """
        await runner.setup()
        server = runner.server
        assert server is not None  # noqa: S101 - it is set up
        self.guard(server)
        self._protocol = server
        self.start(bind())

    def start(self, sock: socket.socket) -> None:
        """Listen on a bound socket, and own it from now on. Raises OSError."""
        try:
            sock.setblocking(False)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock, self._accept)

    async def stop(self) -> None:
        """Accept no more connections, and close those in their handshake. The others belong to their protocol."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
        asyncio.get_running_loop().remove_reader(sock)
        sock.close()
        for task in self._beginning:
            task.cancel()
        await asyncio.gather(*self._beginning, return_exceptions=True)

    @contextlib.contextmanager
    def answering(self, protocol: object) -> Iterator[None]:
        """Keep the connection of `protocol` from being closed while a request of it is answered."""
        connection = self._connections.get(protocol)
        if connection is None:  # it is lost, and its request runs to its end
            yield
            return
        connection.busy()
        try:
            yield
        finally:
            connection.silent(self._idle_s)

    def guard(self, server: web.Server) -> None:
        """Wrap each request of an aiohttp server in `answering`. Call it before `start`.

        An Expect that nobody can fulfil is refused here: aiohttp quotes it, and breaks where it is no text.
        """
        inner = server.request_handler

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            if request.headers.get(hdrs.EXPECT, _CONTINUE).lower() != _CONTINUE:
                return web.Response(status=417, text="cannot do what Expect asks for\n")
            with self.answering(request.protocol):
                return await inner(request)

        server.request_handler = handle

    # -- from the kernel to the protocol ---------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._sock is not None  # noqa: S101 - its reader is removed with it
        admitted = 0
        for _ in range(_ACCEPTS):
            try:
                connection, _ = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in _NO_FILES:
                    self._pause(exc)
                    return
                continue  # the caller closed it before it was accepted
            try:
                admitted += self._admit(connection)
            except OSError:
                connection.close()  # its other end is gone
            if admitted >= _ADMITS:
                return

    def _pause(self, exc: OSError) -> None:
        assert self._sock is not None  # noqa: S101 - see _accept
        _LOG.error("cannot accept connections for a moment", error=exc.strerror)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock)
        self._paused = loop.call_later(_PAUSE_S, loop.add_reader, self._sock, self._accept)

    def _admit(self, connection: socket.socket) -> bool:
        connection.setblocking(False)
        origin = self._origin(connection)
        if origin is None:
            connection.close()
            return False
        protocol = _Connection(self)
        task: asyncio.Task[None] | None = None

        def close() -> None:  # called during the handshake
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # a transport of one tick's age does not close yet
            if task is not None:
                task.cancel()

        def ended(task: asyncio.Task[None]) -> None:
            self._beginning.discard(task)
            if not protocol.begun:  # it was cancelled before it ran, so no transport closes it
                connection.close()
            if not protocol.made and slot is not None:
                self._limiter.release(slot)

        slot = self._limiter.take(origin, close)
        if slot is None:
            with contextlib.suppress(OSError), connection:
                connection.send(self._full(origin))
            return False
        task = asyncio.get_running_loop().create_task(self._begin(connection, protocol, slot))
        self._beginning.add(task)
        task.add_done_callback(ended)
        return True

    async def _begin(self, connection: socket.socket, protocol: _Connection, slot: Slot) -> None:
        protocol.begin(slot)
        tls = self._tls
        options: dict[str, Any] = {}
        if tls is not None:
            options["ssl"] = tls.context
            options["ssl_handshake_timeout"] = tls.handshake_s
            options["ssl_shutdown_timeout"] = tls.goodbye_s
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # a failed or late handshake is the caller's fault
            await loop.connect_accepted_socket(lambda: protocol, connection, **options)


class _Connection(asyncio.Protocol):
    """An asyncio protocol around the one that speaks HTTP, which enforces its timers and its slot."""

    def __init__(self, listener: Listener) -> None:
        """begun: whether a transport has its socket. made: whether its handshake is complete."""
        self.begun = self.made = False
        self._listener = listener
        self._slot: Slot
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None
        self._unsent = 0

    def begin(self, slot: Slot) -> None:
        self.begun = True
        self._slot = slot

    def busy(self) -> None:
        self._listener._limiter.busy(self._slot)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def silent(self, seconds: float) -> None:
        """Set the deadline for the next request's head."""
        if self._transport is None:
            return
        self._listener._limiter.silent(self._slot)
        self._unsent = 0
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._too_long, seconds)

    def _too_long(self, seconds: float) -> None:
        assert self._transport is not None  # noqa: S101 - its timers end with it
        left = self._transport.get_write_buffer_size()
        if left and left != self._unsent:  # the caller reads the response slowly, but it reads
            self._unsent = left
            self._wait(seconds)
        else:
            self._transport.abort()

    # -- what asyncio calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream
        listener, self.made = self._listener, True
        self._slot.close = transport.abort
        origin = listener._known(transport)
        if origin is not None and not listener._limiter.move(self._slot, origin):
            transport.abort()
            return
        self._transport = transport
        lasts_s = listener._limiter.limit(self._slot.origin).lasts_s
        if lasts_s is not None:
            self._end = asyncio.get_running_loop().call_later(lasts_s, transport.abort)
        assert listener._protocol is not None  # noqa: S101 - it listens only once there is one
        self._inner = listener._protocol()
        listener._connections[self._inner] = self
        self._wait(listener._head_s)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._listener._limiter.release(self._slot)
        for timer in (self._timer, self._end):
            if timer is not None:
                timer.cancel()
        if self._inner is not None:
            del self._listener._connections[self._inner]
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()
