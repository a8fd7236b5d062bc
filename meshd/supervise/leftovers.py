"""Children of a previous run. They cannot be adopted: nobody reads their output any more, and the cluster dies of that."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from meshd.errors import Code, MeshError
from meshd.supervise.child import MARK


@dataclass(frozen=True, slots=True)
class Leftover:
    pid: int
    program: str


def find(owner: Path) -> list[Leftover]:
    """Processes of this user that were started for the state folder `owner` and are not ours any more.

    The mark is in the process itself, so a reused pid is never taken for one.
    """
    wanted = f"{MARK}={owner}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _marked(entry, wanted):
            with contextlib.suppress(OSError):
                found.append(Leftover(int(entry.name), (entry / "exe").readlink().name))
    return found


def kill(owner: Path, *, timeout: float = 10.0) -> list[Leftover]:
    """End what `find` finds and wait until it is gone. Blocks. Raises MeshError BUSY for one that does not end.

    SIGKILL at once: kubo and a leveldb cluster stand it (measured), and their orderly stop can hang for 40 s.
    The process is held by a pidfd and its mark read again, so that no other one can get the signal.
    """
    wanted = f"{MARK}={owner}".encode()
    ended = []
    for leftover in find(owner):
        try:
            fd = os.pidfd_open(leftover.pid)
        except ProcessLookupError:
            continue
        try:
            if not _marked(Path(f"/proc/{leftover.pid}"), wanted):
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


def _marked(process: Path, wanted: bytes) -> bool:
    try:
        return wanted in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False  # it ended, or is somebody else's
