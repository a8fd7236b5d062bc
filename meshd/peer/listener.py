"""The TCP and HTTP side of the peer API: limits of connections, and the response to a malformed request."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from typing import Any

import psutil
import structlog
from aiohttp import web

from meshd.errors import Code, MeshError
from meshd.http import problem
from meshd.http.problem import Surface
from meshd.serving.limiter import Limit
from meshd.serving.listener import HEAD_LIMITS

MEMBER, NEIGHBOUR, STRANGER = "member", "neighbour", "stranger"
_STRANGER_S = 30.0  # seconds that a connection without a certificate may last
LIMITS = {
    MEMBER: Limit(32, 512),
    NEIGHBOUR: Limit(32, 256, _STRANGER_S),
    STRANGER: Limit(8, 32, _STRANGER_S),
}
"""Connections at a time: of a member, by its certificate; before the handshake and without a certificate, of an IP
address: of those in the roster, and of all others. A member's client opens up to 16 at once (meshd/mesh/dial.py), and
after a lost connection the old ones may still count. A TLS handshake takes about 0.3 MB (measured on 3.11).
"""
_LOG = structlog.get_logger(part="peer-api")
_quiet = logging.getLogger("meshd.peer.http")  # others' malformed requests are answered, and not logged


SURFACE = Surface(
    part="peer-api",
    see="see that both nodes run a meshd of about the same age",
    headers={"Server": "meshd"},
    hides="member",
    between_nodes=True,
    fault=MeshError(
        Code.INTERNAL,
        "cannot answer",
        "something broke on that node",
        "see the journal of meshd on that node: journalctl -u meshd",
    ),
    failed="a peer was not answered",
)
"""The caller is a meshd, or a Prometheus. A stranger does not learn which paths there are."""


class _Connection(web.RequestHandler):
    """Answers malformed HTTP with a problem document that reveals nothing of this program."""

    def __init__(self, manager: Connections, **options: Any) -> None:
        super().__init__(manager, **options)
        self._tasks = manager.tasks

    async def start(self) -> None:
        """Serve the connection. Registers its task, as a lost connection may still process what it has received."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- coroutines run in tasks
        self._tasks.add(task)
        try:
            await super().start()
        finally:
            self._tasks.discard(task)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        error = MeshError(
            Code.BAD_REQUEST, "cannot understand the request", "it is not HTTP as a meshd speaks it"
        )
        if status >= 500:  # the seam in the server left something through
            _LOG.error("a peer was not answered", exc_info=exc)
            error = SURFACE.fault
        answer = problem.answer(error, SURFACE)
        answer.force_close()
        return answer


class Connections(web.Server):
    """The HTTP server of one listener's connections."""

    def __init__(self, handler: Any) -> None:
        super().__init__(
            handler,
            logger=_quiet,
            access_log=None,
            lingering_time=2.0,
            auto_decompress=False,
            **HEAD_LIMITS,
        )
        self.tasks: set[asyncio.Task[Any]] = set()

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Let requests under way finish for `timeout` seconds; nothing runs afterwards."""
        await super().shutdown(timeout)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def certificate_of(transport: asyncio.BaseTransport | None) -> bytes | None:
    """The DER of the certificate that the peer has proved to own; None for a stranger."""
    shown = transport.get_extra_info("ssl_object") if transport is not None else None
    der = shown.getpeercert(binary_form=True) if shown is not None else None
    return der if isinstance(der, bytes) else None


def address_of(transport: asyncio.BaseTransport | None) -> str:
    """The peer's IP address; "" where it has just disconnected."""
    name = transport.get_extra_info("peername") if transport is not None else None
    return str(name[0]) if name else ""


async def bind(address: str, port: int) -> socket.socket:
    """Bind a socket to exactly that address and port, for one listener only.

    Raises MeshError NO_OVERLAY (no interface has the address), BUSY (with the port's holder), BAD_CONFIG.
    """
    ip = ipaddress.ip_address(address)
    if ip.is_unspecified:
        raise MeshError(
            Code.NO_OVERLAY,
            "cannot listen for the other nodes",
            f"{address} is every address",
            "meshctl status",
        )
    sock = socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # On Linux it ignores connections in TIME_WAIT, and still refuses a second listener. SO_REUSEPORT would not.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(128)
    except OSError as exc:
        sock.close()
        raise await _explain(address, port, exc) from exc
    return sock


async def _explain(address: str, port: int, exc: OSError) -> MeshError:
    title = f"cannot listen on {address} port {port} for the other nodes"
    if exc.errno == errno.EADDRINUSE:
        who = await asyncio.to_thread(_who_listens, address, port)
        return MeshError(
            Code.BUSY,
            title,
            f"{who} has that port",
            f"stop it, or choose another port: [ports] peer in meshd.toml (see who: ss -ltnp sport = :{port})",
        )
    if exc.errno == errno.EADDRNOTAVAIL:
        return MeshError(Code.NO_OVERLAY, title, "this machine does not have that address now", "ip addr")
    if exc.errno in (errno.EACCES, errno.EPERM):
        return MeshError(
            Code.BAD_CONFIG, title, "this user may not take that port", "set [ports] peer to one above 1023"
        )
    return MeshError(Code.NO_OVERLAY, title, exc.strerror or str(exc), "meshctl status")


def _who_listens(address: str, port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            local = connection.laddr
            if connection.status != psutil.CONN_LISTEN or not local or local.port != port:
                continue
            if local.ip in (address, "0.0.0.0", "::") and connection.pid is not None:  # noqa: S104 -- compares
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        pass  # the kernel may refuse it to this user
    return "another program"
