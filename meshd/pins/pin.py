"""`meshctl pin`: content into kubo, an entry around it, its placement, its commit, and the wait for its replicas."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

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


class Pinner:
    """Adds entries. A committed entry is replicated, by this node or the mesh; any other leaves nothing pinned."""

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
        self.durations = Durations()
        self._committing = 0
        self._committed = asyncio.Event()  # set while nothing is about to be committed
        self._committed.set()

    async def wait_committed(self) -> None:
        """Return when no entry is staged here that may still get into the pinset. Uploads may be under way."""
        await self._committed.wait()

    @contextlib.contextmanager
    def _about_to_commit(self) -> Iterator[None]:
        self._committing += 1
        self._committed.clear()
        try:
            yield
        finally:
            self._committing -= 1
            if not self._committing:
                self._committed.set()

    async def upload(
        self,
        body: AsyncIterator[bytes],
        content_type: str,
        declared: Declared,
        replicas: Replicas | None,
        emit: wire.Emit,
        *,
        committed: wire.Emit | None = None,
    ) -> None:
        """Add one file or directory, and pin it. Emits progress, added, entry, copy..., done.

        committed: called right before the entry event, with the answer for a caller that does not wait for replicas.
        """
        entries.check_name(declared.name)
        self._catalogue.need_mesh()
        self._storage.check(max(declared.size or 0, declared.length or 0))
        async with self._uploads.receive(body, content_type, declared, _throttled(emit)) as added:
            await emit(wire.AddedEvent(root=added.root, size=added.size, files=added.files))
            pin = await self._staging.stage(self._draft(declared.name, added, replicas), emit)
        await self._keep(pin, replicas, emit, committed)

    async def existing(
        self,
        cid: str,
        name: str,
        replicas: Replicas | None,
        emit: wire.Emit,
        *,
        committed: wire.Emit | None = None,
    ) -> None:
        """Pin what a CID names; kubo fetches it from the members that have it. committed: as for `upload`.

        Raises MeshError NOT_FOUND.
        """
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
        await self._keep(pin, replicas, emit, committed)

    async def make_whole(self, pin: Pin, emit: wire.Emit) -> None:
        """Wait for the replicas of an entry that is in the pinset: after a restore, or to recover."""
        await emit(self._entry(pin))
        await emit(await self._replicate(pin, None, emit))

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
        self, pin: Pin, replicas: Replicas | None, emit: wire.Emit, committed: wire.Emit | None
    ) -> None:
        """Commit a staged entry, and wait for its replicas.

        Interrupted before the commit, a sweep after the next start finds out whether it happened; after it, the mesh
        replicates the entry.
        """
        try:
            with self._about_to_commit():  # no step before this: `upload` and `existing` count it until here
                allocations = await self._nodes.choose(pin, emit)
                pin = await self._committer.commit(dataclasses.replace(pin, allocations=allocations))
        except MeshError as exc:
            _LOG.warning("cannot keep", cid=pin.cid, error=str(exc))
            await self._staging.abandon(pin.cid)
            raise
        except Exception as exc:
            _LOG.exception("keeping failed", cid=pin.cid)
            raise mistake(f"cannot tell whether {pin.name} is kept") from exc
        self._staging.committed(pin.cid)
        if committed is not None:
            # This node's own copy was durable before the entry was committed.
            await committed(self._done(Kept(pin, (self._store.me(),), {}), degraded=False))
        await emit(self._entry(pin))
        await emit(await self._replicate(pin, replicas, emit))

    def _entry(self, pin: Pin) -> wire.EntryEvent:
        return wire.EntryEvent(cid=pin.cid, name=pin.name, wanted=self._nodes.goal(pin))

    async def _replicate(self, pin: Pin, replicas: Replicas | None, emit: wire.Emit) -> wire.PinDoneEvent:
        """Wait for the replicas, and again where other nodes take over from those that refuse or are silent."""
        began = time.monotonic()
        kept = await self._waiter.wait(pin, emit)
        held = [m.cluster_id for m in kept.held]
        others = placement.takeover(pin, held, kept.missing, self._nodes.candidates())
        if others is not None:
            out = sorted(c.node for c in kept.missing.values())
            _LOG.info("other nodes take over", cid=pin.cid, instead_of=out)
            kept = await self._waiter.wait(await self._committer.change(pin, others), emit, held=kept.held)
        # The default is a wish that grows with the mesh; a typed number is a demand.
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
    """Emit progress ten times a second at most: it is for people."""
    last = 0.0

    async def on_bytes(count: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_EVERY_S:
            last = now
            await emit(wire.ProgressEvent(bytes=count))

    return on_bytes
