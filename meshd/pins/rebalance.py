"""Raises and re-allocates copies as nodes come and go. One elected node does it."""

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
from meshd.pins.nodes import Nodes
from meshd.pins.pinset import Pinset
from meshd.pins.wait import Waiter, silent

UNDER_WAY_MOST = 100  # entries whose copies are made and waited for at once
_AT_ONCE = 20  # of which so many are being committed
_COPY_S = 600.0  # then its place is another one's; the cluster goes on, and a later turn looks again
_STEP = 500  # entries that are looked at before others have their turn in the event loop
_AGAIN_S = 60.0  # before a pin whose last change did not help is tried again
_LOG = structlog.get_logger(part="replicate")


class Rebalancer:
    """One `turn` looks at every pin. Every node counts what is short; the elected one changes the allocations."""

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
        self._tried: dict[str, float] = {}  # when each was begun last, of those that are still short
        self._waiting: deque[tuple[Pin, placement.Change]] = (
            deque()
        )  # what the last turn found and is not begun
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._commits = asyncio.Semaphore(_AT_ONCE)
        self.short = 0  # entries with fewer copies than there could be, at the last turn
        self.lost: tuple[str, ...] = ()  # names of entries whose nodes are all gone

    async def turn(self) -> None:
        """Raises MeshError where the cluster cannot be asked; the next turn goes on. Does not wait for the copies:
        one entry that nobody can give must not keep the others. A bounded number is under way; the rest waits for a place, and
        the next turn finds anew what is still short."""
        candidates = self._nodes.candidates()
        changes: list[tuple[Pin, placement.Change]] = []
        lost = []
        for count, pin in enumerate(await self._pinset.allocations()):
            if count % _STEP == _STEP - 1:
                await asyncio.sleep(0)
            if placement.lost(pin.allocations, candidates, heal_after_s=self._heal_after_s):
                lost.append(pin.name)
                continue
            change = placement.plan(
                pin.wanted, pin.cid, pin.size, pin.allocations, candidates, heal_after_s=self._heal_after_s
            )
            if change is not None:
                changes.append((pin, change))
        self.short, self.lost = len(changes), tuple(sorted(lost))
        reachable = [p.fingerprint for p in self._peer_states() if p.reachable]
        self._queue(changes if placement.elected(self._store.fingerprint, reachable) else [])

    @property
    def under_way(self) -> int:
        """How many entries' copies are being made or waited for: UNDER_WAY_MOST at most."""
        return len(self._under_way)

    async def stop(self) -> None:
        self._waiting.clear()
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _queue(self, changes: list[tuple[Pin, placement.Change]]) -> None:
        """In place of what an earlier turn found. The one tried longest ago is first: so those that fail again and again,
        or wait for a node that is silent, are not the only ones ever tried."""
        tried = self._tried = {p.cid: t for p, _ in changes if (t := self._tried.get(p.cid)) is not None}
        due = time.monotonic() - _AGAIN_S
        found = [(p, c) for p, c in changes if p.cid not in self._under_way and tried.get(p.cid, due) <= due]
        found.sort(key=lambda change: tried.get(change[0].cid, 0.0))
        self._waiting = deque(found)
        self._begin()

    def _begin(self) -> None:
        """As many as there are places for; each that ends makes one."""
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
