"""Admission of content by free space: the disk floor (bytes and inodes) and the offer to others."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from meshd import files
from meshd.errors import Code, MeshError

RESERVE_INODES = 10_000  # a block is a file; kubo needs some to start and to collect garbage


@dataclass(frozen=True, slots=True)
class Room:
    """The content's disk. total, free, reserve: bytes. inodes: None where the filesystem has no limit."""

    total: int
    free: int
    reserve: int
    inodes: int | None

    @property
    def above_reserve(self) -> int:
        return max(0, self.free - self.reserve)


def why_full(room: Room) -> str:
    """Why nothing more may be stored, or "". Pure."""
    if room.free <= room.reserve:
        return f"the disk has {shown(room.free)} free, and [storage] reserve keeps {shown(room.reserve)}"
    if room.inodes is not None and room.inodes < RESERVE_INODES:
        return f"the filesystem has {room.inodes} inodes free, and {RESERVE_INODES} are kept"
    return ""


def why_refused(size: int, room: Room, *, foreign: bool, placed: int, offer: int | None) -> str:
    """Why content of `size` bytes may not be stored, or "". placed: bytes of others that are here already. Pure."""
    if why := why_full(room):
        return why
    if size > room.above_reserve:
        return f"it is {shown(size)}, and the disk has {shown(room.above_reserve)} above its reserve"
    if foreign and offer is not None and placed + size > offer:
        return f"[storage] offer gives others {shown(offer)}, {shown(placed)} of it taken, and it is {shown(size)}"
    return ""


def shown(count: float) -> str:
    """Bytes as a person reads them, in decimal units as meshctl shows them."""
    if count < 1000:
        return f"{count:.0f} B"
    units = ("kB", "MB", "GB", "TB", "PB")
    power = next((n for n in range(1, len(units)) if count < 999.95 * 1000**n), len(units))
    return f"{count / 1000**power:.1f} {units[power - 1]}"


class Storage:
    """Reads the filesystem at each call: cheap, and never stale.

    unwritable: why nothing can be written at all, or ""; set by the code that tries. That is no lack of space, so the
    trash is not emptied for it.
    """

    def __init__(
        self, folder: Path, *, reserve: int, offer: int | None, disk: files.Disk | None = None
    ) -> None:
        """disk: syncs that folder, and knows whether that has failed."""
        self._folder = folder
        self._disk = disk
        self.reserve = reserve
        self.offer = offer
        self.unwritable = ""
        self._counted = 0  # bytes of others' entries that are allocated to this node, by the last sweep
        self._coming: dict[str, int] = {}  # those admitted since: cid -> bytes

    def room(self) -> Room:
        """The disk's space. Raises MeshError BAD_STATE where it cannot be read."""
        try:
            stat = os.statvfs(self._folder)
        except OSError as exc:
            why = f"{exc.strerror}: {self._folder}"
            title, hint = f"cannot see the disk of {self._folder}", "findmnt; sudo dmesg | tail"
            raise MeshError(Code.BAD_STATE, title, why, hint) from exc
        inodes = stat.f_favail if stat.f_files else None
        return Room(stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize, self.reserve, inodes)

    @property
    def placed(self) -> int:
        """Bytes of others' entries here, including those on their way."""
        return self._counted + sum(self._coming.values())

    def expect(self, cid: str, size: int) -> None:
        """Count another node's entry that was admitted, from now on rather than from the next sweep."""
        self._coming[cid] = size

    @property
    def expected(self) -> tuple[str, ...]:
        """Entries of others that are counted and that no sweep has found yet."""
        return tuple(self._coming)

    def recount(self, placed: int, counted: Collection[str], fetching: Collection[str]) -> None:
        """Set a sweep's result: bytes; which of `expected` these include; and those that are still being fetched."""
        self._counted = placed
        self._coming = {c: n for c, n in self._coming.items() if c in fetching and c not in counted}

    def broken(self) -> str:
        """Why nothing can be written here at all, or ""."""
        return self.unwritable or (self._disk.failed if self._disk is not None else "")

    def full(self) -> str:
        """Why nothing more may be stored, or "". Raises MeshError BAD_STATE where the disk cannot be read."""
        return why_full(self.room())

    def unreadable(self) -> str:
        """Why the disk cannot be read, or ""."""
        try:
            self.room()
        except MeshError as exc:
            return exc.detail
        return ""

    def closed(self) -> str:
        """Why this node admits nothing more now, or ""."""
        return self.broken() or self.unreadable() or self.full()

    def free(self) -> int:
        """Bytes that this node still offers to others; 0 where its disk cannot be read."""
        if self.unreadable():
            return 0
        above = self.room().above_reserve
        return above if self.offer is None else max(0, min(above, self.offer - self.placed))

    def accepts(self) -> bool:
        return not self.closed() and (self.offer is None or self.free() > 0)

    def refuse(self, size: int, *, foreign: bool) -> str:
        """Why `size` more bytes may not be stored, or ""."""
        return why_refused(size, self.room(), foreign=foreign, placed=self.placed, offer=self.offer)

    def check(self, size: int) -> None:
        """Raises MeshError DISK_FLOOR, BAD_STATE where `size` bytes of this node's own may not be stored."""
        if why := self.broken() or self.unreadable():
            raise MeshError(
                Code.BAD_STATE,
                "cannot store that on this node",
                f"its disk does not take anything ({why})",
                "sudo dmesg | tail; once the disk is well: sudo systemctl restart meshd; until then pin it on another node",
            )
        if why := self.refuse(size, foreign=False):
            raise MeshError(
                Code.DISK_FLOOR,
                "cannot store that on this node",
                why,
                "free some space (meshctl trash shows what waits to go), or pin it on a node with more room",
            )
