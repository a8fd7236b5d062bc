"""The one place that writes state: atomic, durable, private."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from meshd.errors import Code, MeshError

_libc = ctypes.CDLL(None, use_errno=True)


def write_durably(path: Path, data: bytes | str, *, mode: int = 0o600) -> None:
    """Replace `path` by `data` so that after a power cut either the old or the new content is there.

    Temporary file, fsync, rename, fsync of the directory. Raises OSError.
    """
    write_atomically(path, data, mode=mode, sync=True)
    sync_directory(path.parent)


def write_atomically(path: Path, data: bytes | str, *, mode: int = 0o600, sync: bool = False) -> None:
    """Replace `path` by `data` so that a reader, or a kill -9, sees the old or the new content. Raises OSError.

    Without `sync` a later syncfs makes it durable.
    """
    raw = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(raw)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def write_json(path: Path, value: object, *, mode: int = 0o600) -> None:
    """`write_durably` of `value` as indented JSON."""
    write_durably(path, json.dumps(value, indent=1, sort_keys=True) + "\n", mode=mode)


def read_json(path: Path) -> object:
    """The JSON in `path`. Raises FileNotFoundError, and MeshError BAD_STATE where it is not JSON."""
    raw = path.read_bytes()
    try:
        return json.loads(raw)
    except ValueError as exc:
        what = "is empty" if not raw else f"is damaged ({exc})"
        raise MeshError(
            Code.BAD_STATE,
            f"cannot use {path}",
            f"the file {what}",
            f"restore it from a backup; or move {path.parent} away and join the mesh again as a new node",
        ) from exc


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def private_directory(path: Path) -> Path:
    """Make `path` (and its parents) and see that nobody else may enter it (0700)."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def prepare_folders(state: Path, run: Path, private: Path) -> None:
    """Make the daemon's folders: `run` may be entered by all, the others by its user alone.

    Raises MeshError BAD_STATE that names the one which cannot be used.
    """
    try:
        private_directory(state)
        run.mkdir(parents=True, exist_ok=True, mode=0o755)
        private_directory(private)
    except OSError as exc:
        raise MeshError(
            Code.BAD_STATE,
            f"cannot use {exc.filename}",
            exc.strerror or str(exc),
            "run meshd as the folder's owner, or name other folders in [paths] of the configuration",
        ) from exc


def syncfs(path: Path) -> None:
    """Write everything of the filesystem that holds `path` to its disk: syncfs(2). Blocks. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno), str(path))
    finally:
        os.close(fd)


class Disk:
    """`syncfs` for many callers at once: those who wait while one runs share the next one.

    One syncfs makes all writes durable that were finished before it began, so a burst of pins costs few.
    """

    def __init__(self, *paths: Path) -> None:
        devices: dict[int, Path] = {}
        for path in paths:
            devices.setdefault(path.stat().st_dev, path)
        self._paths = list(devices.values())
        self._next: asyncio.Future[None] | None = None
        self._running: asyncio.Task[None] | None = None

    async def sync(self) -> None:
        """Return when everything written before this call is on the disk. Raises OSError."""
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
                    await asyncio.to_thread(self._sync_all)
                except OSError as exc:
                    waiting.set_exception(exc)
                    waiting.exception()  # a caller that was cancelled must not leave it unread
                else:
                    waiting.set_result(None)
        finally:
            self._running = None

    def _sync_all(self) -> None:
        for path in self._paths:
            syncfs(path)


@contextlib.contextmanager
def only_daemon(state: Path) -> Iterator[None]:
    """Hold the state folder for this process alone. Raises MeshError BUSY where another daemon holds it."""
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise MeshError(
                Code.BUSY,
                f"cannot start on {state}",
                f"another meshd (pid {pid}) is running on this folder",
                "stop it first (systemctl stop meshd), or name another folder in [paths] state",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
