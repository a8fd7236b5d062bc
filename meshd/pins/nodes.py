"""The candidate nodes: which are reachable, which are starting, and whose free space the cluster knows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable

from meshd import wire
from meshd.mesh.store import MeshStore
from meshd.model import PeerState, Pin
from meshd.pins import placement
from meshd.pins.engine_api import ClusterApi
from meshd.pins.storage import Storage, shown

JUST_STARTED_S = 15.0  # so long a pin waits for a member that has joined or started
_METRICS_FOR_S = 5.0


class Nodes:
    """The members as input of placement: from roster, heartbeats, this node's disk and the cluster's metrics."""

    def __init__(
        self,
        cluster: ClusterApi,
        store: MeshStore,
        storage: Storage,
        peer_states: Callable[[], Iterable[PeerState]],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._storage = storage
        self._peer_states = peer_states
        self._with_room: set[str] = set()
        self._with_room_at = 0.0

    # -- which nodes there are -------------------------------------------------------------------------------------

    def candidates(self) -> list[placement.Candidate]:
        """Every member as a candidate, as of now."""
        states = self._states()
        return [self._candidate(m, states.get(m.fingerprint)) for m in self._store.members()]

    def _candidate(self, member: wire.Member, state: PeerState | None) -> placement.Candidate:
        fingerprint, cluster_id, site = member.fingerprint, member.cluster_id, member.site
        leaving = bool(member.leaving_since)
        if fingerprint == self._store.fingerprint:
            room = self._storage.room().above_reserve  # the offer limits others, not this node
            accepts = not self._storage.closed()
            return placement.Candidate(fingerprint, cluster_id, site, room, accepts, leaving=leaving)
        if state is None:
            return placement.Candidate(fingerprint, cluster_id, site, reachable=False, leaving=leaving)
        away_s = 0.0 if state.reachable else time.monotonic() - state.away_since
        return placement.Candidate(
            fingerprint, cluster_id, site, state.free_bytes, state.accepts, state.reachable, away_s, leaving
        )

    def holders(self, pin: Pin) -> list[wire.Member]:
        """The members that are allocated to a pin."""
        return [m for m in self._store.members() if not pin.allocations or m.cluster_id in pin.allocations]

    def goal(self, pin: Pin) -> int:
        """The number of replicas wanted; for `all`, the number of members."""
        return len(self._store.members()) if pin.wanted == "all" else pin.wanted

    def away(self) -> set[str]:
        """Fingerprints of members that were reached before, and are not reachable now."""
        return {p.fingerprint for p in self._peer_states() if not p.reachable and p.last_seen}

    def is_member(self, fingerprint: str) -> bool:
        """Whether it is still a member: it may have left since it was chosen."""
        known = self._store.by_fingerprint(fingerprint)
        return known is not None and not known.forgotten

    def not_chosen(self, pin: Pin) -> list[wire.Copy]:
        """Members that get no replica although more are wanted, each with the reason."""
        result = []
        states = self._states()
        for m in self._store.peers():
            if not pin.allocations or m.cluster_id in pin.allocations:
                continue
            why = self._why_not(pin, states.get(m.fingerprint))
            result.append(wire.Copy(node=self._store.name_of(m.fingerprint), state="missing", detail=why))
        return result

    def _why_not(self, pin: Pin, state: PeerState | None) -> str:
        if state is None or not state.reachable or state.problem:
            return f"it is away ({state.problem})" if state is not None and state.problem else "it is away"
        if not state.ready:
            return "its kubo or cluster does not run"
        if not state.accepts or state.free_bytes < pin.size:
            return f"it has no room ({shown(state.free_bytes)})"
        if len(pin.allocations) < placement.target(pin.wanted, len(self._store.members())):
            return "its cluster has not said how much room it has; it gets a copy as soon as that is known"
        return "it was not needed"

    def _states(self) -> dict[str, PeerState]:
        return {p.fingerprint: p for p in self._peer_states()}

    # -- which are chosen ------------------------------------------------------------------------------------------

    async def choose(self, pin: Pin, emit: wire.Emit) -> tuple[str, ...]:
        """Choose nodes for a new entry whose free space the cluster knows: () for everywhere.

        Waits a little for members that have just joined or started.
        """
        await self._await_starters(pin, emit)
        own, candidates = self._store.fingerprint, self.candidates()
        deadline = time.monotonic() + JUST_STARTED_S
        unknown: set[str] = set()
        first = chosen = placement.initial(pin, candidates, own=own)
        while lacking := await self.await_room(chosen, deadline):
            unknown |= lacking  # the cluster would refuse the whole pin for them
            chosen = placement.initial(pin, candidates, own=own, without=unknown)
        return chosen or first

    async def _await_starters(self, pin: Pin, emit: wire.Emit) -> None:
        if pin.wanted == "all":
            return
        deadline = time.monotonic() + JUST_STARTED_S
        said: list[str] = []
        while time.monotonic() < deadline and (starting := self._starting(pin.wanted)):
            if starting != said:
                said = starting
                message = f"waiting for {', '.join(starting)}, just joined or started"
                await emit(wire.StepEvent(message=message))
            await asyncio.sleep(0.1)

    def _starting(self, wanted: int) -> list[str]:
        """Names of members that are about to be ready, where there are too few nodes without them."""
        states = self._states()
        peers = self._store.peers()
        able = sum((s := states.get(m.fingerprint)) is not None and s.reachable and s.ready for m in peers)
        if 1 + able >= placement.target(wanted, 1 + len(peers)):
            return []
        now = time.time()
        starting = []
        for m in peers:
            s = states.get(m.fingerprint)
            new = now - m.admitted < JUST_STARTED_S
            answers = s is not None and s.reachable
            if (not answers and new) or (s is not None and answers and not s.ready):
                starting.append(self._store.name_of(m.fingerprint))
        return starting

    async def await_room(self, allocations: Collection[str], deadline: float | None = None) -> set[str]:
        """Wait a little until the cluster knows the chosen nodes' free space; the nodes of which it does not.

        Without that metric the cluster would silently take other nodes. A node once seen is not checked again for a
        while. It does not wait for a node that missed its last beat: the metric expires seconds after a node went,
        while it counts as away only later. deadline: monotonic, by default JUST_STARTED_S from now.
        """
        if deadline is None:
            deadline = time.monotonic() + JUST_STARTED_S
        while True:
            fresh = time.monotonic() - self._with_room_at < _METRICS_FOR_S
            if fresh and self._with_room.issuperset(allocations):
                return set()
            self._with_room, self._with_room_at = await self._cluster.with_room(), time.monotonic()
            lacking = set(allocations) - self._with_room
            if not lacking or lacking <= self._missed_a_beat() or time.monotonic() > deadline:
                return lacking
            await asyncio.sleep(0.25)

    def _missed_a_beat(self) -> set[str]:
        """Cluster ids of the members that did not answer the last beat."""
        members = {m.fingerprint: m.cluster_id for m in self._store.members()}
        return {members[p.fingerprint] for p in self._peer_states() if p.problem and p.fingerprint in members}
