"""`meshctl pin`: content into kubo, an entry around it, the entry into the pinset, its copies seen."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping

import structlog

from meshd import wire
from meshd.cluster.rest import Cluster
from meshd.errors import Code, MeshError
from meshd.files import Disk
from meshd.kubo.rpc import EMPTY_BLOCK, Kubo
from meshd.mesh.store import MeshStore
from meshd.model import Pin, Replicas
from meshd.pins import entries, place
from meshd.pins.catalogue import Catalogue
from meshd.pins.keep import Keeper
from meshd.pins.metrics import Durations
from meshd.pins.pending import Pending
from meshd.pins.storage import Storage
from meshd.pins.uploads import Added, Declared, Uploads

_LOG = structlog.get_logger(part="pins")
_PROGRESS_EVERY_S = 0.1
_UNREAD = 100  # events
_PIN_S = 3600.0  # all of it is here or is being fetched from the members


class Pinner:
    """Adds entries. What is committed is made whole even if the caller goes; what is not leaves nothing pinned."""

    def __init__(
        self,
        kubo: Kubo,
        cluster: Cluster,
        store: MeshStore,
        catalogue: Catalogue,
        keeper: Keeper,
        uploads: Uploads,
        storage: Storage,
        disk: Disk,
        pending: Pending,
        removed: Callable[[str], bool],
        default_replicas: Replicas,
    ) -> None:
        """removed: whether an entry is known to have been taken out of the pinset."""
        self._kubo = kubo
        self._cluster = cluster
        self._store = store
        self._catalogue = catalogue
        self._keeper = keeper
        self._uploads = uploads
        self._storage = storage
        self._disk = disk
        self._pending = pending
        self._removed = removed
        self._default = default_replicas
        self._background: set[asyncio.Task[None]] = set()
        self.durations = Durations()

    async def stop(self) -> None:
        """Leave what goes on in the background: it is committed, and the next start sees to it."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def upload(
        self,
        body: AsyncIterator[bytes],
        content_type: str,
        declared: Declared,
        replicas: Replicas | None,
        emit: wire.Emit,
        *,
        detach: bool = False,
    ) -> None:
        """Take one file or directory and keep it. Emits progress, added, entry, copy..., done."""
        entries.check_name(declared.name)
        self._catalogue.need_mesh()
        self._storage.check(max(declared.size or 0, declared.length or 0))
        leave = self._uploads.enter()
        try:
            added = await self._uploads.add(body, content_type, declared, _throttled(emit))
            try:
                await emit(wire.AddedEvent(root=added.root, size=added.size, files=added.files))
                pin = await self._make_entry(declared.name, added, replicas, emit)
            finally:
                await asyncio.shield(self._uploads.release(added.root))
        finally:
            leave()
        await self._keep(pin, replicas, emit, new=True, detach=detach)

    async def existing(
        self, cid: str, name: str, replicas: Replicas | None, emit: wire.Emit, *, detach: bool = False
    ) -> None:
        """Keep what a CID names: it is fetched from the members that have it. Raises MeshError NOT_FOUND."""
        entries.check_name(name)
        self._catalogue.need_mesh()
        self._storage.check(0)
        leave = self._uploads.enter()
        try:
            await emit(wire.StepEvent(message="looking for the content on the members"))
            stat = await self._kubo.stat(f"/ipfs/{cid}")
            self._storage.check(stat.cumulative)
            size = stat.cumulative if stat.directory else stat.size
            added = Added(stat.cid, size, 1, stat.directory)
            pin = await self._make_entry(name, added, replicas, emit)
        finally:
            leave()
        await self._keep(pin, replicas, emit, new=True, detach=detach)

    async def make_whole(self, pin: Pin, emit: wire.Emit, *, recommit: bool) -> None:
        """See an entry's copies made: after a restore (recommit: put it back into the pinset first), or to recover."""
        await self._keep(pin, None, emit, new=recommit, detach=False)

    async def _make_entry(self, name: str, added: Added, replicas: Replicas | None, emit: wire.Emit) -> Pin:
        """Make the entry, pinned and durable on this node. After an error it is not pinned.

        The caller is among the open uploads, so no collection of garbage begins; one that runs is waited for, as it would
        take the entry's block before it is pinned: kubo's dag/put waits for none.
        """
        draft = Pin(
            cid="",
            name=name,
            owner=self._store.fingerprint,
            root=added.root,
            size=added.size,
            time=int(time.time() * 1000) / 1000,
            wanted=replicas or self._default,
            directory=added.directory,
            files=added.files,
        )
        if self._uploads.collecting:
            await emit(wire.StepEvent(message="waiting for kubo, which collects garbage"))
            await self._uploads.wait_collected()
        cid = await self._kubo.put_entry(entries.to_node(draft))
        self._pending.begin(cid)
        try:
            await self._kubo.pin(cid, name, timeout=_PIN_S)
            await self._disk.sync()
        except BaseException:
            await asyncio.shield(self._unpin(cid))
            raise
        return dataclasses.replace(draft, cid=cid)

    async def _unpin(self, cid: str) -> None:
        """Take the pin of an entry that is not kept away. Its record stays until that is done, here or by a sweep: it has the
        name that a person gave it, so nothing else tells it from what is kept."""
        try:
            await self._kubo.unpin(cid)
        except MeshError as exc:
            _LOG.warning("cannot unpin what is not kept; the next sweep does", cid=cid, error=str(exc))
            self._pending.give_up(cid)
        else:
            self._pending.end(cid)

    async def _abandon(self, cid: str) -> None:
        """The caller is told that it failed, so it must not be kept: out of the pinset if it got there, then here."""
        try:
            if await self._cluster.allocation(cid) is not None:
                await self._cluster.unpin(cid)
        except MeshError as exc:
            _LOG.warning("cannot see whether the entry got into the pinset", cid=cid, error=str(exc))
            self._pending.give_up(cid)  # it may be there: its content stays, and the next sweep decides
            return
        await self._unpin(cid)

    async def _keep(
        self, pin: Pin, replicas: Replicas | None, emit: wire.Emit, *, new: bool, detach: bool
    ) -> None:
        """Commit the entry and see its copies made, in a task of its own that outlives the caller."""
        queue: asyncio.Queue[wire.Wire | None] = asyncio.Queue()
        task = asyncio.create_task(self._work(pin, replicas, queue, new=new), name=f"keep-{pin.cid[-8:]}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        while (event := await queue.get()) is not None:
            await emit(event)
            if detach and isinstance(event, wire.EntryEvent):
                # This node's own copy was durable before the entry was committed.
                await emit(self._done(pin, (self._store.me().name,), (), degraded=False))
                return

    async def _work(
        self, pin: Pin, replicas: Replicas | None, queue: asyncio.Queue[wire.Wire | None], *, new: bool
    ) -> None:
        try:
            if new:
                chosen = await self._keeper.choose(pin, queue.put)
                pin = await self._keeper.commit(dataclasses.replace(pin, allocations=chosen))
            goal = len(self._store.members()) if pin.wanted == "all" else pin.wanted
            await queue.put(wire.EntryEvent(cid=pin.cid, name=pin.name, wanted=goal))
            new = False
            self._pending.end(pin.cid)
            await self._see(pin, replicas, into(queue))
        except MeshError as exc:
            _LOG.warning("cannot keep" if new else "cannot see all copies made", cid=pin.cid, error=str(exc))
            if new:
                await self._abandon(pin.cid)
            await queue.put(wire.ErrorEvent(problem=exc.problem()))
        except Exception:  # noqa: BLE001 - nobody awaits this task: a mistake goes to the log, and the caller is told
            _LOG.exception("keeping failed", cid=pin.cid)
            mistake = MeshError(
                Code.INTERNAL,
                f"cannot tell whether {pin.name} is kept",
                "meshd made a mistake",
                "journalctl -u meshd",
            )
            await queue.put(wire.ErrorEvent(problem=mistake.problem()))
        finally:
            queue.put_nowait(None)

    async def _see(self, pin: Pin, replicas: Replicas | None, emit: wire.Emit) -> None:
        began = time.monotonic()
        shown: set[str] = set()

        async def once(event: wire.Wire) -> None:
            """A node is told once, also when a second round asks it again."""
            if isinstance(event, wire.CopyEvent):
                if event.node in shown:
                    return
                shown.add(event.node)
                event.held = len(shown)
            await emit(event)

        kept = await self._keeper.see(pin, once)
        if kept.missing:
            instead = await self._keeper.replace_missing(kept)
            if instead is not None:
                kept = await self._keeper.see(instead, once)
        nodes = len(self._store.members())
        # The default is a wish that grows with the mesh; a number that was typed is a demand.
        goal = place.target(pin.wanted, nodes)
        if isinstance(replicas, int):
            goal = replicas
        degraded = len(kept.held) < goal
        missing = list(kept.missing)
        if degraded and not missing:
            missing = self._keeper.not_chosen(kept.pin)
        if not degraded:
            self.durations.add(time.monotonic() - began)
        await emit(self._done(kept.pin, kept.held, tuple(missing), degraded=degraded))

    def _done(
        self, pin: Pin, held: tuple[str, ...], missing: tuple[wire.Copy, ...], *, degraded: bool
    ) -> wire.PinDoneEvent:
        view = self._catalogue.view(entries.NumberedPin(pin, 1))
        view.copies = [wire.Copy(node=node, state="held") for node in held]
        view.held = len(held)
        return wire.PinDoneEvent(entry=view, degraded=degraded, missing=list(missing))

    async def sweep(self, pinset: Collection[str], local: Mapping[str, str]) -> None:
        """What an upload that was never acknowledged left pinned goes. pinset: entries; local: kubo's pins, CID -> name.

        An entry of a previous run, or one that was given up, that is not in the pinset and was not removed from it never got
        there. Both lists were read a while ago, and it may have been pinned and given up since: so each is looked at again.
        """
        for cid in list(self._pending.left):
            if not self._removed(cid) and await self._cluster.allocation(cid) is None:
                _LOG.info("an entry that was not acknowledged goes", cid=cid)
                await self._kubo.unpin(cid)
            self._pending.end(cid)
        for cid, name in local.items():
            # The block of no bytes keeps its pin, and with it the name of the upload that last brought it.
            if not self._uploads.left_over(name, cid) or cid in pinset or cid == EMPTY_BLOCK:
                continue
            if await self._cluster.allocation(cid) is None:
                _LOG.info("an upload that was not acknowledged goes", cid=cid)
                await self._kubo.unpin(cid)


def _throttled(emit: wire.Emit) -> Callable[[int], Awaitable[None]]:
    """Progress is for people: ten lines a second are enough."""
    last = 0.0

    async def on_bytes(count: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_EVERY_S:
            last = now
            await emit(wire.ProgressEvent(bytes=count))

    return on_bytes


def into(queue: asyncio.Queue[wire.Wire | None]) -> wire.Emit:
    """Puts events into the queue; how much a node has fetched only while they are read. A caller may be gone, or hold
    still, for the days that a copy takes."""

    async def emit(event: wire.Wire) -> None:
        if not isinstance(event, wire.FetchingEvent) or queue.qsize() < _UNREAD:
            queue.put_nowait(event)

    return emit
