"""The heart: snapshot -> decide -> act, again and again. What is decided stands in reconcile.py."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from meshd.cluster import config as cluster_config
from meshd.cluster.service import ClusterProgram
from meshd.config import Config
from meshd.errors import START_AGAIN, Code, MeshError, one_line
from meshd.kubo import policy
from meshd.kubo.rpc import Kubo
from meshd.kubo.service import KuboProgram
from meshd.mesh.secret_store import SecretStore
from meshd.mesh.secrets import Secrets
from meshd.mesh.store import MeshStore
from meshd.model import OverlayState, Phase, Snapshot
from meshd.overlay.addresses import is_private
from meshd.peer.server import PeerServer
from meshd.reconcile import ORDER, Action, Fail, Link, Listen, Recover, Start, Stop, decide
from meshd.rounds import Rounds
from meshd.supervise.groups import Groups
from meshd.supervise.service import Service
from meshd.wire import Member

GIVE_UP_S = 30.0  # as the unit's WatchdogSec=, which there is not without systemd
_TURN_AGAIN_S = 1.0
_LISTEN_AGAIN_S = 5.0
_UPLOADS_S = 5.0
_LOG = structlog.get_logger(part="turns")


class Turns:
    """Holds the facts that no other part holds, and performs what decide() says, one task an action."""

    def __init__(
        self,
        config: Config,
        store: MeshStore,
        secret_store: SecretStore,
        kubo: Kubo,
        kubo_program: KuboProgram,
        cluster_program: ClusterProgram,
        peer_server: PeerServer,
        abort_uploads: Callable[[], Awaitable[None]],
        recover: Callable[[], Awaitable[None]],
        disk_full: Callable[[], str],
        turned: Callable[[], None] = lambda: None,
        groups: Groups | None = None,
    ) -> None:
        """turned: called after each turn. groups: the control groups for the services."""
        self._config = config
        self._store = store
        self._secret_store = secret_store
        self._kubo = kubo
        self._kubo_program = kubo_program
        self._cluster_program = cluster_program
        self._peer_server = peer_server
        self._abort_uploads = abort_uploads
        self._recover = recover
        self._disk_full = disk_full
        self._turned = turned
        self.services = {
            program.name: Service(program, self.wake, groups.of(program.name) if groups is not None else None)
            for program in (kubo_program, cluster_program)
        }
        self.overlay = OverlayState()
        self.address_since = time.monotonic()
        self.listen_error: MeshError | None = None
        self._stopping = False
        self._over = False
        self._look_again_s = 0.0
        self._linked: frozenset[str] = frozenset()
        self._linked_pid: int | None = None
        self._listen_retry_at = 0.0
        self._recovered_for: tuple[int | None, int | None] = (None, None)
        self._secrets: Secrets | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._since: dict[str, float] = {}
        self._changed = asyncio.Event()
        store.subscribe(self.wake)

    # -- facts -----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """A fact has changed: take a turn soon."""
        self._changed.set()

    def set_overlay(self, state: OverlayState) -> None:
        if state != self.overlay:
            if state.address != self.overlay.address:
                self.address_since = time.monotonic()
                _LOG.info("overlay", address=state.address, interface=state.interface, why=state.why)
            self.overlay = state
            self.wake()

    @property
    def ready(self) -> bool:
        """This node serves: both services answer."""
        return all(s.state.phase is Phase.READY and s.state.healthy for s in self.services.values())

    @property
    def migration(self) -> str:
        """What kubo does, as a sentence about it, before it is ready, where that may take long; else ""."""
        versions = self._kubo_program.migrating
        starting = self.services["kubo"].state.phase is Phase.STARTING
        return (
            f"it brings its repository from version {versions}, which may take long"
            if versions and starting
            else ""
        )

    def kubo_place(self, address: str) -> policy.Place:
        return policy.Place(address, self._config.ports.swarm, self._config.private_sockets / "kubo.sock")

    def cluster_place(self, address: str) -> cluster_config.Place:
        """Where and with whom the cluster runs. Blocks on the first call (reads the secrets)."""
        if self._secrets is None:
            self._secrets = self._secret_store.load()
        mesh = self._store.mesh
        assert mesh is not None  # noqa: S101 - only asked inside a mesh
        others = sorted(self._store.peers(), key=lambda m: m.cluster_id)
        private: Path = self._config.private_sockets
        return cluster_config.Place(
            address=address,
            port=self._config.ports.cluster,
            rest_socket=private / "cluster.sock",
            gate_socket=private / "gate.sock",
            name=self._store.me().name,
            mesh_id=mesh.id,
            secret=self._secrets.cluster_secret,
            trusted=tuple(m.cluster_id for m in others),
            peers=tuple(where for _, where in sorted(self.cluster_peers().items())),
            redials=self._cluster_program.redials,
        )

    def cluster_peers(self) -> dict[str, str]:
        """Cluster id -> multiaddr with /p2p/ of the others, as the roster has them now."""
        return {
            m.cluster_id: f"{policy.multiaddr(m.address, m.cluster_port)}/p2p/{m.cluster_id}"
            for m in self._reached()
        }

    def snapshot(self) -> Snapshot:
        """All that decide() may know, at this moment."""
        mesh, address = self._store.mesh, self.overlay.address
        wanted: dict[str, str] = {}
        if mesh is not None and address is not None and not self._store.forgotten:
            wanted = {
                "kubo": _fingerprint(self.kubo_place(address)),
                "cluster": _fingerprint(self.cluster_place(address)),
            }
        kubo_pid = self.services["kubo"].state.pid
        if kubo_pid != self._linked_pid:
            self._linked, self._linked_pid = frozenset(), kubo_pid  # kubo forgets its peerings when it ends
        return Snapshot(
            now=time.monotonic(),
            overlay=self.overlay,
            in_mesh=mesh is not None,
            forgotten=self._store.forgotten,
            stopping=self._stopping,
            services={name: service.state for name, service in self.services.items()},
            wanted_settings=wanted,
            disk_full=self._no_room(),
            links=frozenset(
                f"{policy.multiaddr(m.address, m.swarm_port)}/p2p/{m.kubo_id}" for m in self._reached()
            ),
            linked=self._linked,
            listening=self._peer_server.listening[0] if self._peer_server.listening else None,
            listen_retry_at=self._listen_retry_at,
            recovered_for=self._recovered_for,
            under_way=dict(self._since),
        )

    def _reached(self) -> list[Member]:
        """The others whose address is known, and private: what the engines may be told to dial."""
        return [m for m in self._store.peers() if m.address and is_private(m.address)]

    def _no_room(self) -> bool:
        try:
            return bool(self._disk_full())
        except MeshError:
            return True  # it cannot even be asked

    async def all_stopped(self) -> None:
        """Return when no service runs."""
        for service in self.services.values():
            await service.wait_stopped()

    # -- turns -----------------------------------------------------------------------------------------------------

    async def run(self, rounds: Rounds) -> None:
        """Until `stop` has stopped everything.

        A turn that raises is taken again. Where none succeeds for GIVE_UP_S (at once while it stops), nobody decides any
        more: a leak would not be stopped, an address not followed. So it is no fault to live with: raises MeshError INTERNAL.
        """
        while True:
            self._changed.clear()
            if not await rounds.attempt("turns", self._turn, patience_s=0.0):
                self._look_again_s = _TURN_AGAIN_S
                if self._stopping or rounds.failing_s("turns") > GIVE_UP_S:
                    raise self._no_turns(rounds)
            elif self._over:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_again_s):
                    await self._changed.wait()

    async def _turn(self) -> None:
        """Raises TimeoutError where what must give way to an action does not."""
        async with asyncio.timeout(GIVE_UP_S):
            await self._decide_and_begin()

    async def _decide_and_begin(self) -> None:
        snapshot = self.snapshot()
        self._over = snapshot.stopping and self._all_stopped(snapshot)
        if self._over:
            return
        decision = decide(snapshot)
        self._look_again_s = decision.look_again_s
        for action in decision.actions:
            await self._begin(action)
        self._turned()

    def _no_turns(self, rounds: Rounds) -> MeshError:
        why = next((f.error for f in rounds.faults() if f.part == "turns"), "")
        return MeshError(
            Code.INTERNAL,
            "cannot go on",
            f"whether kubo and the cluster may run could not be decided any more: {why}",
            START_AGAIN,
        )

    def stop(self) -> None:
        """Have `run` stop the services in their order and return."""
        self._stopping = True
        for key in ("peering", "recover"):  # they ask what is being stopped, and may wait long for its answer
            if key in self._tasks:
                self._tasks[key].cancel()
        self.wake()

    def abandon(self) -> None:
        """Begin nothing more, and end what is under way: what runs is about to be killed."""
        for task in self._tasks.values():
            task.cancel()

    async def stop_by_hand(self) -> None:
        """Stop the services in their order where no turn can be taken any more."""
        self.abandon()
        for name in reversed(ORDER):
            await self.services[name].stop("meshd is stopping")

    def _all_stopped(self, snapshot: Snapshot) -> bool:
        still = [s for s in snapshot.services.values() if s.phase is not Phase.STOPPED]
        return not still and snapshot.listening is None and not self._tasks

    async def _begin(self, action: Action) -> None:
        """Perform it in a task of its own. A start that must give way is ended first."""
        running = self._tasks.get(action.key)
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        self._since[action.key] = time.monotonic()
        task = asyncio.create_task(
            self._perform(action), name=f"{type(action).__name__.lower()}-{action.key}"
        )
        self._tasks[action.key] = task

        def done(_: asyncio.Task[None]) -> None:
            if self._tasks.get(action.key) is task:
                del self._tasks[action.key]
                del self._since[action.key]
            self.wake()

        task.add_done_callback(done)

    async def _perform(self, action: Action) -> None:
        try:
            match action:
                case Start(service):
                    await self._start(service)
                case Stop(service, why, grace):
                    if service == "kubo":
                        await self._end_uploads()
                    await self.services[service].stop(why, grace=grace)
                case Fail(service, why):
                    await self.services[service].fail(why)
                case Listen(address):
                    await self._listen(address)
                case Link(links):
                    await self._link(links)
                case Recover():
                    generation = (self.services["kubo"].state.pid, self.services["cluster"].state.pid)
                    await self._recover()
                    self._recovered_for = generation
        except MeshError as exc:
            _LOG.warning("an action failed", action=type(action).__name__, error=str(exc))
            await asyncio.sleep(1.0)  # a single flight: the next try is a second away
        except Exception:  # noqa: BLE001 - a mistake must not end the node, nor be made again without a pause
            _LOG.exception("an action failed", action=type(action).__name__)
            await asyncio.sleep(1.0)

    async def _end_uploads(self) -> None:
        """With one open kubo takes 30 s to stop (measured). But stop it must, whatever becomes of them."""
        try:
            async with asyncio.timeout(_UPLOADS_S):
                await self._abort_uploads()
        except Exception as exc:  # noqa: BLE001 - see above
            _LOG.error("cannot end open uploads", error=one_line(exc), exc_info=exc)

    async def _start(self, name: str) -> None:
        address = self.overlay.address
        if address is None:
            return
        place = self.kubo_place(address)
        settings = _fingerprint(place)
        if name == "kubo":
            self._kubo_program.place = place
            self._kubo_program.swarm_key = await asyncio.to_thread(self._secret_store.swarm_key)
        else:
            in_memory = await asyncio.to_thread(self._secret_store.in_memory)
            self._cluster_program.in_memory = self._config.private_sockets if in_memory else None
            self._cluster_program.place = self.cluster_place(address)
            settings = _fingerprint(self._cluster_program.place)
        await self.services[name].start(settings)

    async def _listen(self, address: str | None) -> None:
        if address is None:
            await self._peer_server.stop()
            return
        try:
            await self._peer_server.start(address, self._config.ports.peer)
            self.listen_error = None
        except MeshError as exc:
            self.listen_error = exc
            self._listen_retry_at = time.monotonic() + _LISTEN_AGAIN_S
            _LOG.error("cannot serve the peer API", error=str(exc))

    async def _link(self, links: frozenset[str]) -> None:
        """Tell kubo whom to hold on to. Its links are one-shot otherwise: after kill -9 of one, others stay apart."""
        for gone in self._linked - links:
            await self._kubo.let_go(gone.rpartition("/p2p/")[2])
        for new in links - self._linked:
            await self._kubo.keep_connected(new)
        self._linked = links


def _fingerprint(place: policy.Place | cluster_config.Place) -> str:
    """Equal where a program need not be started anew. Holds every field but `peers`, the secret among them."""
    fields = [getattr(place, f.name) for f in dataclasses.fields(place) if f.name != "peers"]
    return hashlib.sha256(repr(fields).encode()).hexdigest()
