"""One cgroup for each child, so that its descendants end with it.

A process can leave an environment mark, a process group or a session, but not its cgroup: the kernel puts it into its
parent's. systemd delegates the unit's subtree to meshd (Delegate=, see CGROUP_DELEGATION of systemd), and each program
gets a cgroup below that of meshd itself. No controllers are enabled there, so the unit's limits hold for all, and meshd
may stay where it is.

Without a delegated subtree, as when meshd is started by hand, nothing of this is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import select
from collections.abc import Iterator
from pathlib import Path

import structlog

from meshd import files
from meshd.errors import Code, MeshError

_AGAIN_S = 0.01
EMPTY_WITHIN = 10.0  # seconds from the kernel's SIGKILL to all until none is left
_DELEGATED = "user.delegate"  # systemd 251 and newer sets it to 1; anybody may read it
# A user's own systemd delegates without setting it (seen with 252): there the unit sets this variable.
_SAID = "MESHD_DELEGATED"
_LOG = structlog.get_logger(part="groups")


class Cgroup:
    """The cgroup of one program. Its folder may or may not exist."""

    def __init__(self, path: Path, program: str) -> None:
        self.path = path
        self.program = program
        self._told: set[int] = set()

    async def make(self) -> None:
        """Make it, empty. Raises MeshError BUSY where a process in it does not end, and OSError."""
        await self.end()
        self._told.clear()
        self.path.mkdir(exist_ok=True)
        self.path.chmod(0o755)  # whatever the umask: `systemctl status` shows to everybody what is in it

    def kill(self, *, silently: bool = False) -> None:
        """Send SIGKILL to every process in it and below it, forks under way included. Raises OSError."""
        if left := [] if silently else sorted(set(self._pids()) - self._told):
            self._told.update(left)
            _LOG.warning("ended what was left running", program=self.program, pids=left)
        with contextlib.suppress(FileNotFoundError):
            (self.path / "cgroup.kill").write_text("1")

    async def end(self, timeout: float = EMPTY_WITHIN) -> None:
        """Kill every process in it, wait until none is left, and remove it. Raises MeshError BUSY, and OSError."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self.kill()
                    await self._empty()
                    try:
                        self._remove()
                        return
                    except OSError as exc:
                        if exc.errno != errno.EBUSY:
                            raise
                        await asyncio.sleep(_AGAIN_S)  # a process has been put into it since
        except TimeoutError:
            raise self._stuck() from None
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ENODEV):  # it is gone, or vanishes while it is read
                raise

    def _pids(self) -> Iterator[int]:
        with contextlib.suppress(OSError):  # a cgroup may vanish while it is read
            for folder, _, _ in os.walk(self.path):
                yield from map(int, Path(folder, "cgroup.procs").read_text().split())

    async def _empty(self) -> None:
        """Return when no process is in it. The kernel signals each change of the file."""
        loop = asyncio.get_running_loop()
        with (self.path / "cgroup.events").open("rb", buffering=0) as events, select.epoll() as changes:
            changes.register(events.fileno(), select.EPOLLPRI)
            changed = asyncio.Event()
            loop.add_reader(changes.fileno(), changed.set)
            try:
                while b"populated 0" not in os.pread(events.fileno(), 4096, 0):
                    changed.clear()
                    await changed.wait()
                    changes.poll(0)
            finally:
                loop.remove_reader(changes.fileno())

    def _remove(self) -> None:
        for folder, _, _ in os.walk(self.path, topdown=False):
            Path(folder).rmdir()

    def _stuck(self) -> MeshError:
        pids = sorted(self._pids())
        return MeshError(
            Code.BUSY,
            f"cannot end what {self.program} has started",
            f"pid {', '.join(map(str, pids)) or 'unknown'} was killed and does not end; until then it is not started again",
            f"see what it waits for (often a disk): ps -o pid,stat,wchan,args -p {','.join(map(str, pids)) or '1'}",
        )


class Cgroups:
    """The subtree that is delegated to meshd."""

    def __init__(self, path: Path, name: str) -> None:
        """path: its folder. name: the same as /proc/PID/cgroup names it, from the root that this process sees."""
        self.path = path
        self.name = name
        self._programs: set[str] = set()

    def of(self, program: str) -> Cgroup:
        """The cgroup of that program. `holds` knows it from now on."""
        self._programs.add(program)
        return Cgroup(self.path / program, program)

    def holds(self, membership: str) -> bool:
        """Whether a process is in the cgroup of a program, or below it. membership: its /proc/PID/cgroup."""
        found = _unified(membership)
        if found is None or not found.startswith(self.name.rstrip("/") + "/"):
            return False
        first = found[len(self.name.rstrip("/")) + 1 :].split("/")[0]
        return first.removesuffix(" (deleted)") in self._programs  # a zombie outlives its cgroup


@contextlib.contextmanager
def delegated() -> Iterator[Cgroups | None]:
    """The subtree that systemd has delegated to this process; None, and a line in the log, where there is none."""
    found = _find()
    if isinstance(found, str):
        _LOG.debug("no control group for each program", why=found)
        yield None
        return
    lock = os.open(found.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two daemons in it would end each other's programs
    except BlockingIOError:
        os.close(lock)
        _LOG.info("no control group for each program", why=f"another daemon uses {found.path}")
        yield None
        return
    try:
        yield found
    finally:
        os.close(lock)


def _find() -> Cgroups | str:
    """The delegated subtree, or why there is none."""
    name = _unified(Path("/proc/self/cgroup").read_text(errors="surrogateescape"))
    if name is None:
        return "this system has no control groups of version 2"
    folders = list(_folders(name, Path("/proc/self/mountinfo").read_text(errors="surrogateescape")))
    if not folders:
        return "its own control group is not mounted"
    why = ""
    for folder in folders:
        if not _is_delegated(folder):
            return f"{folder} is not delegated"
        if not (folder / "cgroup.kill").exists():
            return "the kernel is older than 5.14"
        if os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK):
            return Cgroups(folder, name)
        why = f"{folder} cannot be written"
    return why


def _is_delegated(folder: Path) -> bool:
    if os.environ.get(_SAID) == "1":
        return True
    try:
        return os.getxattr(folder, _DELEGATED) == b"1"
    except OSError:
        return False


def _unified(membership: str) -> str | None:
    """The cgroup of version 2 in a /proc/PID/cgroup, see cgroups(7)."""
    return next((line[3:] for line in membership.splitlines() if line.startswith("0::")), None)


def _folders(name: str, mounts: str) -> Iterator[Path]:
    """The folders of the cgroup `name`, from a /proc/PID/mountinfo: see proc(5).

    Hybrid systems mount version 2 at /sys/fs/cgroup/unified, and a sandbox may show only a part of the tree.
    """
    for line in mounts.splitlines():
        place, _, source = line.partition(" - ")
        if not source.startswith("cgroup2 "):
            continue
        root, at = map(files.unescaped, place.split(" ")[3:5])
        below = root.rstrip("/")
        if name == root or name.startswith(f"{below}/"):
            folder = Path(at + name[len(below) :].rstrip("/"))
            with contextlib.suppress(OSError):
                if str(os.getpid()) in (folder / "cgroup.procs").read_text().split():
                    yield folder
