"""/v1/status, /v1/events, /v1/logs, /healthz, /readyz: what is going on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import structlog

from meshd import __version__, wire
from meshd.config import Config
from meshd.errors import Code, MeshError
from meshd.health.board import Board
from meshd.health.notices import Notices
from meshd.health.readiness import Readiness
from meshd.http.request import Request
from meshd.http.route import Events, Text
from meshd.kubo.rpc import Kubo
from meshd.mesh.membership import Membership
from meshd.mesh.secret_store import SecretStore
from meshd.mesh.store import MeshStore
from meshd.model import Condition, PeerState
from meshd.overlay.monitor import Overlay
from meshd.pins.index import CatalogueIndex
from meshd.pins.wiring import Pins
from meshd.supervise.services import Services
from meshd.wire import Emit

Happened = Literal["condition-raised", "condition-cleared"]
LINES, LINES_MOST = 100, 500  # of a log
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTS_S = 60.0  # highest age of the counts of entries
_ENGINE_S = 2.0  # time-out of engines: a frozen one must not delay the status

_LOG = structlog.get_logger(part="control")
_STARTED = time.monotonic()  # of the process: a node ends with its membership, meshd goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusDeps:
    """The dependencies of the status. versions: engine -> version, as far as known."""

    config: Config
    overlay: Overlay
    services: Services
    kubo: Kubo
    versions: Callable[[], dict[str, str]]
    store: MeshStore
    secret_store: SecretStore
    membership: Membership
    peer_states: Callable[[], tuple[PeerState, ...]]
    pins: Pins
    readiness: Readiness
    board: Board
    notices: Notices


class StatusApi:
    """The handlers for status, events, logs and probes."""

    def __init__(self, deps: StatusDeps) -> None:
        self._config = deps.config
        self._overlay = deps.overlay
        self._services = deps.services
        self._kubo = deps.kubo
        self._versions = deps.versions
        self._store = deps.store
        self._secret_store = deps.secret_store
        self._membership = deps.membership
        self._peer_states = deps.peer_states
        self._pins = deps.pins
        self._storage = deps.pins.storage
        self._journal = deps.pins.journal
        self._readiness = deps.readiness
        self._board = deps.board
        self._notices = deps.notices

    async def healthz(self, request: Request) -> Text:
        """The loop turns."""
        return Text("alive\n")

    async def readyz(self, request: Request) -> Text:
        """This node serves."""
        if self._services.is_ready():
            return Text("ready\n")
        return Text(f"not ready: {self._readiness.why_not()}\n", status=503)

    async def metrics(self, request: Request) -> Text:
        """The Prometheus text format."""
        from meshd.exposition import render  # only where somebody scrapes: a megabyte less elsewhere

        text = render(await self.document(), self._pins.pinner.durations)
        return Text(text, content_type=METRICS_TYPE)

    async def status(self, request: Request) -> wire.Status:
        """The document. With glance=1 a program looks, so the news in it stays for a person."""
        document = await self.document()
        if request.query.flag("glance"):
            return document
        shown = [c.subject for c in document.conditions if c.code == "member-joined"]
        if shown:
            try:
                await asyncio.to_thread(self._notices.mark_read, shown)
            except OSError as exc:  # a full disk: it is a condition of its own, and news stays news
                _LOG.warning("cannot write down what was read", error=str(exc))
        return document

    async def document(self) -> wire.Status:
        """The whole status, each part as it was last seen."""
        overlay, mesh = self._overlay.state, self._membership.mesh()
        return wire.Status(
            node=wire.Node(
                name=self._store.me().name if mesh else self._config.node.name,
                fingerprint=self._store.fingerprint,
                version=__version__,
                site=self._config.node.site,
                uptime_s=time.monotonic() - _STARTED,
                state=str(self._config.state),
            ),
            mesh=mesh,
            overlay=wire.OverlayView(
                kind=self._overlay.kind,
                address=overlay.address,
                interface=overlay.interface,
                why=overlay.why,
                network=overlay.network,
                network_status=overlay.network_status,
                zerotier=overlay.node,
            ),
            services=self._service_rows(),
            peers=await self.peers(),
            conditions=[_condition(c) for c in self._board.conditions],
            storage=await self._room(),
            pins=await self._pin_counts(),
            secrets=await self._secrets_at_rest() if mesh else None,
            ready=self._services.is_ready(),
        )

    async def _room(self) -> wire.Storage | None:
        try:
            room = await asyncio.to_thread(self._storage.room)
        except MeshError:
            return None  # a condition of its own says why
        return wire.Storage(
            total=room.total,
            free=room.free,
            reserve=room.reserve,
            offer=self._storage.offer,
            content=await self._content_size(),
            accepts=self._storage.accepts(),
        )

    async def _secrets_at_rest(self) -> wire.SecretsAtRest | None:
        try:
            return await asyncio.to_thread(self._secret_store.at_rest)
        except OSError:
            return None  # a disk that cannot be read is a condition of its own

    async def _content_size(self) -> int:
        try:
            async with asyncio.timeout(_ENGINE_S):
                return (await self._kubo.repo_stat()).size
        except (MeshError, TimeoutError):
            return 0  # kubo is down or frozen, which the services say

    async def _pin_counts(self) -> wire.PinCounts | None:
        if not self._services.is_ready():
            return None
        try:
            async with asyncio.timeout(_ENGINE_S):
                await self._pins.pinset.refresh()
        except (MeshError, TimeoutError):
            if not self._pins.pinset.was_read(
                _COUNTS_S
            ):  # a large list takes longer, and is still being read
                return None
        me = self._store.me().cluster_id
        try:
            pins = await self._pins.pinset.query(partial(CatalogueIndex.sums, cluster_id=me))
        except MeshError:
            return None
        trash = self._journal.all()
        return wire.PinCounts(
            entries=pins.entries,
            size=pins.size,
            here=pins.here,
            short=self._pins.rebalancer.short,
            trash=len(trash),
            trash_size=sum(r.size for r in trash),
        )

    def _service_rows(self) -> list[wire.Service]:
        now, versions = time.monotonic(), self._versions()
        return [
            wire.Service(
                name=name,
                phase=s.state.phase.value,
                healthy=s.state.healthy,
                pid=s.state.pid,
                since_s=now - s.state.since,
                restarts=s.state.restarts,
                version=versions.get(name, ""),
                last_exit=s.state.last_exit,
            )
            for name, s in self._services.items()
        ]

    async def peers(self) -> list[wire.Peer]:
        """Every member, this node among them."""
        ways = await self._overlay.ways()
        states = {p.fingerprint: p for p in self._peer_states()}
        result = []
        for m in self._store.members():
            this = m.fingerprint == self._store.fingerprint
            state = states.get(m.fingerprint) or PeerState(m.fingerprint, m.name, m.address)
            way = ways.get(m.zerotier)
            result.append(
                wire.Peer(
                    name=self._store.name_of(m.fingerprint),
                    fingerprint=m.fingerprint,
                    address=(self._overlay.state.address or "") if this else state.address,
                    site=m.site,
                    this_node=this,
                    reachable=this or state.reachable,
                    last_seen=time.time() if this else state.last_seen,
                    rtt_s=state.rtt_s,
                    ready=self._services.is_ready() if this else state.ready,
                    free=self._storage.free() if this else state.free_bytes,
                    accepts=self._storage.accepts() if this else state.accepts,
                    version=__version__ if this else state.version,
                    problem=state.problem,
                    admitted_by=self._store.name_of(m.admitted_by),
                    admitted=m.admitted,
                    path="" if way is None or this else "direct" if way.direct else "relayed",
                    latency_ms=way.latency if way is not None and way.latency >= 0 else None,
                    zerotier=m.zerotier,
                    leaving=bool(m.leaving_since),
                )
            )
        return result

    async def events(self, request: Request) -> Events:
        """Conditions as they come and go, those that hold now first. Never ends by itself."""
        return Events(self._tell_conditions)

    async def _tell_conditions(self, emit: Emit) -> None:
        queue: asyncio.Queue[wire.Happening] = asyncio.Queue(maxsize=1000)

        def listener(what: str, condition: Condition) -> None:
            if not queue.full():
                happened: Happened = "condition-raised" if what == "raised" else "condition-cleared"
                queue.put_nowait(_happening(happened, condition, time.time()))

        self._board.listeners.append(listener)
        try:
            holding = list(self._board.conditions)
            for condition in holding:
                await emit(_happening("condition-raised", condition, condition.since))
            if not holding:
                await emit(wire.StepEvent(message="nothing is wrong; waiting for what comes"))
            while True:
                await emit(await queue.get())
        finally:
            self._board.listeners.remove(listener)

    async def logs(self, request: Request) -> Events:
        """?lines=100 &follow=1: a service's own output"""
        name = request.params["service"]
        service = self._services.get(name)
        if service is None:
            known = ", ".join(self._services)
            raise MeshError(
                Code.NOT_FOUND,
                f"cannot find a service {name[:40]!a}",
                f"there are {known}",
                "meshctl logs kubo",
            )
        wanted = request.query.number("lines")
        count = LINES if wanted is None else min(wanted, LINES_MOST)
        follow = request.query.flag("follow")
        queue: asyncio.Queue[tuple[float, str]] = asyncio.Queue(maxsize=1000)

        def listener(when: float, text: str) -> None:
            if not queue.full():
                queue.put_nowait((when, text))

        async def work(emit: Emit) -> None:
            service.line_listeners.append(listener)
            try:
                for when, text in list(service.lines)[-count:] if count else []:
                    await emit(wire.LogEvent(time=when, service=name, text=text))
                while follow:
                    when, text = await queue.get()
                    await emit(wire.LogEvent(time=when, service=name, text=text))
                await emit(wire.LogsDone())
            finally:
                service.line_listeners.remove(listener)

        return Events(work)


def _condition(c: Condition) -> wire.Condition:
    return wire.Condition(
        code=c.code,
        severity=c.severity.value,
        subject=c.subject,
        title=c.title,
        cause=c.cause,
        hint=c.hint,
        since=c.since,
    )


def _happening(what: Happened, c: Condition, when: float) -> wire.Happening:
    return wire.Happening(event=what, time=when, **_condition(c).model_dump(exclude={"since"}))
