"""Entries that were made here and are not in the pinset yet, remembered over a crash.

Its writes are made durable by the same syncfs that makes the entry durable, so an entry that a power cut leaves pinned
without being in the pinset is known at the next start.
"""

from __future__ import annotations

import json
from pathlib import Path

from meshd import files
from meshd.errors import MeshError
from meshd.pins.entries import is_cid


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
            self.left = {cid for cid in document if isinstance(cid, str) and is_cid(cid)}

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
