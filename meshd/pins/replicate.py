"""Raises and re-allocates copies as nodes come and go. One elected node does it."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterable

import structlog

from meshd import wire
from meshd.cluster.rest import Cluster
from meshd.errors import MeshError
from meshd.mesh.store import MeshStore
from meshd.model import PeerState, Pin
from meshd.pins import place
from meshd.pins.keep import Keeper

_AT_ONCE = 20
_AGAIN_S = 60.0  # before a pin whose last change did not help is tried again
_LOG = structlog.get_logger(part="replicate")


async def _silent(_: wire.Wire) -> None:
    """Nobody listens."""


class Replicator:
    """One `turn` looks at every pin and changes the allocations of those that need it."""

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
        self.short = (
            0  # entries with fewer copies than there could be, at the last turn; only the elected node knows
        )

    async def turn(self) -> None:
        """Raises MeshError where the cluster cannot be asked; the next turn goes on."""
        reachable = [p.fingerprint for p in self._peer_states() if p.reachable]
        if not place.elected(self._store.fingerprint, reachable):
            self.short = 0
            return
        candidates = self._keeper.candidates()
        changes: list[tuple[Pin, place.Change]] = []
        for pin in await self._cluster.allocations():
            change = place.plan(
                pin.wanted, pin.cid, pin.size, pin.allocations, candidates, heal_after_s=self._heal_after_s
            )
            if change is not None:
                changes.append((pin, change))
        self.short = len(changes)
        self._not_before = {p.cid: t for p, _ in changes if (t := self._not_before.get(p.cid)) is not None}
        limit = asyncio.Semaphore(_AT_ONCE)
        due = [c for c in changes if self._not_before.get(c[0].cid, 0.0) <= time.monotonic()]
        await asyncio.gather(*(self._change(pin, change, limit) for pin, change in due))

    async def _change(self, pin: Pin, change: place.Change, limit: asyncio.Semaphore) -> None:
        async with limit:
            self._not_before[pin.cid] = time.monotonic() + _AGAIN_S
            _LOG.info("copies change", name=pin.name, cid=pin.cid, why=change.why)
            try:
                new = dataclasses.replace(pin, allocations=change.allocations)
                kept = await self._keeper.see(await self._keeper.commit(new, before=pin), _silent)
            except MeshError as exc:
                _LOG.warning("cannot change the copies", cid=pin.cid, error=str(exc))
                return
            if kept.missing:
                _LOG.warning("copies are still missing", cid=pin.cid, nodes=[c.node for c in kept.missing])
