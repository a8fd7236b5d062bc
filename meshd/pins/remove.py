"""Removal and restore: `meshctl rm`, `rm --now` and `restore`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection

import structlog

from meshd import wire
from meshd.errors import Code, MeshError, quoted
from meshd.files import Disk
from meshd.kubo.rpc import KuboError
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.store import MeshStore
from meshd.model import Pin
from meshd.pins import entries, placement, trash
from meshd.pins.catalogue import Catalogue
from meshd.pins.commit import Committer
from meshd.pins.copies import Copies
from meshd.pins.engine_api import ClusterApi, KuboApi
from meshd.pins.gate import Gate
from meshd.pins.gc import Garbage
from meshd.pins.nodes import Nodes
from meshd.pins.pin import Pinner
from meshd.pins.trash import Journal
from meshd.wire import verbs

_GONE_TIMEOUT = 15.0
_EARLY_S = 2.0  # for all removals of one message: the pinset may have them in a moment
_EARLY_MOST = 1000
_LOG = structlog.get_logger(part="remove")


class Remover:
    """Removes entries from the pinset.

    Each node unpins the content by itself: after its retention time, or at once on request of the entry's owner.
    """

    def __init__(
        self,
        *,
        kubo: KuboApi,
        gate: Gate,
        cluster: ClusterApi,
        store: MeshStore,
        peers: PeerClient,
        catalogue: Catalogue,
        copies: Copies,
        journal: Journal,
        nodes: Nodes,
        committer: Committer,
        pinner: Pinner,
        garbage: Garbage,
        disk: Disk,
        window_s: float,
    ) -> None:
        self._kubo = kubo
        self._gate = gate
        self._cluster = cluster
        self._store = store
        self._peers = peers
        self._catalogue = catalogue
        self._copies = copies
        self._journal = journal
        self._nodes = nodes
        self._committer = committer
        self._pinner = pinner
        self._garbage = garbage
        self._disk = disk
        self._window_s = window_s
        self.under_way: set[str] = set()  # recorded as removed, and maybe still in the pinset
        self._restoring: set[str] = set()
        self._holding = asyncio.Lock()
        self._early: OrderedDict[str, tuple[wire.Removal, str]] = OrderedDict()  # told before the pinset knew

    async def remove(self, reference: str, *, now: bool = False, force: bool = False) -> wire.Removed:
        """Remove an entry from the pinset. now: and unpin its content on every node, which only its owner may request.

        Raises MeshError NOT_FOUND, NOT_OWNER; and, unless `force`, LAST_COPY where the content would be lost: with
        `now` if no other entry keeps it, else if no reachable node holds it.
        """
        numbered = await self._to_remove(reference, now=now)
        pin = numbered.pin
        if now and pin.owner != self._store.fingerprint:
            owner = self._store.name_of(pin.owner) if pin.owner else "another program"
            raise MeshError(
                Code.NOT_OWNER,
                f"cannot let {numbered.reference} go at once",
                f"it was pinned by {owner}, and only its owner may do that",
                f"ask at {owner}; or let it stay in the trash: meshctl rm {quoted(numbered.reference)}",
            )
        holders = self._nodes.holders(pin)
        if not force:
            await self._check_not_last(numbered, now=now)
        removal = trash.removal_of(pin, self._store.fingerprint, now=now)
        self.under_way.add(pin.cid)
        try:
            recorded = await self._journal.record([removal])
            try:
                await self._take_out(pin)
            except MeshError:
                if recorded:
                    await self._journal.drop([pin.cid])
                raise
        finally:
            self.under_way.discard(pin.cid)
        outcomes = await asyncio.gather(
            *(self._tell(m, removal, held=m in holders) for m in self._store.members())
        )
        return wire.Removed(
            entry=self._catalogue.view(numbered),
            nodes=[o for o in outcomes if o is not None],
            restore_until=None if now else removal.time + self._window_s,
        )

    async def _check_not_last(self, numbered: entries.NumberedPin, *, now: bool) -> None:
        pin, reference = numbered.pin, quoted(numbered.reference)
        if now:
            if not await self._is_kept_otherwise(pin):
                raise MeshError(
                    Code.LAST_COPY,
                    f"cannot let {numbered.reference} go at once",
                    "every copy of it would go, and nobody could restore it",
                    f"let it stay in the trash: meshctl rm {reference}; or: meshctl rm --now --force {reference}",
                )
        elif not await self._holders(pin):
            raise MeshError(
                Code.LAST_COPY,
                f"cannot remove {numbered.reference}",
                "no node that can be reached holds it, so it could not be restored",
                f"start a node that had it; or: meshctl rm --force {reference}",
            )

    async def _is_kept_otherwise(self, pin: Pin) -> bool:
        """Whether another entry keeps the same content now."""
        async with contextlib.aclosing(self._catalogue.of_root(pin.root)) as others:
            async for other in others:
                if other.cid != pin.cid and await self._catalogue.exists(other.cid):
                    return True
        return False

    async def _to_remove(self, reference: str, *, now: bool) -> entries.NumberedPin:
        try:
            return await self._catalogue.find(reference, anew=not entries.is_cid(reference))
        except MeshError as exc:
            if exc.code is not Code.NOT_FOUND or not now:
                raise
            removed = [trash.pin_of(r) for r in self._journal.all()]
            return entries.resolve(reference, removed, where="the mesh or the trash")

    async def _take_out(self, pin: Pin) -> None:
        await self._cluster.unpin(pin.cid)
        if not await self._is_out(pin.cid, _GONE_TIMEOUT):
            raise MeshError(
                Code.NOT_READY,
                f"cannot remove {pin.name}",
                "the cluster did not record it in time",
                "meshctl logs cluster",
            )
        await self._disk.sync()

    async def _is_out(self, cid: str, seconds: float) -> bool:
        """Wait until this node's pinset is without `cid`; whether that happens within that time."""
        deadline = time.monotonic() + seconds
        pause = 0.02
        while await self._cluster.allocation(cid) is not None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.5)
        return True

    async def _tell(
        self, member: wire.Member, removal: wire.Removal, *, held: bool
    ) -> wire.NodeOutcome | None:
        """Report a removal to one node; the outcome of its copy, None for a node without one."""
        try:
            if member.fingerprint == self._store.fingerprint:
                if not removal.now:
                    return wire.NodeOutcome(node=member.name, state="trashed") if held else None
                released = await self.release(removal.cid, self._store.fingerprint)
            else:
                await self._peers.call(
                    member, verbs.TELL_REMOVALS, wire.Removals(removals=[removal], total=1)
                )
                if not removal.now:
                    return wire.NodeOutcome(node=member.name, state="trashed") if held else None
                released = await self._peers.call(member, verbs.RELEASE, wire.ReleaseRequest(cid=removal.cid))
        except MeshError as exc:
            later = "it lets go when it returns" if removal.now else "it hears of it when it returns"
            detail = f"{exc.detail or exc.title}; {later}"
            return wire.NodeOutcome(node=member.name, state="unreachable", detail=detail)
        state = wire.NodeOutcome(node=member.name, state="released" if released.released else "refused")
        state.detail = released.detail
        return state

    async def release(self, cid: str, caller: str) -> wire.Released:
        """Unpin an entry here at once, on request of its owner. caller: the requesting node's fingerprint."""
        if not entries.is_cid(cid):
            raise MeshError(Code.BAD_REQUEST, "cannot let that go", f"not a CID: {cid[:80]!a}")
        removal = self._journal.get(cid)
        if removal is None and self._journal.knows(cid):
            return wire.Released(released=not await self._kubo.pinned([cid]))
        entry = await self.entry(cid)  # by the block here, and nobody's word
        if entry is None:
            return wire.Released(released=not await self._kubo.pinned([cid]), detail="it is not here")
        if entry.owner != caller:
            raise MeshError(
                Code.NOT_OWNER,
                f"cannot let {entry.name} go",
                f"it belongs to {self._store.name_of(entry.owner)}",
            )
        if not await self._is_out(cid, _GONE_TIMEOUT):
            return wire.Released(released=False, detail="it is still in the pinset, as this node knows it")
        await self.unpin_and_record(cid)
        return wire.Released(released=True)

    async def unpin_and_record(self, cid: str) -> None:
        """Unpin an entry, and record that. The caller has checked that it may."""
        await self.unpin(cid)
        await self._journal.mark_gone(cid)

    async def unpin(self, cid: str) -> None:
        """`unpin_and_record` without the record, which the caller makes. Interrupted before that, it is repeated."""
        await self._kubo.unpin(cid)
        self._gate.forget(cid)
        self._garbage.request()  # before the record: a full disk may refuse to take that
        _LOG.info("let go", cid=cid)

    async def entry(self, cid: str) -> Pin | None:
        """The entry itself, from this node's own blocks: nobody can change the owner in it."""
        try:
            return entries.from_node(cid, await self._kubo.get_node(cid, offline=True))
        except KuboError as exc:
            if "not found" in exc.message:
                return None
            raise

    async def take_removals(self, removals: list[wire.Removal], from_: str) -> None:
        """Record removals that another node reports. Their retention begins here and now, as each node has its own.

        A removal of what this node's pinset still has is not recorded but remembered, see `take_early`. `now` counts
        only from the owner itself.
        """
        fresh = []
        deadline = time.monotonic() + _EARLY_S
        for removal in removals:
            if not entries.is_cid(removal.cid):
                _LOG.warning("a removal of what is no CID", told_by=from_)
                continue  # kubo accepts paths for CIDs: one could name another owner's entry
            known = self._journal.get(removal.cid)
            if self._journal.knows(removal.cid) and (known is None or (known.by and not removal.now)):
                continue  # it is known, or its content is unpinned already
            if not await self._is_out(removal.cid, max(0.0, deadline - time.monotonic())):
                _LOG.info("a removal that the pinset does not know yet", cid=removal.cid, told_by=from_)
                self._early[removal.cid] = (removal, from_)
                while len(self._early) > _EARLY_MOST:
                    self._early.popitem(last=False)
                continue
            entry = await self.entry(removal.cid)
            if entry is not None:  # the entry's own data, not the report's
                told = trash.removal_of(entry, removal.by)
            else:
                told = removal.model_copy(
                    update={"time": time.time(), "now": False}
                )  # to be shown; what may be done the block says
            fresh.append(told)
        await self._journal.record(fresh)
        for removal in removals:
            if removal.now and from_ == removal.by and removal.cid not in self._early:
                await self._heed(removal.cid, from_)

    async def _heed(self, cid: str, owner: str) -> None:
        """Unpin a removed entry at once, as its owner wants."""
        known = self._journal.get(cid)
        if known is None or known.owner != owner:
            return
        if await self.entry(cid) is None and not await self._kubo.pinned([cid]):
            await self._journal.mark_gone(
                cid
            )  # it never was here: nothing to go, nor to be restored from here
        else:
            await self.release(cid, owner)

    async def take_early(self, cid: str) -> bool:
        """Record the removal of `cid` that was reported before the pinset was without it; whether there was one."""
        told = self._early.pop(cid, None)
        if told is None:
            return False
        await self.take_removals([told[0]], told[1])
        return True

    @property
    def told_early(self) -> tuple[str, ...]:
        """CIDs of removals that were reported before the pinset was without them."""
        return tuple(self._early)

    async def take_all_early(self, gone: Collection[str]) -> None:
        """`take_early` for each of these, which the pinset is without."""
        for cid in gone:
            await self.take_early(cid)

    async def restore(self, reference: str, emit: wire.Emit) -> None:
        """Put a removed entry back into the pinset, and wait for its replicas. Raises MeshError NOT_FOUND."""
        self._catalogue.need_mesh()
        removed = [trash.pin_of(r) for r in self._journal.all()]
        pin = entries.resolve(reference, removed, where="the trash", listed_by="meshctl trash").pin
        async with self._held_back(pin.cid):
            committed = await self._put_back(pin)
        await self._journal.drop([pin.cid])
        await self._pinner.make_whole(committed, emit)

    @contextlib.asynccontextmanager
    async def _held_back(self, cid: str) -> AsyncIterator[None]:
        """Until it is in the pinset, nothing here unpins it, although its retention time may end: the other nodes heard of its
        removal when this one did, so all replicas could go at that moment."""
        async with self._holding:  # an `unpin_due` that began before is over
            self._restoring.add(cid)
        try:
            yield
        finally:
            self._restoring.discard(cid)

    async def unpin_due(self, cid: str) -> bool:
        """`unpin` an entry whose retention time is over, unless it is in the pinset or about to be; whether it was unpinned."""
        async with self._holding:
            if cid in self._restoring or await self._cluster.allocation(cid) is not None:
                return False
            await self.unpin(cid)
            return True

    async def _put_back(self, pin: Pin) -> Pin:
        holders = await self._holders(pin)
        if not holders:
            raise MeshError(
                Code.NOT_FOUND,
                f"cannot restore {pin.name}",
                "no node that can be reached still has it",
                "meshctl peers shows which nodes are away; try again when they are back",
            )
        if pin.wanted == "all":
            allocations: tuple[str, ...] = ()
        else:
            nodes = self._nodes.candidates()
            count = placement.target(pin.wanted, len(nodes))
            allocations = placement.choose(count, pin.cid, pin.size, nodes, keep=holders)
        await self._nodes.await_room(allocations)
        return await self._committer.commit(dataclasses.replace(pin, allocations=allocations))

    async def _holders(self, pin: Pin) -> list[str]:
        """Cluster ids of the reachable nodes that still have the entry."""
        by_name = {m.name: m for m in self._store.members()}
        table = await self._copies.table([pin.cid], by_name.values())
        return [by_name[c.node].cluster_id for c in table[pin.cid] if c.state == "held"]

    async def listing(self) -> wire.Trash:
        """The trash: removed entries that can be restored, without those that another node has put back meanwhile."""
        removed = self._journal.lying()
        if removed:
            kept = await self._catalogue.among([t.removal.cid for t in removed])
            removed = [t for t in removed if t.removal.cid not in kept]
        return wire.Trash(entries=trash.view(removed, self._window_s, self._store.name_of))
