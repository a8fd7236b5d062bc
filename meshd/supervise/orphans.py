"""Orphans: children of a previous run. They cannot be adopted: nobody reads their output, and the cluster dies of that.

Whose child a process is its environment says, by the state folder's device and inode. Not by its path: where containers
share one pid namespace, the engines of each are seen by all, and all of them have the same path. Nor by the namespace
that it is in: systemd makes a new one for each start of a unit. Whoever looks holds the folder's lock, so no daemon runs
whose children these could still be.
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
    """Processes of this user that were started for the state folder `owner` and are not ours any more.

    The mark is in the process itself, so a reused pid is never taken for one. Raises OSError where `owner` is not there.
    """
    own = identity(owner)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _belongs(entry, owner, own):
            with contextlib.suppress(OSError):
                found.append(Orphan(int(entry.name), (entry / "exe").readlink().name))
    return found


def kill(owner: Path, *, timeout: float = 10.0) -> list[Orphan]:
    """End what `find` finds and wait until it is gone. Blocks. Hold the folder's lock (`files.only_daemon`) meanwhile.
    Raises MeshError BUSY for one that does not end, and OSError.

    SIGKILL at once: kubo and a leveldb cluster stand it (measured), and their orderly stop can hang for 40 s.
    The process is held by a pidfd and its mark read again, so that no other one can get the signal.
    """
    own = identity(owner)
    ended = []
    for leftover in find(owner):
        try:
            fd = os.pidfd_open(leftover.pid)
        except ProcessLookupError:
            continue
        try:
            if not _belongs(Path(f"/proc/{leftover.pid}"), owner, own):
                continue
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            if not select.select([fd], [], [], timeout)[0]:
                raise MeshError(
                    Code.BUSY,
                    f"cannot start on {owner}",
                    f"{leftover.program} (pid {leftover.pid}) of a previous run was killed and does not end",
                    f"see what it waits for (often a disk): ps -o pid,stat,wchan,args -p {leftover.pid}; then start it again",
                )
            ended.append(leftover)
        finally:
            os.close(fd)
    return ended


def _belongs(process: Path, owner: Path, own: str) -> bool:
    """Whether a process was started for that folder. process: its folder in /proc. own: the `identity` of `owner`."""
    try:
        environment = (process / "environ").read_bytes().split(b"\0")
        said = [entry for entry in environment if entry.startswith(f"{IDENTITY}=".encode())]
        if said:
            return said == [f"{IDENTITY}={own}".encode()]
        return os.fsencode(f"{MARK}={owner}") in environment and _sees(process, owner, own)
    except OSError:
        return False  # it ended, or is somebody else's


def _sees(process: Path, owner: Path, own: str) -> bool:
    """Whether that path is the same folder to the process as to us: all that 0.1.0 wrote into its children is the path.

    Raises OSError. In another mount namespace a symbolic link on the way would lead through ours, so no look is taken there.
    """
    if (process / "ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink():
        return False
    return identity(Path(f"{process}/root{owner.absolute()}")) == own
