"""The loopback port for monitoring: read-only, optional, and the only port off the overlay."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import replace

from aiohttp import web

from meshd.component import Component, Stop, StopPhase
from meshd.errors import Code, MeshError
from meshd.http.adapter import Api
from meshd.http.problem import Surface
from meshd.http.route import Route
from meshd.principal import Access, Principal
from meshd.serving import listener
from meshd.serving.limiter import Limit, Origin
from meshd.supervise import sockets

_ANYBODY = Origin("local", "anybody")  # the kernel does not identify the peer of a TCP connection
CONNECTIONS_MOST = 32
_SERVED = ("/metrics", "/healthz", "/readyz")
_SURFACE = Surface(part="metrics", hides="read")
_CALLER = Principal(label="a program of this machine", how="loopback", role="read")


class MetricsServer:
    """The loopback port. No web page in a browser may read it: it checks Host and refuses Origin."""

    def __init__(
        self,
        listen: str,
        routes: Iterable[Route],
        *,
        most: int = CONNECTIONS_MOST,
        head_s: float = listener.HEAD_S,
    ) -> None:
        """most: connections at a time."""
        host, _, port = listen.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._listener = listener.Listener(
            {_ANYBODY.kind: Limit(most, most)},
            lambda _: _ANYBODY,
            head_s=head_s,
        )
        self._api = Api(_SURFACE, _identify, _and_head(routes))
        self._runner: web.ServerRunner | None = None
        self.listening: tuple[str, int] | None = None

    async def start(self) -> None:
        """Listen. Raises MeshError BUSY."""
        self._runner = self._api.runner()
        try:
            await self._listener.serve(self._runner, self._bound)
        except OSError as exc:
            await self._runner.cleanup()
            self._runner = self.listening = None
            raise MeshError(
                Code.BUSY,
                f"cannot serve metrics on {self._host}:{self._port}",
                sockets.holder(self._host, self._port) or exc.strerror or str(exc),
                'choose another port in [metrics] listen of the configuration, or "" to turn it off',
            ) from exc

    async def stop(self) -> None:
        if self._runner is not None:
            await self._listener.stop()
            await self._runner.cleanup()
            self._runner = None

    def _bound(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            # Connections in TIME_WAIT do not block the port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self._host, self._port))
        except BaseException:
            sock.close()
            raise
        self.listening = (self._host, int(sock.getsockname()[1]))
        return sock


def _and_head(routes: Iterable[Route]) -> list[Route]:
    """The routes, each for HEAD, too, as probes use that."""
    return [replace(route, method=method) for route in routes for method in (route.method, "HEAD")]


async def _identify(request: web.BaseRequest, _: Access) -> Principal:
    name = request.host.rpartition(":")[0].strip("[]") or request.host
    if "Origin" in request.headers or not _is_loopback(name):
        raise MeshError(
            Code.DENIED,
            "cannot answer web pages or other hosts",
            "this port is for programs of this machine",
            "from another machine: set [metrics] peer_token_file in meshd.toml",
        )
    return _CALLER


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def component(listen: str, routes: Iterable[Route]) -> Component:
    """The port as a component. listen: as in the configuration; "" for none.

    routes: the control API's; it serves those for monitoring.
    """
    if not listen:
        return Component(name="metrics")
    server = MetricsServer(listen, [route for route in routes if route.path in _SERVED])
    return Component(
        name="metrics",
        start=(server.start,),
        stops=(Stop("the metrics port", StopPhase.LISTENERS, server.stop),),
    )
