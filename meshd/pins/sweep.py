"""Keeps this node's kubo in line with the mesh: trash whose time is over, copies that moved elsewhere.

It acts only on what is durably recorded: a removal in the journal, or an allocation in the pinset.
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
_DUE_AT_ONCE = 100  # entries that go before it is recorded that they did
_SETTLED_S = 1.0
_MOVED_MOST = 10_000  # that are kept in mind
_LOOK_SHARE = (
    0.01  # of all time that may be spent on looking through what kubo has pinned, where that is much
)
_LOOK_EVERY_S = 3600.0
_LOG = structlog.get_logger(part="sweep")


class Sweeper:
    """One `sweep` looks once over everything. `removed` is what the gate calls when the cluster wants a CID gone."""

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
        self._moved: deque[str] = deque()  # CIDs of what is here and is allocated elsewhere
        self._look_again_at = 0.0  # through kubo, on the monotonic clock
        self._nothing_back_at = (
            -1,
            -1,
        )  # when nothing that was removed was in the pinset: its version, and the journal's

    @property
    def interval_s(self) -> float:
        """Seconds between two sweeps: often enough for the window that is configured."""
        return min(30.0, max(1.0, self._window_s / 10))

    async def removed(self, cid: str) -> None:
        """The cluster asks to unpin. A removal is recorded, durably; an allocation that moved is seen to by `sweep`.

        It also asks for what was just allocated to other nodes, a moment before its own record says so (measured): so
        what is not here is no matter, and what is here is gone from the pinset only if it stays so.
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
        except MeshError as exc:  # kubo is away: the removal must be recorded all the same
            _LOG.warning("cannot read what was removed", cid=cid, error=str(exc))
        if pin is None:
            pin = Pin(cid, name=cid, owner="", root=cid, size=0, time=0.0, wanted=3)
        await self._journal.record([trash.removal_of(pin, "")])

    async def sweep(self) -> None:
        """Raises MeshError where kubo or the cluster cannot be asked; the next sweep goes on."""
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
        """Through all that is pinned here: what may be left over of uploads, CID -> name. What is allocated elsewhere is kept in
        mind. Where there is much, it is looked through less often, and nothing is found in between."""
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
        """How much of what others own is allocated to this node."""
        me = self._store.me()
        every = await self._pinset.query(CatalogueIndex.placements)
        foreign = sum(p.size for p in every if p.on(me.cluster_id) and p.owner != me.fingerprint)
        expected = await self._pinset.query(partial(CatalogueIndex.pins, cids=self._storage.expected))
        counted = {
            pin.cid
            for pin in expected
            if (not pin.allocations or me.cluster_id in pin.allocations) and pin.owner != me.fingerprint
        }
        self._storage.recount(foreign, counted, self._fetching)

    async def _put_back(self) -> set[str]:
        """What is recorded as removed and kept all the same. The pinset was read a while ago, and a removal is recorded
        before the pinset is without it: so each is looked at again."""
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
        # The first one alone: on a disk that takes no record, no more than that one goes without.
        for part in (due[:1], *(due[n : n + _DUE_AT_ONCE] for n in range(1, len(due), _DUE_AT_ONCE))):
            await self._let_due_go(part, pressure=pressure)
        await self._journal.purge(2 * self._window_s + 30 * 86400)
        await self._journal.keep_time()

    async def _let_due_go(self, due: list[wire.Removal], *, pressure: bool) -> None:
        """These go, with one record for all that went."""
        gone: list[str] = []
        try:
            for removal in due:
                if await self._cluster.allocation(removal.cid) is not None:
                    continue  # it was put back a moment ago
                _LOG.info(
                    "its time in the trash is over", name=removal.name, cid=removal.cid, pressure=pressure
                )
                await self._remover.unpin(removal.cid)
                gone.append(removal.cid)
        finally:
            await self._journal.mark_gone(*gone)

    async def _let_moved_go(self) -> None:
        """Copies that are allocated elsewhere go once every one of the nodes that shall hold them does. The others come last
        the next time."""
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
            # The pinset's word on how many are wanted can be changed by any member; the entry's cannot.
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
    """Whether a copy that is allocated elsewhere may go. Pure. copies: what each of `members` says, in their order, as two of
    them may have one name.

    All that shall hold it do, they are as many as are wanted, and none of them is about to leave.
    """
    shall = [
        (m, c)
        for m, c in zip(members, copies, strict=True)
        if not pin.allocations or m.cluster_id in pin.allocations
    ]
    safe = all(c.state == "held" and not m.leaving_since for m, c in shall)
    return safe and len(shall) >= placement.target(wanted, len(members))
