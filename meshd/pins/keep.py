"""From an entry that is whole on this node to as many durable copies as were asked for, each one seen."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import structlog

from meshd import wire
from meshd.cluster.rest import Cluster
from meshd.errors import Code, MeshError
from meshd.files import Disk
from meshd.mesh.store import MeshStore
from meshd.model import PeerState, Pin
from meshd.pins import place, timeouts
from meshd.pins.copies import Asker, Copies, Question
from meshd.pins.storage import Storage, shown

_METRICS_FOR_S = 5.0
COMMIT_TIMEOUT = 30.0  # the cluster's batch is 25 ms; a busy disk may take seconds
JUST_STARTED_S = 15.0  # a member that joined or started is given so long before a pin does without it
_LOG = structlog.get_logger(part="keep")


@dataclass(frozen=True, slots=True)
class Kept:
    """The outcome: which nodes hold it, which of the chosen do not and why."""

    pin: Pin
    held: tuple[str, ...]
    missing: tuple[wire.Copy, ...]


class Keeper:
    """Puts entries into the pinset and sees them kept."""

    def __init__(
        self,
        cluster: Cluster,
        store: MeshStore,
        copies: Copies,
        disk: Disk,
        storage: Storage,
        peer_states: Callable[[], Iterable[PeerState]],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._copies = copies
        self._disk = disk
        self._storage = storage
        self._peer_states = peer_states
        self._with_room: set[str] = set()
        self._with_room_at = 0.0

    def candidates(self) -> list[place.Candidate]:
        """Every member with what is known of it now."""
        states = {p.fingerprint: p for p in self._peer_states()}
        now = time.monotonic()
        result = []
        for m in self._store.members():
            leaving = bool(m.leaving_since)
            if m.fingerprint == self._store.fingerprint:
                room = self._storage.room().above_reserve  # the offer limits others, not this node
                result.append(
                    place.Candidate(
                        m.fingerprint,
                        m.cluster_id,
                        m.site,
                        room,
                        accepts=not self._storage.closed(),
                        leaving=leaving,
                    )
                )
            elif (s := states.get(m.fingerprint)) is not None:
                away = 0.0 if s.reachable else now - s.away_since
                result.append(
                    place.Candidate(
                        m.fingerprint,
                        m.cluster_id,
                        m.site,
                        s.free_bytes,
                        s.accepts,
                        s.reachable,
                        away,
                        leaving,
                    )
                )
            else:
                result.append(
                    place.Candidate(m.fingerprint, m.cluster_id, m.site, reachable=False, leaving=leaving)
                )
        return result

    async def choose(self, pin: Pin, emit: wire.Emit) -> tuple[str, ...]:
        """Nodes for a new entry: () for everywhere. Waits a little for members that have only just joined or started."""
        if pin.wanted == "all":
            return ()
        deadline = time.monotonic() + JUST_STARTED_S
        said: list[str] = []
        while time.monotonic() < deadline:
            starting = self._starting(pin.wanted)
            if not starting:
                break
            if starting != said:
                said = starting
                await emit(
                    wire.StepEvent(message=f"waiting for {', '.join(starting)}, just joined or started")
                )
            await asyncio.sleep(0.1)
        nodes = [c for c in self.candidates() if not c.leaving]
        count = place.target(pin.wanted, len(nodes))
        chosen = place.choose(count, pin.cid, pin.size, nodes, first=self._store.fingerprint)
        lacking = await self._await_metrics(chosen)
        if not lacking:
            return chosen
        nodes = [
            n for n in nodes if n.cluster_id not in lacking
        ]  # the cluster would refuse the whole pin for them
        return place.choose(count, pin.cid, pin.size, nodes, first=self._store.fingerprint)

    def _starting(self, wanted: int) -> list[str]:
        """Members that are about to be ready, by name, where there are too few nodes without them."""
        states = {p.fingerprint: p for p in self._peer_states()}
        peers = self._store.peers()
        able = sum((s := states.get(m.fingerprint)) is not None and s.reachable and s.ready for m in peers)
        if 1 + able >= place.target(wanted, 1 + len(peers)):
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

    def not_chosen(self, pin: Pin) -> list[wire.Copy]:
        """Members that get no copy although more were wanted, each with the reason."""
        result = []
        states = {p.fingerprint: p for p in self._peer_states()}
        for m in self._store.peers():
            if not pin.allocations or m.cluster_id in pin.allocations:
                continue
            s = states.get(m.fingerprint)
            if s is None or not s.reachable or s.problem:
                why = f"it is away ({s.problem})" if s is not None and s.problem else "it is away"
            elif not s.ready:
                why = "its kubo or cluster does not run"
            elif not s.accepts or s.free_bytes < pin.size:
                why = f"it has no room ({shown(s.free_bytes)})"
            elif len(pin.allocations) < place.target(pin.wanted, len(self._store.members())):
                why = "its cluster has not said how much room it has; it gets a copy as soon as that is known"
            else:
                why = "it was not needed"
            result.append(wire.Copy(node=self._store.name_of(m.fingerprint), state="missing", detail=why))
        return result

    async def commit(self, pin: Pin, *, before: Pin | None = None) -> Pin:
        """Put the entry (with its allocations) into the pinset, durably, and read it back.

        before: the record that this one replaces. Returns the record as it stands; its allocations are the cluster's,
        which may keep a node that it sees alive. Raises MeshError; then it may be there or not, and
        `cluster.allocation` says which.
        """
        deadline = asyncio.get_running_loop().time() + COMMIT_TIMEOUT
        await self._await_metrics(pin.allocations)
        if before is not None:
            current = await self._cluster.allocation(pin.cid)
            if current is None or set(current.allocations) != set(before.allocations):
                raise MeshError(
                    Code.NOT_FOUND,
                    f"cannot change the copies of {pin.name}",
                    "it was removed or changed meanwhile",
                )
        await self._post(pin, deadline)
        pause = 0.03  # its batch closes after 25 ms
        await asyncio.sleep(pause)
        while True:
            found = await self._cluster.allocation(pin.cid)
            if found is not None and (before is None or set(found.allocations) != set(before.allocations)):
                await self._disk.sync()
                return found
            if asyncio.get_running_loop().time() > deadline:
                raise MeshError(
                    Code.NOT_READY,
                    f"cannot keep {pin.name}",
                    "the cluster did not record it in time",
                    "meshctl logs cluster",
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    async def _await_metrics(self, allocations: Collection[str]) -> set[str]:
        """Wait a little until the cluster knows the free space of the nodes that were chosen: it would silently take
        others instead. Once seen, a node is not asked about again for a while. Returns those of which it is not known.

        Nobody is waited for who missed his last beat: a node's metric ends seconds after it went, and it counts as away
        only later.
        """
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
        """Cluster ids of those that did not answer the last time."""
        members = {m.fingerprint: m.cluster_id for m in self._store.members()}
        return {members[p.fingerprint] for p in self._peer_states() if p.problem and p.fingerprint in members}

    async def _post(self, pin: Pin, deadline: float) -> None:
        """A pin just after a join or a start is refused until every node's free space is known: some seconds."""
        while True:
            try:
                await self._cluster.pin(pin)
                return
            except MeshError as exc:
                few = "not enough peers" in exc.detail
                if not few or asyncio.get_running_loop().time() > deadline - COMMIT_TIMEOUT + 15:
                    known = await self._cluster.with_room() if few else set()
                    fewer = tuple(a for a in pin.allocations if a in known) or pin.allocations[:1]
                    if few and len(fewer) < len(pin.allocations):
                        pin = dataclasses.replace(pin, allocations=fewer)
                        continue
                    raise
                await asyncio.sleep(0.25)

    def holders(self, pin: Pin) -> list[wire.Member]:
        """The members that shall hold it."""
        return [m for m in self._store.members() if not pin.allocations or m.cluster_id in pin.allocations]

    async def see(self, pin: Pin, emit: wire.Emit, among: Iterable[wire.Member] | None = None) -> Kept:
        """Wait until every chosen node was asked and holds it, or was given up; each copy is emitted once.

        among: these instead of all that were chosen.
        """
        members = self.holders(pin) if among is None else list(among)
        wanted = len(self._store.members()) if pin.wanted == "all" else pin.wanted
        held: list[str] = []
        missing: list[wire.Copy] = []
        lock = asyncio.Lock()

        async def tell(event: wire.Wire) -> None:
            async with lock:
                await emit(event)

        async def one(member: wire.Member) -> None:
            copy = await self._await_copy(member, pin, tell)
            async with lock:
                if copy.state == "held":
                    held.append(member.name)
                    await emit(wire.CopyEvent(node=member.name, held=len(held), wanted=wanted))
                else:
                    missing.append(copy)

        async with asyncio.TaskGroup() as group:
            for member in members:
                group.create_task(one(member), name=f"see-{pin.cid[-8:]}-{member.name}")
        return Kept(pin, tuple(held), tuple(missing))

    async def _await_copy(self, member: wire.Member, pin: Pin, tell: wire.Emit) -> wire.Copy:
        """What became of one node's copy, once it holds it, refuses it, or was waited for long enough."""
        asker: Asker = self._copies.asker(member)
        question: Question = asker.open(pin.cid)
        said = ""
        told, told_at = 0, float("-inf")
        try:
            while True:
                copy, fetched = question.copy, min(question.fetched_bytes, pin.size)
                now = asyncio.get_running_loop().time()
                waited = now - question.since
                if copy.state == "held" or timeouts.given_up(copy.state, waited, away=self._is_away(member)):
                    return copy
                if (message := timeouts.worth_saying(copy.state, waited, member.name)) and message != said:
                    said = message
                    await tell(wire.StepEvent(message=message))
                if copy.state == "fetching" and timeouts.worth_telling(fetched, told, now - told_at):
                    told, told_at = fetched, now
                    await tell(wire.FetchingEvent(node=member.name, bytes=fetched, size=pin.size))
                question.changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await question.changed.wait()
        finally:
            asker.close(question)

    def _is_away(self, member: wire.Member) -> bool:
        known = self._store.by_fingerprint(member.fingerprint)
        if known is None or known.forgotten:
            return True  # it has left since it was chosen
        states = {p.fingerprint: p for p in self._peer_states()}
        s = states.get(member.fingerprint)
        return s is not None and not s.reachable and bool(s.last_seen)

    async def replace_missing(self, kept: Kept) -> Pin | None:
        """Other nodes in place of those that refused or are silent; the new record, or None where nobody else can."""
        pin = kept.pin
        if pin.wanted == "all" or not kept.missing:
            return None
        out = {c.node for c in kept.missing}
        nodes = [
            c for c in self.candidates() if not c.leaving and self._store.name_of(c.fingerprint) not in out
        ]
        good = [m.cluster_id for m in self.holders(pin) if m.name in kept.held]
        new = place.choose(place.target(pin.wanted, len(nodes)), pin.cid, pin.size, nodes, keep=good)
        if len(new) <= len(good):
            return None
        union = tuple(dict.fromkeys((*pin.allocations, *new)))
        _LOG.info("other nodes take over", cid=pin.cid, instead_of=sorted(out))
        return await self.commit(dataclasses.replace(pin, allocations=union), before=pin)
