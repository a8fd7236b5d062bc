"""Audit: checks from outside that the running programs comply, by the kernel's sockets, kubo's config and its peers.

And, while nothing runs as there is no mesh, that the programs can run here.
"""

from __future__ import annotations

import asyncio
import functools
import time
from pathlib import Path

import structlog

from meshd import files
from meshd.cluster.wiring import Engines
from meshd.errors import MeshError
from meshd.kubo import policy
from meshd.kubo.rpc import Kubo
from meshd.mesh.engine_settings import EngineSettings
from meshd.mesh.store import MeshStore
from meshd.model import Phase
from meshd.overlay.monitor import Overlay
from meshd.periodic import TaskGuard
from meshd.pins.storage import Storage
from meshd.state_files import StateFiles
from meshd.supervise import sockets
from meshd.supervise.service import Service
from meshd.supervise.services import Services

WHILE_STARTING_S = 0.25
JUST_STARTED_S = 5.0
WHILE_RUNNING_S = 20.0  # an audit costs some milliseconds, more on a machine with many connections
_FIRST_LOOKS = 4
_PROBE_EVERY_S = 10.0  # cheap, as what is found is not looked for again
_LOG = structlog.get_logger(part="audit")


class Audit:
    """The periodic audit. drift, strangers, open_files: the last findings; see `AuditFacts`."""

    def __init__(
        self,
        *,
        services: Services,
        settings: EngineSettings,
        overlay: Overlay,
        kubo: Kubo,
        storage: Storage,
        state_files: StateFiles,
        guard: TaskGuard,
    ) -> None:
        """storage: gets the error where the state folder takes no writes."""
        self._services = services
        self._settings = settings
        self._overlay = overlay
        self._kubo = kubo
        self._storage = storage
        self._state_files = state_files
        self._guard = guard
        self.drift: tuple[str, ...] = ()
        self.strangers: tuple[str, ...] = ()
        self.open_files: tuple[str, ...] = ()

    async def run(self) -> None:
        """Audit for as long as the daemon lives. Each part is isolated: one that fails keeps no other from running."""
        attempt, looks = self._guard.attempt, 0
        while True:
            for name, service in self._services.items():
                await attempt(f"audit of {name}'s sockets", functools.partial(self._look_at_sockets, service))
            await attempt("audit of the secrets", self._look_at_files)
            await attempt("audit of the disk", self._look_at_disk)
            kubo = self._services["kubo"].state
            if kubo.phase is not Phase.READY:
                self.drift = self.strangers = ()  # findings about a process that is gone
            elif not kubo.missed:  # the supervisor reports one that does not answer
                await attempt("audit of kubo", self._look_at_kubo)
            starting = any(s.state.phase is Phase.STARTING for s in self._services.values())
            looks = 0 if starting else looks + 1
            # A person who mends a fault wants to see soon that it is gone.
            troubled = self.drift or self.strangers or self.open_files or self._storage.unwritable
            calm = WHILE_RUNNING_S if looks > _FIRST_LOOKS and not troubled else JUST_STARTED_S
            await self._sleep(WHILE_STARTING_S if starting else calm)

    async def _look_at_files(self) -> None:
        self.open_files = tuple(str(p) for p in self._state_files.secrets() if _others_may_read(p))

    async def _look_at_disk(self) -> None:
        self._storage.unwritable = await asyncio.to_thread(why_unwritable, self._state_files.folder)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but only until a service starts."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            await asyncio.sleep(min(left, WHILE_STARTING_S * 4))
            if any(s.state.phase is Phase.STARTING for s in self._services.values()):
                return

    async def _look_at_sockets(self, service: Service) -> None:
        state, address = service.state, self._overlay.state.address
        if state.pid is None or address is None or state.phase not in (Phase.STARTING, Phase.READY):
            return
        name = state.name
        try:
            found = await asyncio.to_thread(sockets.of_process, state.pid)
        except MeshError as exc:
            _LOG.warning("cannot audit", service=name, error=str(exc))
            return
        leaks = [str(s) for s in sockets.leaks(found, address, self._settings.ports[name])]
        if service.state.phase is Phase.READY and service.state.pid == state.pid:
            count = sockets.count_listeners(address, self._settings.ports[name])
            if count > 1:
                leaks.append(
                    f"{count} programs listen on {address}:{self._settings.ports[name]}, and one should"
                )
        if leaks and service.state.pid == state.pid:
            service.report_leak("; ".join(leaks))

    async def _look_at_kubo(self) -> None:
        address = self._overlay.state.address
        if address is None:
            return
        try:
            config, peers = await self._kubo.config(), await self._kubo.swarm_peers()
        except MeshError:
            return  # it ends or hangs; its service state says so
        self.drift = tuple(str(v) for v in policy.audit(config, self._settings.kubo_endpoint(address)))
        known = self._settings.kubo_ids()
        self.strangers = tuple(f"{i} at {where}" for i, where in sorted(peers.items()) if i not in known)


class EngineProbe:
    """Checks that both programs can run here, while this node is in no mesh.

    unusable: why one of them cannot run, as of the last try; None where both can.
    """

    def __init__(self, engines: Engines, store: MeshStore) -> None:
        self._engines = engines
        self._store = store
        self.unusable: MeshError | None = None

    async def run(self) -> None:
        """Look for the programs periodically, for ever, while this node is in no mesh."""
        while True:
            if self._store.mesh is None:
                await self._look()
            await asyncio.sleep(_PROBE_EVERY_S)

    async def _look(self) -> None:
        try:
            await self._engines.find()
        except MeshError as exc:
            self.unusable = exc
        except TimeoutError:
            pass  # a busy machine: the next try asks again
        except OSError as exc:
            self.unusable = files.unusable(exc, "cannot run the engines")
        else:
            self.unusable = None


def why_unwritable(folder: Path) -> str:
    """Why nothing can be written into `folder` now, or "". Makes and removes a small file."""
    probe = folder / ".writable"
    try:
        files.write_atomically(probe, b"")
        probe.unlink(missing_ok=True)
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


def _others_may_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o077)
    except FileNotFoundError:  # not made yet, or removed by `leave`
        return False
