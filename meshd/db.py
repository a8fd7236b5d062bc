"""Durable state that grows, in SQLite: one file for each subject. A transaction is on the disk when it returns.

A transaction writes what changed, and not the whole file. The file is in WAL mode with synchronous=FULL: a commit is
in `NAME-wal`, synced, before it returns, and reaches the file itself later. So the two belong together
(sqlite.org/wal.html).

One process has the file open at a time (locking_mode=EXCLUSIVE, set before the first access): then SQLite needs no
`NAME-shm`, for which a full disk has no room ("Use of WAL Without Shared-Memory", ibid.).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from meshd import files
from meshd.errors import Code, MeshError

BUSY_S = 5.0  # for so long another program may lock the file
_WAL_KEPT = 4 * 1024 * 1024  # bytes that NAME-wal may keep after a checkpoint
_SHORTEST = 512  # bytes: the smallest page of SQLite

T = TypeVar("T")
Row = tuple[Any, ...]
Change = tuple[str, Iterable[Row]]
"""One SQL statement, and the parameters of each execution."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema of a file.

    what: its name for a person, "a journal of removals".
    application: marks the file as this one's (PRAGMA application_id).
    version: of `create`; a file of a newer one is refused.
    create: the SQL that makes its tables.
    lost: what a person loses without it.
    """

    what: str
    application: int
    version: int
    create: str
    lost: str


class Database:
    """One file, thread-safe: each call blocks, and calls wait for each other. `close` it; the next call reopens it.

    `create` makes the file, once there is something to write. A file that is moved away while open is made anew,
    whole.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path = path
        self._schema = schema
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] = (0, 0)  # device and inode of the open file
        self._for_reading = False  # the disk had no room to open it for writing

    def rows(self, sql: str, parameters: Row = ()) -> list[Row]:
        """The rows of a query; none where there is no file.

        Raises MeshError BAD_STATE, BUSY; DISK_FLOOR where the disk is full and the WAL cannot be read without a write.
        """
        with self._lock, self._told(f"cannot use {self.path}"):
            connection = self._opened()
            return [] if connection is None else connection.execute(sql, parameters).fetchall()

    def write(self, changes: Iterable[Change], doing: str) -> bool:
        """Commit one transaction. False where there is no file: then it writes nothing, see `create`.

        doing: "cannot ...", for the error. Raises MeshError DISK_FLOOR, BAD_STATE, BUSY; then nothing of it is done.
        """
        with self._lock, self._told(doing):
            connection = self._opened(writing=True)
            if connection is None:
                return False
            with _transaction(connection):
                for sql, each in changes:
                    connection.executemany(sql, each)
            return True

    def create(self, changes: Iterable[Change], doing: str) -> None:
        """Make the file with its first content, atomically: interrupted, there is no file. Raises as `write`."""
        temporary = files.temporary_beside(self.path)
        with self._lock, self._told(doing):
            files.remove_unfinished(self.path)
            try:
                self._build(temporary, changes)
                for end in ("-wal", "-shm"):  # of a file that was moved away: else taken for this one's
                    self.path.with_name(self.path.name + end).unlink(missing_ok=True)
                files.sync_directory(self.path.parent)
                temporary.rename(self.path)
            finally:
                temporary.unlink(missing_ok=True)
            files.sync_directory(self.path.parent)
            self._opened()

    def close(self) -> None:
        """Close the file. All is in the one file then, unless another program has it open."""
        with self._lock:
            self._let_go()

    def _build(self, temporary: Path, changes: Iterable[Change]) -> None:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.close(fd)
        with contextlib.closing(_connect(temporary, "mode=rw")) as connection:
            connection.execute("PRAGMA journal_mode=OFF")  # readers see the file only once it is whole
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute(f"PRAGMA application_id={self._schema.application}")
            connection.execute(f"PRAGMA user_version={self._schema.version}")
            with _transaction(connection):
                for statement in filter(str.strip, self._schema.create.split(";")):
                    connection.execute(statement)
                for sql, each in changes:
                    connection.executemany(sql, each)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())

    def _opened(self, *, writing: bool = False) -> sqlite3.Connection | None:
        """The open connection; None where there is no file. writing: reopen one that is open for reading alone."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            self._let_go()
            return None
        here = (stat.st_dev, stat.st_ino)
        if self._connection is not None and self._file == here and not (writing and self._for_reading):
            return self._connection
        self._let_go()
        if stat.st_size == 0:  # SQLite would take it for a new database
            raise self.damaged("the file is empty")
        if stat.st_size < _SHORTEST and self.path.is_file():  # and would read the missing bytes as zeros
            raise self.damaged("the file is damaged (it is cut off)")
        try:
            self._connection, self._for_reading = self._open(), False
        except sqlite3.Error as exc:
            if writing or not self._lacks_room(exc) or not self._is_one_file():
                raise
            self._connection, self._for_reading = self._open_for_reading(), True
        self._file = here
        return self._connection

    def _open(self) -> sqlite3.Connection:
        return _open_alone(self.path, self._check, synchronous="FULL")

    def _open_for_reading(self) -> sqlite3.Connection:
        """Open it without touching any file beside it: see `_is_one_file`."""
        connection = _connect(self.path, "mode=ro&immutable=1")
        try:
            self._check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_one_file(self) -> bool:
        """Whether the file itself holds every commit."""
        beside = (self.path.with_name(self.path.name + end) for end in ("-wal", "-journal"))
        return not any(path.exists() and path.stat().st_size > 0 for path in beside)

    def _check(self, connection: sqlite3.Connection) -> None:
        """Check that the file is this schema's and sound. Raises MeshError BAD_STATE."""
        [[application]] = connection.execute("PRAGMA application_id").fetchall()
        if application != self._schema.application:
            raise self.damaged(f"it is not {self._schema.what}")
        [[version]] = connection.execute("PRAGMA user_version").fetchall()
        if version > self._schema.version:
            raise MeshError(
                Code.BAD_STATE,
                f"cannot use {self.path}",
                f"a newer meshd wrote it (format {version}; this one reads {self._schema.version})",
                "install the meshd that this machine had before, or a newer one",
            )
        [[found]] = connection.execute("PRAGMA quick_check(1)").fetchall()
        if found != "ok":
            raise self.damaged(f"the file is damaged ({' '.join(str(found).split())})")

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def damaged(self, cause: str) -> MeshError:
        """The error for a damaged file: what is wrong with it, and how to go on without it."""
        hint = f"move {self.path} away, and {self.path.name}-wal with it if there is one: {self._schema.lost}"
        return MeshError(Code.BAD_STATE, f"cannot use {self.path}", cause, hint)

    @contextlib.contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """Translate errors of SQLite and the kernel into MeshError."""
        try:
            yield
        except sqlite3.Error as exc:
            raise self._refused(exc, doing) from exc
        except OSError as exc:
            raise files.unusable(exc, doing) from exc

    def _lacks_room(self, exc: sqlite3.Error) -> bool:
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        # SQLite reports the second and the third also where a file beside it cannot grow, or cannot be made.
        unclear = code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
        return code == sqlite3.SQLITE_FULL or (unclear and _is_full(self.path.parent))

    def _refused(self, exc: sqlite3.Error, doing: str) -> MeshError:
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF  # the upper bits refine it
        folder = self.path.parent
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return self.damaged(f"the file is damaged ({exc})")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return MeshError(
                Code.BUSY,
                doing,
                f"another program holds {self.path} ({exc})",
                f"see which one, and end it: fuser -v {self.path}",
            )
        if self._lacks_room(exc):
            return MeshError(
                Code.DISK_FLOOR,
                doing,
                f"there is no room for {self.path} ({exc})",
                f"make room, then try again: df -h {folder}; df -i {folder}",
            )
        return MeshError(
            Code.BAD_STATE,
            doing,
            f"{self.path} cannot be read or written ({exc})",
            f"see what is wrong with it, then try again: ls -la {folder}; sudo dmesg | tail",
        )


class Discarded(Exception):  # noqa: N818 - it says what was done about the error, which is its cause
    """The cache could not be used and was thrown away; it is empty now."""


class Cache:
    """A cache in one file, of what can be read anew elsewhere. Thread-safe: calls block, and wait for each other.

    A file that is damaged or of another version is discarded and made anew. Where none can be made, or it fails later
    (a full disk), the cache is in memory until the next start. synchronous=NORMAL: after a power cut the file is
    consistent, and may lack the last transactions.
    """

    def __init__(self, path: Path | None, schema: Schema) -> None:
        """path: None for a cache in memory."""
        self._path = path
        self._schema = schema
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run one transaction. Raises Discarded where the file fails meanwhile: the caller must fill the cache anew."""
        with self._lock:
            if self._connection is None:
                self._connection = self._open()
            try:
                with _transaction(self._connection):
                    return work(self._connection)
            except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
                raise  # a bug of the caller
            except sqlite3.Error as exc:
                self._discard()
                raise Discarded(str(exc)) from exc

    def close(self) -> None:
        """Close the file. The next call reopens it."""
        with self._lock:
            self._let_go()

    @property
    def in_memory(self) -> bool:
        return self._path is None

    def _open(self) -> sqlite3.Connection:
        """Open the file as it was left; else an empty one."""
        for attempt in (self._open_file, self._make_file):
            if self._path is not None:
                with contextlib.suppress(sqlite3.Error, OSError):
                    return attempt(self._path)
        self._path = None
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._fill(connection)
        return connection

    def _open_file(self, path: Path) -> sqlite3.Connection:
        """Open an existing file. Raises sqlite3.Error, OSError where there is none that can be used."""
        return _open_alone(path, self._check, synchronous="NORMAL")

    def _check(self, connection: sqlite3.Connection) -> None:
        [[application]] = connection.execute("PRAGMA application_id").fetchall()
        [[version]] = connection.execute("PRAGMA user_version").fetchall()
        [[found]] = connection.execute("PRAGMA quick_check(1)").fetchall()
        if (application, version, found) != (self._schema.application, self._schema.version, "ok"):
            raise sqlite3.DatabaseError("it is damaged, or of another version")

    def _make_file(self, path: Path) -> sqlite3.Connection:
        """Make a new file in place of any old one. Raises sqlite3.Error, OSError."""
        _unlink_database(path)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with contextlib.closing(_connect(path, "mode=rw")) as connection:
            self._fill(connection)
        return self._open_file(path)

    def _fill(self, connection: sqlite3.Connection) -> None:
        marks = (
            f"PRAGMA application_id={self._schema.application}; PRAGMA user_version={self._schema.version}"
        )
        connection.executescript(f"BEGIN; {self._schema.create}; {marks}; COMMIT")

    def discard(self) -> None:
        """Discard the content, as it is wrong."""
        with self._lock:
            self._discard()

    def _discard(self) -> None:
        """Go on in memory: what failed once would fail again, and each time all of it would be read anew."""
        self._let_go()
        path, self._path = self._path, None
        if path is not None:
            with contextlib.suppress(OSError):  # then the next start finds it, and checks it
                _unlink_database(path)

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(
                sqlite3.Error
            ):  # it is discarded, or compared with its source at the next start
                connection.close()


def _unlink_database(path: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def _connect(path: Path, how: str) -> sqlite3.Connection:
    """Connect to an existing file, in autocommit mode. how: see sqlite.org/uri.html."""
    return sqlite3.connect(
        f"file:{quote(str(path))}?{how}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,  # one lock serves all threads
    )


def _open_alone(
    path: Path, check: Callable[[sqlite3.Connection], None], *, synchronous: Literal["FULL", "NORMAL"]
) -> sqlite3.Connection:
    """Connect to an existing file that no other process may use meanwhile. Raises what `check` raises of its content."""
    connection = _connect(path, "mode=rw")
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        check(connection)
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"PRAGMA journal_size_limit={_WAL_KEPT}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # the first error is the one to report
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise


def _is_full(folder: Path) -> bool:
    try:
        stat = os.statvfs(folder)
    except OSError:
        return False
    return stat.f_bavail == 0 or (stat.f_files > 0 and stat.f_favail == 0)
