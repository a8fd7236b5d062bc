"""`meshctl pin`: content into kubo, an entry around it, its placement, its commit, and the wait for its replicas."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

from meshd import wire
from meshd.errors import MeshError, mistake
from meshd.mesh.store import MeshStore
from meshd.model import Pin, Replicas
from meshd.pins import entries, placement
from meshd.pins.catalogue import Catalogue
from meshd.pins.commit import Committer
from meshd.pins.engine_api import KuboApi
from meshd.pins.metrics import Durations
from meshd.pins.nodes import Nodes
from meshd.pins.staging import Staging
from meshd.pins.storage import Storage
from meshd.pins.uploads import Added, Declared, Uploads
from meshd.pins.wait import Kept, Waiter

_LOG = structlog.get_logger(part="pins")
_PROGRESS_EVERY_S = 0.1
_UNREAD = 100  # events


class Pinner:
    """Adds entries. What is committed is made whole even if the caller goes; what is not leaves nothing pinned."""

    def __init__(
        self,
        *,
        kubo: KuboApi,
        store: MeshStore,
        catalogue: Catalogue,
        uploads: Uploads,
        storage: Storage,
        staging: Staging,
        nodes: Nodes,
        committer: Committer,
        waiter: Waiter,
        default_replicas: Replicas,
    ) -> None:
        self._kubo = kubo
        self._store = store
        self._catalogue = catalogue
        self._uploads = uploads
        self._storage = storage
        self._staging = staging
        self._nodes = nodes
        self._committer = committer
        self._waiter = waiter
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
        async with self._uploads.receive(body, content_type, declared, _throttled(emit)) as added:
            await emit(wire.AddedEvent(root=added.root, size=added.size, files=added.files))
            pin = await self._staging.stage(self._draft(declared.name, added, replicas), emit)
        await self._keep(pin, replicas, emit, new=True, detach=detach)

    async def existing(
        self, cid: str, name: str, replicas: Replicas | None, emit: wire.Emit, *, detach: bool = False
    ) -> None:
        """Keep what a CID names: it is fetched from the members that have it. Raises MeshError NOT_FOUND."""
        entries.check_name(name)
        self._catalogue.need_mesh()
        self._storage.check(0)
        with self._uploads.opened():
            await emit(wire.StepEvent(message="looking for the content on the members"))
            stat = await self._kubo.stat(f"/ipfs/{cid}")
            self._storage.check(stat.cumulative)
            size = stat.cumulative if stat.directory else stat.size
            added = Added(stat.cid, size, 1, stat.directory)
            pin = await self._staging.stage(self._draft(name, added, replicas), emit)
        await self._keep(pin, replicas, emit, new=True, detach=detach)

    async def make_whole(self, pin: Pin, emit: wire.Emit) -> None:
        """See the copies made of an entry that is in the pinset: after a restore, or to recover."""
        await self._keep(pin, None, emit, new=False, detach=False)

    def _draft(self, name: str, added: Added, replicas: Replicas | None) -> Pin:
        return Pin(
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
                kept = Kept(pin, (self._store.me(),), {})
                await emit(self._done(kept, degraded=False))
                return

    async def _work(
        self, pin: Pin, replicas: Replicas | None, queue: asyncio.Queue[wire.Wire | None], *, new: bool
    ) -> None:
        emit = into(queue)
        try:
            if new:
                allocations = await self._nodes.choose(pin, emit)
                pin = await self._committer.commit(dataclasses.replace(pin, allocations=allocations))
                new = False
                self._staging.committed(pin.cid)
            await emit(wire.EntryEvent(cid=pin.cid, name=pin.name, wanted=self._nodes.goal(pin)))
            await emit(await self._replicate(pin, replicas, emit))
        except MeshError as exc:
            _LOG.warning("cannot keep" if new else "cannot see all copies made", cid=pin.cid, error=str(exc))
            if new:
                await self._staging.abandon(pin.cid)
            await emit(wire.ErrorEvent(problem=exc.problem()))
        except Exception:  # noqa: BLE001 - nobody awaits this task: a mistake goes to the log, and the caller is told
            _LOG.exception("keeping failed", cid=pin.cid)
            unclear = mistake(f"cannot tell whether {pin.name} is kept")
            await emit(wire.ErrorEvent(problem=unclear.problem()))
        finally:
            queue.put_nowait(None)

    async def _replicate(self, pin: Pin, replicas: Replicas | None, emit: wire.Emit) -> wire.PinDoneEvent:
        """Wait for the replicas, once more where other nodes take over from those that refuse or are silent."""
        began = time.monotonic()
        kept = await self._waiter.wait(pin, emit)
        held = [m.cluster_id for m in kept.held]
        others = placement.takeover(pin, held, kept.missing, self._nodes.candidates())
        if others is not None:
            out = sorted(c.node for c in kept.missing.values())
            _LOG.info("other nodes take over", cid=pin.cid, instead_of=out)
            kept = await self._waiter.wait(await self._committer.change(pin, others), emit, held=kept.held)
        # The default is a wish that grows with the mesh; a number that was typed is a demand.
        goal = (
            replicas
            if isinstance(replicas, int)
            else placement.target(pin.wanted, len(self._store.members()))
        )
        degraded = len(kept.held) < goal
        if not degraded:
            self.durations.add(time.monotonic() - began)
        return self._done(kept, degraded=degraded)

    def _done(self, kept: Kept, *, degraded: bool) -> wire.PinDoneEvent:
        view = self._catalogue.view(entries.NumberedPin(kept.pin, 1))
        view.copies = [wire.Copy(node=m.name, state="held") for m in kept.held]
        view.held = len(kept.held)
        missing = list(kept.missing.values())
        if degraded and not missing:
            missing = self._nodes.not_chosen(kept.pin)
        return wire.PinDoneEvent(entry=view, degraded=degraded, missing=missing)


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
