"""The loopback port for monitoring: the only one off the overlay, read-only, and it can be turned off."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping

from aiohttp import web

from meshd.component import Component, Stop, StopPhase
from meshd.control.server import Handler
from meshd.control.status import StatusApi
from meshd.errors import Code, MeshError
from meshd.serving import listener
from meshd.serving.limiter import Limit, Origin
from meshd.supervise import sockets

_ANYBODY = Origin("local", "anybody")  # the kernel does not say who is at the other end of a TCP connection
CONNECTIONS_MOST = 32


class MetricsServer:
    """The loopback port. A web page in somebody's browser must not read it: Host is checked and Origin refused."""

    def __init__(
        self,
        listen: str,
        handlers: Mapping[str, Handler],
        *,
        most: int = CONNECTIONS_MOST,
        head_s: float = listener.HEAD_S,
    ) -> None:
        """most: connections at one time."""
        host, _, port = listen.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._listener = listener.Listener(
            {_ANYBODY.kind: Limit(most, most)},
            lambda _: _ANYBODY,
            head_s=head_s,
        )
        app = web.Application(middlewares=[self._only_local])
        for path, handler in handlers.items():
            app.router.add_get(path, handler)
        self._runner = web.AppRunner(app, access_log=None, **listener.HEAD_LIMITS)
        self.listening: tuple[str, int] | None = None

    async def start(self) -> None:
        """Listen. Raises MeshError BUSY."""
        try:
            await self._listener.serve(self._runner, self._bound)
        except OSError as exc:
            await self._runner.cleanup()
            self.listening = None
            raise MeshError(
                Code.BUSY,
                f"cannot serve metrics on {self._host}:{self._port}",
                sockets.holder(self._host, self._port) or exc.strerror or str(exc),
                'choose another port in [metrics] listen of the configuration, or "" to turn it off',
            ) from exc

    async def stop(self) -> None:
        await self._listener.stop()
        await self._runner.cleanup()

    def _bound(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            # Connections in TIME_WAIT do not matter.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self._host, self._port))
        except BaseException:
            sock.close()
            raise
        self.listening = (self._host, int(sock.getsockname()[1]))
        return sock

    @web.middleware
    async def _only_local(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        name = request.host.rpartition(":")[0].strip("[]") or request.host
        if "Origin" in request.headers or not _is_loopback(name):
            return web.Response(status=403, text="cannot answer web pages or other hosts\n")
        try:
            return await handler(request)
        except MeshError as exc:
            return web.Response(status=exc.status, text=f"{exc}\n")


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def component(listen: str, status: StatusApi) -> Component:
    """What the port says of itself. listen: as in the configuration; "" for none."""
    if not listen:
        return Component(name="metrics")
    handlers = {"/metrics": status.metrics, "/healthz": status.healthz, "/readyz": status.readyz}
    server = MetricsServer(listen, handlers)
    return Component(
        name="metrics",
        start=(server.start,),
        stops=(Stop("the metrics port", StopPhase.LISTENERS, server.stop),),
    )
