"""Raises and re-allocates copies as nodes come and go. One elected node does it."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterable
from functools import partial

import structlog

from meshd import wire
from meshd.cluster.rest import Cluster
from meshd.errors import MeshError
from meshd.mesh.store import MeshStore
from meshd.model import PeerState, Pin
from meshd.pins import place
from meshd.pins.keep import Keeper

_AT_ONCE = 20
_COPY_S = 3600.0  # then the task ends; the cluster goes on, and a later turn looks again
_AGAIN_S = 60.0  # before a pin whose last change did not help is tried again
_LOG = structlog.get_logger(part="replicate")


async def _silent(_: wire.Wire) -> None:
    """Nobody listens."""


class Replicator:
    """One `turn` looks at every pin. Every node counts what is short; the elected one changes the allocations."""

    def __init__(
        self,
        cluster: Cluster,
        store: MeshStore,
        keeper: Keeper,
        peer_states: Callable[[], Iterable[PeerState]],
        heal_after_s: float,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._keeper = keeper
        self._peer_states = peer_states
        self._heal_after_s = heal_after_s
        self._not_before: dict[str, float] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._commits = asyncio.Semaphore(_AT_ONCE)
        self.short = 0  # entries with fewer copies than there could be, at the last turn
        self.lost: tuple[str, ...] = ()  # names of entries whose nodes are all gone

    async def turn(self) -> None:
        """Raises MeshError where the cluster cannot be asked; the next turn goes on. Does not wait for the copies:
        one entry that nobody can give must not keep the others."""
        candidates = self._keeper.candidates()
        changes: list[tuple[Pin, place.Change]] = []
        lost = []
        for pin in await self._cluster.allocations():
            if place.lost(pin.allocations, candidates, heal_after_s=self._heal_after_s):
                lost.append(pin.name)
                continue
            change = place.plan(
                pin.wanted, pin.cid, pin.size, pin.allocations, candidates, heal_after_s=self._heal_after_s
            )
            if change is not None:
                changes.append((pin, change))
        self.short, self.lost = len(changes), tuple(sorted(lost))
        reachable = [p.fingerprint for p in self._peer_states() if p.reachable]
        if place.elected(self._store.fingerprint, reachable):
            self._begin(changes)

    async def stop(self) -> None:
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _begin(self, changes: list[tuple[Pin, place.Change]]) -> None:
        self._not_before = {p.cid: t for p, _ in changes if (t := self._not_before.get(p.cid)) is not None}
        now = time.monotonic()
        for pin, change in changes:
            cid = pin.cid
            if cid in self._under_way or self._not_before.get(cid, 0.0) > now:
                continue
            task = asyncio.create_task(self._change(pin, change), name=f"replicate-{cid[-8:]}")
            self._under_way[cid] = task
            task.add_done_callback(partial(self._ended, cid))

    def _ended(self, cid: str, _: asyncio.Task[None]) -> None:
        del self._under_way[cid]

    async def _change(self, pin: Pin, change: place.Change) -> None:
        self._not_before[pin.cid] = time.monotonic() + _AGAIN_S
        try:
            async with self._commits:
                _LOG.info("copies change", name=pin.name, cid=pin.cid, why=change.why)
                new = dataclasses.replace(pin, allocations=change.allocations)
                committed = await self._keeper.commit(new, before=pin)
            async with asyncio.timeout(_COPY_S):
                kept = await self._keeper.see(committed, _silent)
        except (MeshError, TimeoutError) as exc:
            _LOG.warning("cannot change the copies", cid=pin.cid, error=str(exc) or "it takes too long")
            return
        if kept.missing:
            _LOG.warning("copies are still missing", cid=pin.cid, nodes=[c.node for c in kept.missing])
