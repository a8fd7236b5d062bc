"""The sweep: periodic collection of trash whose retention time is over, and of replicas that moved elsewhere.

It acts only on durable records: a removal in the journal, or an allocation in the pinset.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Collection, Sequence
from functools import partial

import structlog

from meshd import wire
from meshd.errors import MeshError
from meshd.mesh.store import MeshStore
from meshd.model import Pin, Replicas
from meshd.pins import entries, placement, trash
from meshd.pins.copies import Copies
from meshd.pins.engine_api import ClusterApi, KuboApi
from meshd.pins.index import PART, CatalogueIndex
from meshd.pins.pinset import SMALL, Pinset
from meshd.pins.remove import Remover
from meshd.pins.staging import Staging
from meshd.pins.storage import Storage
from meshd.pins.trash import Journal

_MOVED_AT_ONCE = 200
_DUE_AT_ONCE = 100  # entries to unpin before recording that
_SETTLED_S = 1.0
_MOVED_MOST = 10_000  # to remember
_LOOK_SHARE = (
    0.01  # of all time that may be spent on looking through what kubo has pinned, where that is much
)
_LOOK_EVERY_S = 3600.0
_LOG = structlog.get_logger(part="sweep")


class Sweeper:
    """One `sweep` checks everything once. The gate calls `removed` when the cluster wants a CID gone."""

    def __init__(
        self,
        *,
        kubo: KuboApi,
        cluster: ClusterApi,
        pinset: Pinset,
        store: MeshStore,
        copies: Copies,
        journal: Journal,
        remover: Remover,
        storage: Storage,
        fetching: Collection[str],
        staging: Staging,
        window_s: float,
    ) -> None:
        self._kubo = kubo
        self._cluster = cluster
        self._pinset = pinset
        self._store = store
        self._copies = copies
        self._journal = journal
        self._remover = remover
        self._storage = storage
        self._fetching = fetching
        self._staging = staging
        self._window_s = window_s
        self._moved: deque[str] = deque()  # CIDs of what is pinned here and allocated elsewhere
        self._look_again_at = 0.0  # through kubo, on the monotonic clock
        self._nothing_back_at = (
            -1,
            -1,
        )  # when nothing that was removed was in the pinset: its version, and the journal's

    @property
    def interval_s(self) -> float:
        """Seconds between two sweeps: often enough for the configured retention time."""
        return min(30.0, max(1.0, self._window_s / 10))

    async def removed(self, cid: str) -> None:
        """The cluster wants a CID unpinned. Record a removal, durably; `sweep` handles an allocation that moved.

        The cluster also wants it for what was just allocated to other nodes, a moment before its own record says so
        (measured): so ignore what is not here, and count what is here as removed only if the pinset stays without it.
        """
        if self._journal.get(cid) is not None or not await self._kubo.has(cid):
            return
        deadline = time.monotonic() + _SETTLED_S
        while time.monotonic() < deadline:
            if await self._cluster.allocation(cid) is not None:
                return
            await asyncio.sleep(0.1)
        if await self._remover.take_early(cid):
            return
        pin: Pin | None = None
        try:
            pin = entries.from_node(cid, await self._kubo.get_node(cid, offline=True))
        except MeshError as exc:  # kubo does not answer: the removal must be recorded all the same
            _LOG.warning("cannot read what was removed", cid=cid, error=str(exc))
        if pin is None:
            pin = Pin(cid, name=cid, owner="", root=cid, size=0, time=0.0, wanted=3)
        await self._journal.record([trash.removal_of(pin, "")])

    async def sweep(self) -> None:
        """Make one sweep. Raises MeshError where kubo or the cluster does not answer; the next sweep goes on."""
        known = self._journal.last
        await self._pinset.refresh(anew=True)
        left = await self._look_through_kubo()
        kept = await self._pinset.query(partial(CatalogueIndex.among, cids=left))
        try:
            await self._staging.sweep(kept, left)
        except BaseException:
            self._look_again_at = 0.0
            raise
        await self._recount()
        await self._journal.drop_kept(await self._put_back(), known)
        early = self._remover.told_early
        kept = await self._pinset.query(partial(CatalogueIndex.among, cids=early))
        await self._remover.take_all_early([cid for cid in early if cid not in kept])
        await self._empty_trash()
        await self._let_moved_go()

    async def _look_through_kubo(self) -> dict[str, str]:
        """Go through all pins here; pins that may be left over from uploads, CID -> name.

        Remembers what is allocated elsewhere. A long list is read less often, and nothing is found in between.
        """
        began = time.monotonic()
        if began < self._look_again_at:
            return {}
        me = self._store.me().cluster_id
        left: dict[str, str] = {}
        moved: dict[str, None] = {}
        count = 0
        async with contextlib.aclosing(self._kubo.pins_in_parts(PART)) as parts:
            async for part in parts:
                count += len(part)
                left |= {p.cid: p.name for p in part if self._staging.left_over(p.name, p.cid)}
                found = await self._pinset.query(
                    partial(CatalogueIndex.elsewhere, cids=[p.cid for p in part], cluster_id=me)
                )
                moved |= dict.fromkeys(pin.cid for pin in found[: _MOVED_MOST - len(moved)])
        before = [cid for cid in self._moved if cid in moved]
        self._moved = deque(dict.fromkeys([*before, *moved]))
        if count > SMALL:
            self._look_again_at = began + min(_LOOK_EVERY_S, (time.monotonic() - began) / _LOOK_SHARE)
        return left

    async def _recount(self) -> None:
        """Recount the bytes of others' entries that are allocated to this node."""
        me = self._store.me()
        every = await self._pinset.query(CatalogueIndex.placement_groups)
        foreign = sum(p.size for p in every if p.on(me.cluster_id) and p.owner != me.fingerprint)
        expected = await self._pinset.query(partial(CatalogueIndex.pins, cids=self._storage.expected))
        counted = {
            pin.cid
            for pin in expected
            if (not pin.allocations or me.cluster_id in pin.allocations) and pin.owner != me.fingerprint
        }
        self._storage.recount(foreign, counted, self._fetching)

    async def _put_back(self) -> set[str]:
        """Entries that are recorded as removed and are in the pinset again.

        The pinset was read a while ago, and a removal is recorded before the pinset is without it: so read each one
        again.
        """
        now = (self._pinset.version, self._journal.last)
        if now == self._nothing_back_at:
            return set()
        back = await self._pinset.query(partial(CatalogueIndex.among, cids=self._journal.cids()))
        if not back:
            self._nothing_back_at = now
        return {
            cid
            for cid in back
            if cid not in self._remover.under_way and await self._cluster.allocation(cid) is not None
        }

    async def _empty_trash(self) -> None:
        pressure = bool(self._storage.full())
        due = trash.due(self._journal.lying(), self._window_s, pressure=pressure)
        # The first one alone: on a disk that takes no record, only that one is unpinned without.
        for part in (due[:1], *(due[n : n + _DUE_AT_ONCE] for n in range(1, len(due), _DUE_AT_ONCE))):
            await self._let_due_go(part, pressure=pressure)
        await self._journal.purge(2 * self._window_s + 30 * 86400)
        await self._journal.keep_time()

    async def _let_due_go(self, due: list[wire.Removal], *, pressure: bool) -> None:
        """Unpin these, with one record for all."""
        gone: list[str] = []
        try:
            for removal in due:
                if not await self._remover.unpin_due(removal.cid):
                    continue  # it was put back a moment ago, or is being restored
                _LOG.info(
                    "its time in the trash is over", name=removal.name, cid=removal.cid, pressure=pressure
                )
                gone.append(removal.cid)
        finally:
            await self._journal.mark_gone(*gone)

    async def _let_moved_go(self) -> None:
        """Unpin replicas that are allocated elsewhere, once every allocated node holds them.

        The others come last the next time.
        """
        cids = list(itertools.islice(self._moved, _MOVED_AT_ONCE))
        me = self._store.me().cluster_id
        found = await self._pinset.query(partial(CatalogueIndex.elsewhere, cids=cids, cluster_id=me))
        for _ in cids:
            self._moved.popleft()
        self._moved.extend(pin.cid for pin in found)
        moved = [pin for pin in found if pin.cid not in self._staging]
        if not moved:
            return
        members = self._store.members()
        table = await self._copies.table([p.cid for p in moved], members)
        for pin in moved:
            # Any member can change the wanted number in the pinset; nobody can in the entry.
            entry = await self._remover.entry(pin.cid)
            wanted = pin.wanted if entry is None else entry.wanted
            enough = may_unpin(pin, wanted, members, table[pin.cid])
            current = await self._cluster.allocation(pin.cid)
            if enough and current is not None and current.allocations == pin.allocations:
                _LOG.info("its copies are on other nodes", name=pin.name, cid=pin.cid)
                await self._remover.unpin_and_record(pin.cid)
                self._moved.remove(pin.cid)


def may_unpin(
    pin: Pin, wanted: Replicas, members: Sequence[wire.Member], copies: Sequence[wire.Copy]
) -> bool:
    """Whether a replica that is allocated elsewhere may be unpinned. Pure.

    It may if all allocated nodes hold it, they are as many as wanted, and none of them is about to leave. copies: the
    answer of each of `members`, in their order, as two of them may have one name.
    """
    shall = [
        (m, c)
        for m, c in zip(members, copies, strict=True)
        if not pin.allocations or m.cluster_id in pin.allocations
    ]
    safe = all(c.state == "held" and not m.leaving_since for m, c in shall)
    return safe and len(shall) >= placement.target(wanted, len(members))
