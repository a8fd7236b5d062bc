"""Performs the actions of decide(), one method an action. Each may take long and may fail."""

from __future__ import annotations

import asyncio
import time

import structlog

from meshd.errors import MeshError, one_line
from meshd.mesh.engine_settings import fingerprint
from meshd.reconciler.decide import Action, Fail, Link, Listen, Recover, Start, Stop
from meshd.reconciler.deps import ReconcilerDeps

_LISTEN_AGAIN_S = 5.0
_UPLOADS_S = 5.0
_LOG = structlog.get_logger(part="reconciler")


class Actions:
    """Performs actions, and remembers what the next snapshot must know of them.

    linked: multiaddrs of the peerings that kubo got since it started. recovered_for: pids of kubo and the cluster at
    the last recovery. listen_retry_at: monotonic seconds.
    """

    def __init__(self, deps: ReconcilerDeps) -> None:
        self._deps = deps
        self.linked: frozenset[str] = frozenset()
        self.recovered_for: tuple[int | None, int | None] = (None, None)
        self.listen_retry_at = 0.0
        self._linked_pid: int | None = None

    def kubo_runs_as(self, pid: int | None) -> None:
        """Note kubo's pid. A new process has no peerings: kubo forgets them when it ends."""
        if pid != self._linked_pid:
            self.linked, self._linked_pid = frozenset(), pid

    async def perform(self, action: Action) -> None:
        """Perform one action. Raises nothing but CancelledError."""
        try:
            await self._do(action)
        except MeshError as exc:
            _LOG.warning("an action failed", action=type(action).__name__, error=str(exc))
            await asyncio.sleep(1.0)  # it stays under way meanwhile, so the next try is a second away
        except Exception:  # noqa: BLE001 - a bug must neither end the node nor repeat without a pause
            _LOG.exception("an action failed", action=type(action).__name__)
            await asyncio.sleep(1.0)

    async def _do(self, action: Action) -> None:
        services = self._deps.engine_room.services
        match action:
            case Start(service):
                await self._start(service)
            case Stop(service, why, grace):
                if service == "kubo":
                    await self._end_uploads()
                await services[service].stop(why, grace=grace)
            case Fail(service, why):
                await services[service].fail(why)
            case Listen(address):
                await self._listen(address)
            case Link(links):
                await self._link(links)
            case Recover():
                generation = (services["kubo"].state.pid, services["cluster"].state.pid)
                await self._recover()
                self.recovered_for = generation

    async def _start(self, name: str) -> None:
        deps, address = self._deps, self._deps.overlay.state.address
        if address is None:
            return
        engines, settings = deps.engine_room.engines, deps.mesh.settings
        if name == "kubo":
            place = engines.kubo.place = settings.kubo_endpoint(address)
            engines.kubo.swarm_key = await asyncio.to_thread(deps.mesh.secret_store.swarm_key)
            await deps.engine_room.services[name].start(fingerprint(place))
        else:
            in_memory = await asyncio.to_thread(deps.mesh.secret_store.in_memory)
            engines.cluster.in_memory = deps.config.private_sockets if in_memory else None
            engines.cluster.place = settings.cluster_settings(address)
            await deps.engine_room.services[name].start(fingerprint(engines.cluster.place))

    async def _end_uploads(self) -> None:
        """Cut off the uploads, as kubo takes 30 s to stop while one is open (measured). Never hinders the stop."""
        try:
            async with asyncio.timeout(_UPLOADS_S):
                await self._deps.pins.uploads.abort_all()
        except Exception as exc:  # noqa: BLE001 - see above
            _LOG.error("cannot end open uploads", error=one_line(exc), exc_info=exc)

    async def _listen(self, address: str | None) -> None:
        server, readiness = self._deps.peer_server, self._deps.readiness
        if address is None:
            await server.stop()
            return
        try:
            await server.start(address, self._deps.config.ports.peer)
            readiness.listen_error = None
        except MeshError as exc:
            readiness.listen_error = exc
            self.listen_retry_at = time.monotonic() + _LISTEN_AGAIN_S
            _LOG.error("cannot serve the peer API", error=str(exc))

    async def _link(self, links: frozenset[str]) -> None:
        """Set kubo's peerings. Without one a connection is one-shot: after kill -9 of a kubo the peers stay apart."""
        for gone in self.linked - links:
            await self._deps.engine_room.kubo.remove_peering(gone.rpartition("/p2p/")[2])
        for new in links - self.linked:
            await self._deps.engine_room.kubo.keep_connected(new)
        self.linked = links

    async def _recover(self) -> None:
        self._deps.mesh.heartbeats.poke()  # the others may place copies here from now on
        await self._deps.engine_room.cluster.recover()
        await self._deps.pins.sweeper.sweep()
