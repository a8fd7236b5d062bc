"""Change detection for ipfs-cluster's pinset, by the files of its datastore.

ipfs-cluster has no change feed, and each reading of its list costs with the list's length. But its datastore (LevelDB)
appends each write to a log before anybody can read it back: while the log has not grown, the list is the same. An idle
node writes nothing (measured on 1.1.6).
"""

from __future__ import annotations

import os
from pathlib import Path

Mark = frozenset[tuple[str, int, int, int]]
"""Name, inode, size and mtime (ns) of each file that grows with a write."""

_LOG, _MANIFEST = (
    ".log",
    "MANIFEST-",
)  # a write larger than its memory bypasses the log, and goes into the manifest


class Datastore:
    """The cluster's datastore, seen from outside. Opens none of its files."""

    def __init__(self, folder: Path) -> None:
        """folder: the cluster's."""
        self._folder = folder / "leveldb"

    def mark(self) -> Mark | None:
        """A mark, equal to an earlier one where nothing was written in between; None where unknown. Blocks."""
        try:
            with os.scandir(self._folder) as files:
                grown = frozenset(_facts(file) for file in files if _grows(file.name))
        except OSError:  # it does not exist yet, or a file vanished meanwhile: then the list is read
            return None
        return grown if any(name.endswith(_LOG) for name, *_ in grown) else None


def written_at(mark: Mark) -> float:
    """When the last write was, by the wall clock, in seconds."""
    return max(when_ns for *_, when_ns in mark) / 1e9


def _grows(name: str) -> bool:
    return name.endswith(_LOG) or name.startswith(_MANIFEST)


def _facts(file: os.DirEntry[str]) -> tuple[str, int, int, int]:
    stat = file.stat(follow_symlinks=False)
    return (file.name, stat.st_ino, stat.st_size, stat.st_mtime_ns)
