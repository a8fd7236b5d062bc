"""Whether ipfs-cluster has written anything, as its files tell.

It has no feed of changes, and reading its list anew for each question costs with the list's length. But its datastore (LevelDB)
appends each write to a log before anybody can read it back, so while the log has not grown, the list is what it was. A node that has
nothing to do writes nothing (measured on 1.1.6).
"""

from __future__ import annotations

import os
from pathlib import Path

Mark = frozenset[tuple[str, int, int, int]]
"""Name, inode, size and time of the last write (ns) of each file that grows with a write."""

_LOG, _MANIFEST = (
    ".log",
    "MANIFEST-",
)  # a write that is larger than its memory goes past the log, and into the manifest


class Datastore:
    """The cluster's datastore, seen from outside. Nothing of it is opened."""

    def __init__(self, folder: Path) -> None:
        """folder: the cluster's own one."""
        self._folder = folder / "leveldb"

    def mark(self) -> Mark | None:
        """Equal to an earlier one where nothing was written in between; None where that cannot be told. Blocks."""
        try:
            with os.scandir(self._folder) as files:
                grown = frozenset(_facts(file) for file in files if _grows(file.name))
        except OSError:  # it is not there yet, or a file went while it was looked at: then the list is read
            return None
        return grown if any(name.endswith(_LOG) for name, *_ in grown) else None


def _grows(name: str) -> bool:
    return name.endswith(_LOG) or name.startswith(_MANIFEST)


def _facts(file: os.DirEntry[str]) -> tuple[str, int, int, int]:
    stat = file.stat(follow_symlinks=False)
    return (file.name, stat.st_ino, stat.st_size, stat.st_mtime_ns)
