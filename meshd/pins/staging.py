"""Staging: entries that are pinned on this node and not in the pinset yet, remembered over a crash.

The writes of `Pending` are made durable by the same syncfs that makes the entry durable, so an entry that a power cut leaves pinned
without being in the pinset is known at the next start.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import structlog

from meshd import files, wire
from meshd.errors import MeshError
from meshd.files import Disk
from meshd.kubo.rpc import EMPTY_BLOCK
from meshd.model import Pin
from meshd.pins import entries
from meshd.pins.engine_api import ClusterApi, KuboApi
from meshd.pins.uploads import Uploads

_PIN_S = 3600.0  # all of it is here or is being fetched from the members
_LOG = structlog.get_logger(part="pins")


class Pending:
    """`left` are those of a previous run, and those that were given up in this one; the sweep looks whether they got into the
    pinset."""

    def __init__(self, path: Path) -> None:
        """Blocks: reads the file. A damaged one is as good as none: at worst content stays that nobody asked for."""
        self._path = path
        self.left: set[str] = set()
        self._open: set[str] = set()
        try:
            document = files.read_json(path)
        except (FileNotFoundError, MeshError):
            document = []
        if isinstance(document, list):
            self.left = {cid for cid in document if isinstance(cid, str) and entries.is_cid(cid)}

    def __contains__(self, cid: str) -> bool:
        return cid in self._open or cid in self.left

    def begin(self, cid: str) -> None:
        """The entry is about to be pinned in kubo. Blocks for one small write, without waiting for the disk."""
        self._open.add(cid)
        self._write()

    def end(self, cid: str) -> None:
        """It is in the pinset, or it is pinned no longer."""
        if cid in self:
            self._open.discard(cid)
            self.left.discard(cid)
            self._write()

    def give_up(self, cid: str) -> None:
        """Whoever made it could not see to its end: the sweep does, in this run or after the next start."""
        if cid in self._open:
            self._open.discard(cid)
            self.left.add(cid)  # the file has it already

    def _write(self) -> None:
        files.write_atomically(self._path, json.dumps(sorted(self._open | self.left)))


class Staging:
    """Pins entries in kubo before they are committed, and unpins what never is."""

    def __init__(
        self,
        *,
        kubo: KuboApi,
        cluster: ClusterApi,
        uploads: Uploads,
        disk: Disk,
        pending: Pending,
        removed: Callable[[str], bool],
    ) -> None:
        """removed: whether an entry is known to have been taken out of the pinset."""
        self._kubo = kubo
        self._cluster = cluster
        self._uploads = uploads
        self._disk = disk
        self._pending = pending
        self._removed = removed

    def __contains__(self, cid: str) -> bool:
        """Whether it is not yet known to be in the pinset."""
        return cid in self._pending

    async def stage(self, draft: Pin, emit: wire.Emit) -> Pin:
        """Make the entry, pinned and durable on this node. After an error it is not pinned.

        The caller is among the open uploads, so no collection of garbage begins; one that runs is waited for, as it would
        take the entry's block before it is pinned: kubo's dag/put waits for none.
        """
        if self._uploads.collecting:
            await emit(wire.StepEvent(message="waiting for kubo, which collects garbage"))
            await self._uploads.wait_collected()
        cid = await self._kubo.put_entry(entries.to_node(draft))
        self._pending.begin(cid)
        try:
            await self._kubo.pin(cid, draft.name, timeout=_PIN_S)
            await self._disk.sync()
        except BaseException:
            await asyncio.shield(self._unpin(cid))
            raise
        return dataclasses.replace(draft, cid=cid)

    def committed(self, cid: str) -> None:
        """It is in the pinset."""
        self._pending.end(cid)

    async def abandon(self, cid: str) -> None:
        """The caller is told that it failed, so it must not be kept: out of the pinset if it got there, then here."""
        try:
            if await self._cluster.allocation(cid) is not None:
                await self._cluster.unpin(cid)
        except MeshError as exc:
            _LOG.warning("cannot see whether the entry got into the pinset", cid=cid, error=str(exc))
            self._pending.give_up(cid)  # it may be there: its content stays, and the next sweep decides
            return
        await self._unpin(cid)

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

    async def sweep(self, pinset: Collection[str], local: Mapping[str, str]) -> None:
        """What an upload that was never acknowledged left pinned goes. local: pins of kubo's, CID -> name; pinset: those of them
        that are entries.

        An entry of a previous run, or one that was given up, that is not in the pinset and was not removed from it never got
        there. Both lists were read a while ago, and it may have been pinned and given up since: so each is looked at again.
        """
        for cid in list(self._pending.left):
            if not self._removed(cid) and await self._cluster.allocation(cid) is None:
                _LOG.info("an entry that was not acknowledged goes", cid=cid)
                await self._kubo.unpin(cid)
            self._pending.end(cid)
        for cid, name in local.items():
            if not self.left_over(name, cid) or cid in pinset:
                continue
            if await self._cluster.allocation(cid) is None:
                _LOG.info("an upload that was not acknowledged goes", cid=cid)
                await self._kubo.unpin(cid)

    def left_over(self, name: str, cid: str) -> bool:
        """Whether a pin of that name is one of an upload that has ended."""
        # The block of no bytes keeps its pin, and with it the name of the upload that last brought it.
        return cid != EMPTY_BLOCK and self._uploads.left_over(name, cid)
