"""The reconcile loop: snapshot -> decide -> act, pass after pass. The rules are in decide.py."""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog

from meshd.errors import START_AGAIN, Code, MeshError
from meshd.model import Phase, Snapshot
from meshd.periodic import TaskGuard
from meshd.reconciler.actions import Actions
from meshd.reconciler.decide import ORDER, Action, decide
from meshd.reconciler.deps import ReconcilerDeps

GIVE_UP_S = 30.0  # as the unit's WatchdogSec=, which is missing without systemd
_AGAIN_S = 1.0  # until the next pass after a failed one
_MIGRATION_STEP_S = 120.0  # each pass extends systemd's time-out by it while kubo migrates its repository
_LOG = structlog.get_logger(part="reconciler")


class Reconciler:
    """Makes the passes: snapshots the facts, and runs each action of decide() in a task of its own."""

    def __init__(self, deps: ReconcilerDeps) -> None:
        self._deps = deps
        self._actions = Actions(deps)
        self._stopping = False
        self._over = False
        self._look_again_s = 0.0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._since: dict[str, float] = {}
        self._changed = asyncio.Event()
        deps.mesh.store.subscribe(self.wake)
        deps.overlay.subscribe(self.wake)
        deps.engine_room.services.subscribe(self.wake)

    # -- facts -----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Make a pass soon, as a fact has changed."""
        self._changed.set()

    def snapshot(self) -> Snapshot:
        """All that decide() may know, at one moment."""
        deps, actions = self._deps, self._actions
        address, listening = deps.overlay.state.address, deps.peer_server.listening
        runs = deps.mesh.store.mesh is not None and address is not None and not deps.mesh.store.forgotten
        actions.kubo_runs_as(deps.engine_room.services["kubo"].state.pid)
        return Snapshot(
            now=time.monotonic(),
            overlay=deps.overlay.state,
            in_mesh=deps.mesh.store.mesh is not None,
            forgotten=deps.mesh.store.forgotten,
            stopping=self._stopping,
            services=deps.engine_room.services.states,
            wanted_settings=deps.mesh.settings.fingerprints(address) if runs and address is not None else {},
            disk_full=self._no_room(),
            links=deps.mesh.settings.links(),
            linked=actions.linked,
            listening=listening[0] if listening else None,
            listen_retry_at=actions.listen_retry_at,
            recovered_for=actions.recovered_for,
            under_way=dict(self._since),
        )

    def _no_room(self) -> bool:
        try:
            return bool(self._deps.pins.storage.full())
        except MeshError:
            return True  # the disk does not even answer

    # -- passes ----------------------------------------------------------------------------------------------------

    async def run(self, guard: TaskGuard) -> None:
        """Make passes until `stop` has stopped everything.

        A pass that raises is repeated. Where none succeeds for GIVE_UP_S (at once while stopping), nothing is decided
        any more: no leak would be stopped, no new address followed. No node may live with that: raises MeshError
        INTERNAL.
        """
        while True:
            self._changed.clear()
            meanwhile = "kubo and the cluster are not started, stopped or followed"
            if not await guard.attempt("reconciler", self._pass, patience_s=0.0, meanwhile=meanwhile):
                self._look_again_s = _AGAIN_S
                if self._stopping or guard.failing_s("reconciler") > GIVE_UP_S:
                    raise self._gives_up(guard)
            elif self._over:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_again_s):
                    await self._changed.wait()

    async def _pass(self) -> None:
        """Make one pass. Raises TimeoutError where a task that must give way to an action does not end."""
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
        self.publish()

    def publish(self) -> None:
        """Report this node's status to the service manager."""
        readiness, manager = self._deps.readiness, self._deps.manager
        why_not = readiness.why_not()
        manager.passed()
        if readiness.migration:
            manager.needs(_MIGRATION_STEP_S)
        manager.status(why_not or "ready")

    def _gives_up(self, guard: TaskGuard) -> MeshError:
        why = next((f.error for f in guard.faults() if f.part == "reconciler"), "")
        return MeshError(
            Code.INTERNAL,
            "cannot go on",
            f"whether kubo and the cluster may run could not be decided any more: {why}",
            START_AGAIN,
        )

    # -- the cluster, which reads its peers' addresses at its start only -----------------------------------------------

    async def redial(self) -> None:
        """Restart the cluster where it does not hear members that are reachable."""
        deps = self._deps
        ids = {m.fingerprint: m.cluster_id for m in deps.mesh.store.peers()}
        there = {ids.get(p.fingerprint) for p in deps.mesh.heartbeats.states() if p.reachable and p.ready}
        peers = {i: where for i, where in deps.mesh.settings.cluster_peers().items() if i in there}
        own = deps.mesh.store.me().cluster_id
        if await deps.engine_room.redialer.look(own, peers, moved=bool(deps.mesh.membership.moved_from)):
            self.wake()

    # -- the end ---------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Have `run` stop the services in order and return."""
        self._stopping = True
        for key in ("peering", "recover"):  # they call what is about to stop, and may wait long for an answer
            if key in self._tasks:
                self._tasks[key].cancel()
        self.wake()

    def abandon(self) -> None:
        """Begin no more actions, and cancel those under way: the engines are about to be killed."""
        for task in self._tasks.values():
            task.cancel()

    async def stop_by_hand(self) -> None:
        """Stop the services in order where no pass can be made any more."""
        self.abandon()
        for name in reversed(ORDER):
            await self._deps.engine_room.services[name].stop("meshd is stopping")

    def _all_stopped(self, snapshot: Snapshot) -> bool:
        still = [s for s in snapshot.services.values() if s.phase is not Phase.STOPPED]
        return not still and snapshot.listening is None and not self._tasks

    # -- actions ---------------------------------------------------------------------------------------------------

    async def _begin(self, action: Action) -> None:
        """Perform an action in a task of its own. Cancel a start that must give way first."""
        running = self._tasks.get(action.key)
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        self._since[action.key] = time.monotonic()
        task = asyncio.create_task(
            self._actions.perform(action), name=f"{type(action).__name__.lower()}-{action.key}"
        )
        self._tasks[action.key] = task

        def done(_: asyncio.Task[None]) -> None:
            if self._tasks.get(action.key) is task:
                del self._tasks[action.key]
                del self._since[action.key]
            self.wake()

        task.add_done_callback(done)
