"""/metrics, /healthz and /readyz on a loopback port: the only port off the overlay, read-only, and it can be turned off."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterator, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from meshd import wire
from meshd.control.server import Handler, Route
from meshd.errors import Code, MeshError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class StatusCollector(Collector):
    """Metrics from one status document: what a person sees and what is scraped cannot differ."""

    def __init__(self, status: wire.Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        s = self._status
        yield InfoMetricFamily("meshd", "This node", value={"version": s.node.version, "node": s.node.name})
        yield _gauge("meshd_ready", "Whether this node serves", float(s.ready))
        yield _gauge(
            "meshd_overlay_up",
            "Whether the overlay address can be used",
            float(s.overlay.address is not None),
        )
        up = GaugeMetricFamily(
            "meshd_service_up", "Whether a service is ready and answers", labels=["service"]
        )
        restarts = GaugeMetricFamily(
            "meshd_service_restarts", "Failures since meshd started", labels=["service"]
        )
        for service in s.services:
            up.add_metric([service.name], float(service.phase == "ready" and service.healthy))
            restarts.add_metric([service.name], service.restarts)
        yield up
        yield restarts
        conditions = GaugeMetricFamily(
            "meshd_condition", "Conditions that hold", labels=["code", "severity", "subject"]
        )
        for c in s.conditions:
            conditions.add_metric([c.code, c.severity, c.subject], 1.0)
        yield conditions
        peers = GaugeMetricFamily("meshd_peer_reachable", "Whether a peer answers", labels=["peer"])
        for peer in s.peers:
            if not peer.this_node:
                peers.add_metric([peer.name], float(peer.reachable))
        yield peers
        yield _gauge("meshd_disk_free_bytes", "Free bytes on the disk of the content", s.storage.free)
        yield _gauge("meshd_content_bytes", "Bytes in kubo's repository", s.storage.content)
        if s.pins is not None:
            yield _gauge("meshd_entries", "Entries in the pinset", s.pins.entries)
            yield _gauge("meshd_trash_entries", "Removed entries that can be restored", s.pins.trash)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def render(status: wire.Status) -> bytes:
    """The Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(status))
    return generate_latest(registry)


class MetricsApi:
    """Serves /metrics on the control socket too."""

    def __init__(self, document: Callable[[], Awaitable[wire.Status]]) -> None:
        self._document = document

    def routes(self) -> list[Route]:
        return [Route("GET", "/metrics", "read", self.metrics)]

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=render(await self._document()), headers={"Content-Type": CONTENT_TYPE})


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
                exc.strerror or str(exc),
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
