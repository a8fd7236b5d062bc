"""The loopback port for monitoring: the only one off the overlay, read-only, and it can be turned off."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from aiohttp import web

from meshd.control.server import Handler
from meshd.errors import Code, MeshError
from meshd.supervise import sockets


class MetricsServer:
    """The loopback port. A web page in somebody's browser must not read it: Host is checked and Origin refused."""

    def __init__(self, listen: str, handlers: Mapping[str, Handler]) -> None:
        host, _, port = listen.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        app = web.Application(middlewares=[self._only_local])
        for path, handler in handlers.items():
            app.router.add_get(path, handler)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Listen. Raises MeshError BUSY."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port, reuse_port=False).start()
        except OSError as exc:
            await self._runner.cleanup()
            raise MeshError(
                Code.BUSY,
                f"cannot serve metrics on {self._host}:{self._port}",
                sockets.holder(self._host, self._port) or exc.strerror or str(exc),
                'choose another port in [metrics] listen of the configuration, or "" to turn it off',
            ) from exc

    async def stop(self) -> None:
        await self._runner.cleanup()

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
