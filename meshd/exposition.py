"""One status document in the Prometheus text format. Imported at the first scrape, as it costs memory."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from meshd import wire
from meshd.pins.metrics import Durations


class StatusCollector(Collector):
    """Metrics from one status document, so that status and scrape cannot differ."""

    def __init__(self, status: wire.Status, durations: Durations) -> None:
        self._status = status
        self._durations = durations

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
        if s.storage is not None:
            yield _gauge("meshd_disk_free_bytes", "Free bytes on the disk of the content", s.storage.free)
            yield _gauge("meshd_content_bytes", "Bytes in kubo's repository", s.storage.content)
        if s.pins is not None:
            yield _gauge("meshd_entries", "Entries in the pinset", s.pins.entries)
            yield _gauge("meshd_entries_here", "Entries that this node keeps", s.pins.here)
            yield _gauge("meshd_entries_short", "Entries with fewer copies than there could be", s.pins.short)
            yield _gauge("meshd_trash_entries", "Removed entries that can be restored", s.pins.trash)
        yield HistogramMetricFamily(
            "meshd_pin_duration_seconds",
            "From an entry's commit to its last copy, for pins that got all their copies",
            buckets=self._durations.cumulative(),
            sum_value=self._durations.total_s,
        )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def render(status: wire.Status, durations: Durations) -> bytes:
    """The Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(status, durations))
    return generate_latest(registry)
