"""The one place that writes state: atomic, durable, private."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import pwd
import re
import secrets
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from meshd.errors import Code, MeshError

_TEMPORARY = re.compile(r"\..+\.(\d+)(\.[0-9a-f]{16})?\.tmp")  # before 0.2 the name ended with the pid
_libc = ctypes.CDLL(None, use_errno=True)


def write_durably(path: Path, data: bytes | str, *, mode: int = 0o600) -> None:
    """Replace `path` by `data` durably: after a power cut either the old or the new content is there.

    By a temporary file, fsync, rename, and fsync of the directory. Raises OSError.
    """
    write_atomically(path, data, mode=mode, sync=True)
    sync_directory(path.parent)


def write_atomically(path: Path, data: bytes | str, *, mode: int = 0o600, sync: bool = False) -> None:
    """Replace `path` by `data` atomically: a reader, or a kill -9, sees the old or the new content. Raises OSError.

    Without `sync` a later syncfs makes it durable.
    """
    raw = data.encode() if isinstance(data, str) else data
    temporary = temporary_beside(path)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(raw)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as exc:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        if isinstance(exc, OSError) and exc.filename in (None, str(temporary)):
            # write(2) and fsync(2) know no name, and a person wants the one they know.
            exc.filename = str(path)
        raise


def temporary_beside(path: Path) -> Path:
    """A temporary name beside `path`, with our pid. Unique to one write: two threads may write one file at once."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}.tmp")


def sweep_unfinished(*folders: Path) -> list[Path]:
    """Remove the temporary files that interrupted writes left in these folders, and return them. Raises OSError.

    Call it at the start, before the first write: a file with this process's pid is then an earlier process's. Files of
    other running processes stay.
    """
    left = []
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            found = _TEMPORARY.fullmatch(path.name)
            if found and (int(found[1]) == os.getpid() or not Path("/proc", found[1]).exists()):
                path.unlink(missing_ok=True)
                left.append(path)
    return left


def remove_unfinished(path: Path) -> None:
    """Remove what an interrupted `write_durably` of `path` left: it may hold a secret. Raises OSError."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)


def unescaped(field: str) -> str:
    """Decode a path in a field of a /proc/PID/mountinfo: see proc(5)."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def in_memory(path: Path) -> bool:
    """Whether a file at `path` would be in memory: in a tmpfs, which can be swapped, or a ramfs, which cannot."""
    place, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        mount, _, source = line.partition(" - ")
        at = unescaped(mount.split(" ")[4])
        if path.is_relative_to(at) and len(at) >= len(place):
            place, kind = at, source.split(" ")[0]
    return kind in ("tmpfs", "ramfs")


def link_durably(path: Path, target: Path) -> None:
    """Replace `path` durably by a symbolic link to `target`, see `write_durably`. Raises OSError."""
    temporary = temporary_beside(path)
    temporary.symlink_to(target)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise
    sync_directory(path.parent)


def write_json(path: Path, value: object, *, mode: int = 0o600) -> None:
    """`write_durably` of `value` as indented JSON."""
    write_durably(path, json.dumps(value, indent=1, sort_keys=True) + "\n", mode=mode)


def read_known(file: Path | None) -> dict[str, object]:
    """The JSON object in an optional file: {} where it is missing or cannot be read. Blocks."""
    if file is None:
        return {}
    try:
        document = read_json(file)
    except (OSError, MeshError):
        return {}
    return document if isinstance(document, dict) else {}


def read_json(path: Path, *, hint: str = "") -> object:
    """The JSON in `path`. Raises FileNotFoundError, and MeshError BAD_STATE where it is not JSON, with that hint."""
    raw = path.read_bytes()
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as exc:
        what = "is empty" if not raw else f"is damaged ({exc})"
        raise MeshError(
            Code.BAD_STATE,
            f"cannot use {path}",
            f"the file {what}",
            hint
            or f"restore it from a backup; or move {path.parent} away and join the mesh again as a new node",
        ) from exc


def empty(folder: Path) -> None:
    """Remove all that is in a folder. The folder itself stays: it may be a mount point. Raises OSError."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=path.name == "lost+found")
        else:
            path.unlink()


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: fsync(2). Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def private_directory(path: Path) -> Path:
    """Make `path` and its parents, with mode 0700 on `path`: nobody else may enter it. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def check_disk(state: Path, disk: Path | None = None, *, fstab: Path = Path("/etc/fstab")) -> None:
    """Check that the state's disk is mounted, before anything is made on its empty mount point.

    disk: the mount point that the configuration names; it must be one. Without it /etc/fstab decides: no new node
    begins below a mount point whose disk is not mounted. A state that exists already has moved there, and may begin.
    Raises MeshError BAD_STATE.
    """
    if disk is not None and not os.path.ismount(disk):
        raise _no_disk(state, disk, f"[paths] disk says that a disk is mounted at {disk}, and there is none")
    if disk is None and not (state / "node.key").exists():
        for place in _places(fstab):
            if (place == state or place in state.parents) and not os.path.ismount(place):
                raise _no_disk(state, place, f"/etc/fstab has a disk at {place}, and it is not mounted")


def _no_disk(state: Path, place: Path, cause: str) -> MeshError:
    return MeshError(
        Code.BAD_STATE,
        f"cannot start on {state}",
        cause,
        f"plug it in and mount it: sudo mount {shlex.quote(str(place))}; then start meshd again",
    )


def _places(fstab: Path) -> list[Path]:
    """The mount points of an fstab(5), without the root's."""
    try:
        lines = fstab.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    fields = [line.split() for line in lines if not line.lstrip().startswith("#")]
    named = [
        re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), each[1]) for each in fields if len(each) > 1
    ]
    return [Path(name) for name in named if name.startswith("/") and name != "/"]


def prepare_folders(state: Path, run: Path, private: Path) -> None:
    """Make the daemon's folders: all may enter `run`, its user alone the others.

    Raises MeshError BAD_STATE that names the folder which cannot be used.
    """
    for path, key, closed in ((state, "state", True), (run, "run", False), (private, "run", True)):
        try:
            if not path.exists():
                path.mkdir(parents=True, mode=0o700 if closed else 0o755)
            _check_folder(path, key, owned=closed)
            if closed:
                private_directory(path)
        except OSError as exc:
            raise unusable(exc, f"cannot use {path}", f"[paths] {key}") from exc


def _check_folder(path: Path, key: str, *, owned: bool) -> None:
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    owner = path.stat().st_uid
    if owned and owner != os.geteuid():  # also as root: the owner could not read what root wrote there
        # A volume that a container's runtime has opened for our group stays its owner's; a node's state is nobody else's.
        room_inside = (
            key == "state" and os.access(path, os.W_OK | os.X_OK) and not (path / "node.key").exists()
        )
        raise MeshError(
            Code.BAD_STATE,
            f"cannot use {path}",
            f"it belongs to {_user(owner)}, and this meshd runs as {_user(os.geteuid())}",
            f"use a folder inside it: [paths] state = {json.dumps(str(path / 'state'))}; or run meshd as {_user(owner)}"
            if room_inside
            else f"run meshd as {_user(owner)}, or name another folder in [paths] {key} of the configuration",
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def unusable(exc: OSError, title: str, key: str = "[paths]") -> MeshError:
    """The error for a file or folder that the kernel refuses. key: the configuration key that names another one."""
    path = Path(os.fsdecode(exc.filename)) if exc.filename else Path()
    cause = exc.strerror or str(exc) or type(exc).__name__
    if exc.filename and str(path) not in title:
        cause = f"{cause}: {path}"
    # pathlib would raise where a dead disk does not say.
    folder = next(p for p in (path, *path.absolute().parents) if os.path.isdir(p))  # noqa: PTH112
    other = f"or name another folder in {key} of the configuration"
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
    if full:
        hint = f"make room, then try again: df -h {folder}; df -i {folder}"
    elif exc.errno == errno.EROFS:
        hint = f"mount it for writing (a faulty disk becomes read-only by itself: dmesg): findmnt -T {folder}"
    elif exc.errno in (errno.ENOTDIR, errno.EEXIST):
        hint = f"move that file away, {other}"
    elif exc.errno == errno.ENOEXEC:
        hint = f"put a program for this machine there ({os.uname().machine}), {other}"
    elif exc.errno in (errno.EACCES, errno.EPERM) and folder.stat().st_uid == os.geteuid():
        hint = f"chmod u+rwx {folder}; {other}"
    elif exc.errno in (errno.EACCES, errno.EPERM):
        hint = f"run meshd as {_user(folder.stat().st_uid)}, {other}; see ls -ld {folder}"
    else:
        hint = f"see what is wrong with it, then try again: ls -la {folder}"
    return MeshError(Code.DISK_FLOOR if full else Code.BAD_STATE, title, cause, hint)


def syncfs(path: Path) -> None:
    """Write the whole filesystem of `path` to its disk: syncfs(2). Blocks. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno), str(path))
    finally:
        os.close(fd)


class Disk:
    """Group commit by `syncfs`: callers that wait while one syncfs runs share the next one.

    One syncfs makes all writes durable that were finished before it began, so a burst of pins costs few.

    `failed` says why one failed. The kernel reports a failed write once and drops the data; the next syncfs succeeds,
    and would call durable what is lost. So after a failure nothing counts as durable until meshd is restarted.
    """

    def __init__(self, *paths: Path) -> None:
        devices: dict[int, Path] = {}
        for path in paths:
            devices.setdefault(path.stat().st_dev, path)
        self._paths = list(devices.values())
        self._next: asyncio.Future[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self.failed = ""

    async def sync(self) -> None:
        """Return when every write before this call is on the disk. Raises MeshError BAD_STATE."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        mine = self._next
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="syncfs")
        await asyncio.shield(mine)

    async def _run(self) -> None:
        try:
            while self._next is not None:
                waiting, self._next = self._next, None
                try:
                    if not self.failed:  # after a failure the writes of these callers may be lost, too
                        await asyncio.to_thread(self._sync_all)
                except OSError as exc:
                    self.failed = exc.strerror or str(exc) or type(exc).__name__
                if self.failed:
                    waiting.set_exception(self._not_durable())
                    waiting.exception()  # a cancelled caller must not leave the exception unretrieved
                else:
                    waiting.set_result(None)
        finally:
            self._running = None

    def _sync_all(self) -> None:
        for path in self._paths:
            syncfs(path)

    def _not_durable(self) -> MeshError:
        return MeshError(
            Code.BAD_STATE,
            "cannot keep anything here",
            f"the disk did not take what was written ({self.failed})",
            "sudo dmesg | tail; once the disk is well: sudo systemctl restart meshd",
        )


@contextlib.contextmanager
def only_daemon(folder: Path, key: str = "state") -> Iterator[None]:
    """Lock a folder for this process alone. key: the key of [paths] that names it.

    Raises MeshError BUSY where another daemon holds it; BAD_STATE or DISK_FLOOR where nothing can be written there.
    """
    try:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise unusable(exc, f"cannot write in {folder}", f"[paths] {key}") from exc
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise MeshError(
                Code.BUSY,
                f"cannot start on {folder}",
                f"another meshd (pid {pid}) is running on this folder",
                f"stop it first (systemctl stop meshd), or name another folder in [paths] {key}",
            ) from None
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as exc:
            exc.filename = str(folder / "lock")
            raise unusable(exc, f"cannot write in {folder}", f"[paths] {key}") from exc
        yield
    finally:
        os.close(fd)
