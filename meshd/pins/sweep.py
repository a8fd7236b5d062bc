"""Keeps this node's kubo in line with the mesh: trash whose time is over, copies that moved elsewhere.

It acts only on what is durably recorded: a removal in the journal, or an allocation in the pinset.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence

import structlog

from meshd import wire
from meshd.errors import MeshError
from meshd.mesh.store import MeshStore
from meshd.model import Pin, Replicas
from meshd.pins import entries, placement, trash
from meshd.pins.copies import Copies
from meshd.pins.engine_api import ClusterApi, KuboApi
from meshd.pins.pinset import Pinset
from meshd.pins.remove import Remover
from meshd.pins.staging import Staging
from meshd.pins.storage import Storage
from meshd.pins.trash import Journal

_MOVED_AT_ONCE = 200
_DUE_AT_ONCE = 100  # entries that go before it is recorded that they did
_SETTLED_S = 1.0
_STEP = 2000  # entries that are looked at before others have their turn in the event loop
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
        pinset = (await self._pinset.read(anew=True)).pins
        local = {p.cid: p.name for p in await self._kubo.pins()}
        await self._staging.sweep(pinset, local)
        foreign, moved = await self._sort_out(pinset, local)
        self._storage.recount(sum(foreign.values()), foreign, self._fetching)
        await self._journal.drop_kept(await self._put_back(pinset), known)
        await self._remover.take_all_early(pinset)
        await self._empty_trash()
        if moved:
            await self._let_moved_go(moved[:_MOVED_AT_ONCE])

    async def _sort_out(
        self, pinset: Mapping[str, Pin], local: Collection[str]
    ) -> tuple[dict[str, int], list[Pin]]:
        """What others have here, with its bytes; and what is here and is allocated elsewhere."""
        me = self._store.me()
        foreign: dict[str, int] = {}
        moved: list[Pin] = []
        for count, (cid, pin) in enumerate(pinset.items(), 1):
            if count % _STEP == 0:
                await asyncio.sleep(0)
            if not pin.allocations or me.cluster_id in pin.allocations:
                if pin.owner != me.fingerprint:
                    foreign[cid] = pin.size
            elif cid in local and cid not in self._staging:
                moved.append(pin)
        return foreign, moved

    async def _put_back(self, pinset: Collection[str]) -> set[str]:
        """What is recorded as removed and kept all the same. `pinset` was read a while ago, and a removal is recorded
        before the pinset is without it: so each is looked at again."""
        back = [cid for cid in pinset if self._journal.knows(cid)]
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

    async def _let_moved_go(self, moved: list[Pin]) -> None:
        """Copies that are allocated elsewhere go once every one of the nodes that shall hold them does."""
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
