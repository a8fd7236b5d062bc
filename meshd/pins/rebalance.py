"""Repair and rebalancing: re-allocates replicas as nodes come and go. One elected node does it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

import structlog

from meshd.errors import MeshError
from meshd.mesh.store import MeshStore
from meshd.model import PeerState, Pin
from meshd.pins import placement
from meshd.pins.commit import Committer
from meshd.pins.index import CatalogueIndex, PlacementGroup
from meshd.pins.nodes import Nodes
from meshd.pins.pinset import Pinset
from meshd.pins.wait import Waiter, silent

UNDER_WAY_MOST = 100  # entries whose replicas are made and awaited at a time
_AT_ONCE = 20  # of these, commits at a time
_COPY_S = 600.0  # then another entry gets its slot; the cluster goes on, and a later turn looks again
_WAITING_MOST = 1000  # entries in the queue
_LOOK_MOST = 10_000  # entries to check a turn
_STEP = 100  # entries, or groups, to check before yielding to the event loop
_AGAIN_S = 60.0  # until a pin whose last change did not help is tried again
_REMEMBERED_S = 600.0  # for so long an attempt is remembered: entries tried longest ago come first
_NAMES_MOST = 100
_LOG = structlog.get_logger(part="replicate")


class Rebalancer:
    """One `turn` checks every placement group, and only the entries of those that are short.

    Every node counts them; the elected one changes the allocations.
    """

    def __init__(
        self,
        *,
        pinset: Pinset,
        store: MeshStore,
        nodes: Nodes,
        committer: Committer,
        waiter: Waiter,
        peer_states: Callable[[], Iterable[PeerState]],
        heal_after_s: float,
    ) -> None:
        self._pinset = pinset
        self._store = store
        self._nodes = nodes
        self._committer = committer
        self._waiter = waiter
        self._peer_states = peer_states
        self._heal_after_s = heal_after_s
        self._tried: dict[str, float] = {}  # when each was begun last
        self._stopped = (0, 0)  # numbers of the group and the entry up to which the last turn looked
        self._waiting: deque[tuple[Pin, placement.Change]] = (
            deque()
        )  # what the last turn found and is not begun
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._commits = asyncio.Semaphore(_AT_ONCE)
        self.short = 0  # entries with fewer copies than there could be, at the last turn
        self._lost_named_at: tuple[int, list[int]] = (-1, [])
        self.lost_count = 0  # entries whose nodes are all gone
        self.lost: tuple[str, ...] = ()  # names of some of them

    async def turn(self) -> None:
        """Make one turn. Raises MeshError where the cluster does not answer; the next turn goes on.

        It does not wait for the replicas, as one entry that no node can provide must not block the others. A bounded
        number is under way, and some more wait for a slot; the next turn finds anew what is still short.
        """
        candidates = self._nodes.candidates()
        short: list[tuple[PlacementGroup, int]] = []
        lost: list[PlacementGroup] = []
        for count, group in enumerate(await self._pinset.ask(CatalogueIndex.placement_groups), 1):
            if count % _STEP == 0:
                await asyncio.sleep(0)
            if placement.lost(group.allocations, candidates, heal_after_s=self._heal_after_s):
                lost.append(group)
                continue
            largest = placement.largest_short(
                group.wanted, group.allocations, candidates, heal_after_s=self._heal_after_s
            )
            if largest is not None:
                short.append((group, largest))
        self.short = await self._pinset.query(
            partial(CatalogueIndex.count_in_groups, largest={p.id: size for p, size in short})
        )
        self.lost_count = sum(group.entries for group in lost)
        await self._name_lost([group.id for group in lost])
        reachable = [p.fingerprint for p in self._peer_states() if p.reachable]
        elected = placement.elected(self._store.fingerprint, reachable)
        self._queue(await self._due(short, candidates) if elected else [])

    async def _name_lost(self, groups: list[int]) -> None:
        """Looks at each of their entries, so only where these are others than before, or any entry is."""
        now = (self._pinset.version, groups)
        if now != self._lost_named_at:
            self.lost = await self._pinset.query(
                partial(CatalogueIndex.names, groups=groups, limit=_NAMES_MOST)
            )
            self._lost_named_at = now

    async def _due(
        self, short: list[tuple[PlacementGroup, int]], candidates: list[placement.Candidate]
    ) -> list[tuple[Pin, placement.Change]]:
        """Some of the short entries, from where the last turn stopped, without those under way or tried recently."""
        due = time.monotonic() - _AGAIN_S
        found: dict[str, tuple[Pin, placement.Change]] = {}
        looked_at = 0
        for group, largest, start in self._from_where_it_stopped(short):
            after = start
            while looked_at < _LOOK_MOST and len(found) < _WAITING_MOST:
                part = await self._pinset.query(
                    partial(
                        CatalogueIndex.of_group,
                        number=group.id,
                        largest=largest,
                        after=after,
                        limit=_STEP,
                    )
                )
                after = part[-1][0] if part else after
                for _, pin in part:
                    if pin.cid not in self._under_way and self._tried.get(pin.cid, due) <= due:
                        change = placement.plan(
                            pin.wanted,
                            pin.cid,
                            pin.size,
                            pin.allocations,
                            candidates,
                            heal_after_s=self._heal_after_s,
                        )
                        if change is not None:
                            found[pin.cid] = (pin, change)
                looked_at += len(part)
                self._stopped = (group.id, after)
                if len(part) < _STEP:
                    break
        return list(found.values())

    def _from_where_it_stopped(
        self, short: list[tuple[PlacementGroup, int]]
    ) -> list[tuple[PlacementGroup, int, int]]:
        """The groups, each with the entry number to begin after. The one that the last turn stopped in comes twice."""
        at, after = self._stopped
        behind = [(p, size, after if p.id == at else 0) for p, size in short if p.id >= at]
        return [*behind, *((p, size, 0) for p, size in short if p.id <= at)]

    @property
    def under_way(self) -> int:
        """The number of entries whose replicas are being made or awaited: UNDER_WAY_MOST at most."""
        return len(self._under_way)

    async def stop(self) -> None:
        self._waiting.clear()
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _queue(self, found: list[tuple[Pin, placement.Change]]) -> None:
        """Replace the queue of an earlier turn. The entry tried longest ago comes first.

        So those that fail again and again, or wait for a silent node, do not starve the others.
        """
        forgotten = time.monotonic() - _REMEMBERED_S
        tried = self._tried = {cid: t for cid, t in self._tried.items() if t > forgotten}
        found.sort(key=lambda change: tried.get(change[0].cid, 0.0))
        self._waiting = deque(found)
        self._begin()

    def _begin(self) -> None:
        """Begin as many as there are slots for. Each one that ends frees a slot."""
        while self._waiting and len(self._under_way) < UNDER_WAY_MOST:
            pin, change = self._waiting.popleft()
            self._tried[pin.cid] = time.monotonic()
            task = asyncio.create_task(self._change(pin, change), name=f"rebalance-{pin.cid[-8:]}")
            self._under_way[pin.cid] = task
            task.add_done_callback(partial(self._ended, pin.cid))

    def _ended(self, cid: str, _: asyncio.Task[None]) -> None:
        del self._under_way[cid]
        self._begin()

    async def _change(self, pin: Pin, change: placement.Change) -> None:
        try:
            async with self._commits:
                _LOG.info("copies change", name=pin.name, cid=pin.cid, why=change.why)
                committed = await self._committer.change(pin, change.allocations)
            async with asyncio.timeout(_COPY_S):
                kept = await self._waiter.wait(committed, silent)
        except (MeshError, TimeoutError) as exc:
            _LOG.warning("cannot change the copies", cid=pin.cid, error=str(exc) or "it takes too long")
            return
        if kept.missing:
            _LOG.warning(
                "copies are still missing", cid=pin.cid, nodes=[c.node for c in kept.missing.values()]
            )
