"""Staging: entries that are pinned on this node and not committed to the pinset yet, remembered over a crash.

The same syncfs makes an entry and its record in `Pending` durable, so the next start knows each entry that a power cut
has left pinned and uncommitted.
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

_PIN_S = 3600.0  # all of it is here, or kubo fetches it from the members
_LOG = structlog.get_logger(part="pins")


class Pending:
    """The record of uncommitted entries.

    left: those of a previous run, and those given up in this one. The sweep finds out whether they were committed.
    """

    def __init__(self, path: Path) -> None:
        """Blocks: reads the file. A damaged one counts as empty: at worst unwanted content stays pinned."""
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
        """Record an entry before it is pinned in kubo. Blocks for one small write, without a sync."""
        self._open.add(cid)
        self._write()

    def end(self, cid: str) -> None:
        """Remove a record: the entry is in the pinset, or no longer pinned."""
        if cid in self:
            self._open.discard(cid)
            self.left.discard(cid)
            self._write()

    def give_up(self, cid: str) -> None:
        """Leave an entry to the sweep, in this run or after the next start."""
        if cid in self._open:
            self._open.discard(cid)
            self.left.add(cid)  # the file has it already

    def _write(self) -> None:
        files.write_atomically(self._path, json.dumps(sorted(self._open | self.left)))


class Staging:
    """Pins entries in kubo before their commit, and unpins those that are never committed."""

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
        """removed: whether an entry's removal from the pinset is known."""
        self._kubo = kubo
        self._cluster = cluster
        self._uploads = uploads
        self._disk = disk
        self._pending = pending
        self._removed = removed

    def __contains__(self, cid: str) -> bool:
        """Whether an entry is not known to be committed yet."""
        return cid in self._pending

    async def stage(self, draft: Pin, emit: wire.Emit) -> Pin:
        """Make the entry, pinned and durable on this node. After an error it is not pinned.

        The caller is among the open uploads, so no garbage collection begins. It waits for a running one, which could
        collect the entry's block before it is pinned: kubo's dag/put takes no lock against that.
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
        """Note that the entry is in the pinset."""
        self._pending.end(cid)

    async def abandon(self, cid: str) -> None:
        """Roll back an entry that was reported as failed: remove it from the pinset if it got there, then unpin it."""
        try:
            if await self._cluster.allocation(cid) is not None:
                await self._cluster.unpin(cid)
        except MeshError as exc:
            _LOG.warning("cannot see whether the entry got into the pinset", cid=cid, error=str(exc))
            self._pending.give_up(cid)  # it may be committed: its content stays, and the next sweep decides
            return
        await self._unpin(cid)

    async def _unpin(self, cid: str) -> None:
        """Unpin an uncommitted entry. Its record stays until that is done, here or by a sweep.

        Nothing else distinguishes it from a committed one, as the pin has the name that a person gave it.
        """
        try:
            await self._kubo.unpin(cid)
        except MeshError as exc:
            _LOG.warning("cannot unpin what is not kept; the next sweep does", cid=cid, error=str(exc))
            self._pending.give_up(cid)
        else:
            self._pending.end(cid)

    async def sweep(self, pinset: Collection[str], local: Mapping[str, str]) -> None:
        """Unpin what unacknowledged uploads have left pinned.

        local: kubo's pins, CID -> name. pinset: the entries among them.

        An entry of a previous run, or one that was given up, was never committed if it is neither in the pinset nor
        removed from it. Both lists were read a while ago, and it may have been pinned and given up since: so each is
        read again.
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
        """Whether a pin of that name is left over from an upload that has ended."""
        # The block of no bytes keeps its pin, and with it the name of the upload that last brought it.
        return cid != EMPTY_BLOCK and self._uploads.left_over(name, cid)
