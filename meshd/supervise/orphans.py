"""Orphans: children of a previous run. They cannot be adopted: nobody reads their output, and the cluster dies of that.

A mark in its environment says whose child a process is: the state folder's device and inode. A path would not do: where
containers share one pid namespace, each sees the engines of all, and all have the same path. Nor would a namespace:
systemd makes a new one for each start of a unit. The caller holds the folder's lock, so no daemon runs whose children
these could still be.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from meshd.errors import Code, MeshError
from meshd.supervise.child import IDENTITY, MARK, identity


@dataclass(frozen=True, slots=True)
class Orphan:
    pid: int
    program: str


def find(owner: Path) -> list[Orphan]:
    """The orphans of the state folder `owner`: processes of this user that bear its mark, but for this one itself.

    Look before the first start: own children bear the mark, too. It is in the process itself, so a reused pid never
    counts as one. Raises OSError where `owner` does not exist.
    """
    own = identity(owner)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _belongs(entry, owner, own):
            with contextlib.suppress(OSError):
                found.append(Orphan(int(entry.name), (entry / "exe").readlink().name))
    return found


def kill(owner: Path, *, timeout: float = 10.0) -> list[Orphan]:
    """Kill what `find` finds, wait until it is gone, and return it. Blocks.

    Hold the folder's lock (`files.only_daemon`) meanwhile. SIGKILL comes at once: kubo and a leveldb cluster survive
    it (measured), and their orderly stop can hang for 40 s. Each process is held by a pidfd and its mark read again, so
    that no other one can get the signal. Raises MeshError BUSY for a process that does not end, and OSError.
    """
    own = identity(owner)
    ended = []
    for orphan in find(owner):
        try:
            fd = os.pidfd_open(orphan.pid)
        except ProcessLookupError:
            continue
        try:
            if not _belongs(Path(f"/proc/{orphan.pid}"), owner, own):
                continue
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            if not select.select([fd], [], [], timeout)[0]:
                raise MeshError(
                    Code.BUSY,
                    f"cannot start on {owner}",
                    f"{orphan.program} (pid {orphan.pid}) of a previous run was killed and does not end",
                    f"see what it waits for (often a disk): ps -o pid,stat,wchan,args -p {orphan.pid}; then start it again",
                )
            ended.append(orphan)
        finally:
            os.close(fd)
    return ended


def _belongs(process: Path, owner: Path, own: str) -> bool:
    """Whether a process bears the mark of a folder. process: its folder in /proc. own: the `identity` of `owner`."""
    try:
        environment = (process / "environ").read_bytes().split(b"\0")
        said = [entry for entry in environment if entry.startswith(f"{IDENTITY}=".encode())]
        if said:
            return said == [f"{IDENTITY}={own}".encode()]
        return os.fsencode(f"{MARK}={owner}") in environment and _sees(process, owner, own)
    except OSError:
        return False  # it has exited, or belongs to another user


def _sees(process: Path, owner: Path, own: str) -> bool:
    """Whether the path `owner` is the same folder to the process as to us: 0.1.0 marked its children by path alone.

    False in another mount namespace, where a symbolic link on the way would resolve through ours. Raises OSError.
    """
    if (process / "ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink():
        return False
    return identity(Path(f"{process}/root{owner.absolute()}")) == own
