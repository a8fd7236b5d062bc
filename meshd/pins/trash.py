"""The trash: soft deletion. Each node keeps removed content for its own retention time, and unpins it by itself.

The retention time counts this machine's uptime (`uptime_clock`), not the wall clock. A removal is recorded before it
is acknowledged, and only with a record is content unpinned: an empty or damaged catalogue is no removal.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

from meshd import db, wire
from meshd.errors import Code, MeshError
from meshd.model import Pin
from meshd.pins import entries, journal_json, uptime_clock

_KEEP_TIME_S = 3600.0  # a power cut may cost so much ageing
_LOG = structlog.get_logger(part="trash")


@dataclass(frozen=True, slots=True)
class Lying:
    """A removal, and its age: the seconds of its content in this node's trash."""

    removal: wire.Removal
    age_s: float


@dataclass(slots=True)
class _Record:
    """at: the journal's clock when it was recorded. gone: unpinned here; the record stays for a while, as a tombstone,
    so that others do not report it again.
    """

    number: int
    removal: wire.Removal
    at: float = 0.0
    gone: bool = False


@dataclass(frozen=True, slots=True)
class _Clock:
    """last: the highest number ever assigned. seconds: `uptime_clock`'s value at `since`."""

    last: int = 0
    seconds: float = 0.0
    since: uptime_clock.Moment | None = None


@dataclass(frozen=True, slots=True)
class _Untaken:
    """A pending migration of an older meshd's journal. changes: those that bring it into the database.

    Nothing else is written before: a record that was dropped meanwhile would come back from the old file.
    """

    old: Path
    changes: list[db.Change]


_SCHEMA = db.Schema(
    what="a journal of removals",
    application=0x6D736874,  # "msht"
    version=1,
    create="""
    CREATE TABLE removals (
        cid TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, at REAL NOT NULL, gone INTEGER NOT NULL, removal TEXT NOT NULL
    );
    CREATE TABLE clock (
        one INTEGER PRIMARY KEY CHECK (one = 1), last INTEGER NOT NULL, seconds REAL NOT NULL, boot TEXT NOT NULL,
        uptime REAL NOT NULL
    )
    """,
    lost="what was removed then stays on this node until it is removed again",
)
_PUT = """
    INSERT INTO removals (cid, number, at, gone, removal) VALUES (?, ?, ?, ?, ?) ON CONFLICT (cid) DO UPDATE SET
    number = excluded.number, at = excluded.at, gone = excluded.gone, removal = excluded.removal
"""
_DROP = "DELETE FROM removals WHERE cid = ?"
_SET_CLOCK = "INSERT OR REPLACE INTO clock (one, last, seconds, boot, uptime) VALUES (1, ?, ?, ?, ?)"
_DOING = "cannot record what was removed"


class Journal:
    """The journal of removals that this node knows, durable in one SQLite file. Numbers rise and are never reused.

    All records are in memory, in the order of their numbers; a change writes its own rows only.
    """

    def __init__(self, path: Path, read: Callable[[], uptime_clock.Moment] = uptime_clock.moment) -> None:
        """Blocks: reads the file, and migrates the journal of meshd 0.1 beside it, or later where there is no room
        now.
        Raises MeshError BAD_STATE, BUSY; DISK_FLOOR where a full disk does not let the file be read.
        """
        self._db = db.Database(path, _SCHEMA)
        old = journal_json.path_beside(path)
        before = journal_json.read(old)
        self._changed: set[str] = set()  # records that differ from the file's
        self._writing = asyncio.Lock()
        self._untaken: _Untaken | None = None
        self._taking = threading.Lock()
        with contextlib.ExitStack() as undo:
            undo.callback(self._db.close)  # nobody else could open it
            self._by_cid, clock = self._load()
            if before is not None and not self._by_cid and clock == _Clock():
                clock = _Clock(seconds=before.clock, since=uptime_clock.Moment(before.boot, before.uptime))
            self._clock = uptime_clock.UptimeClock(clock.seconds, clock.since, read)
            self._kept_at = clock.seconds  # what the file says that the clock showed
            self._last = clock.last
            if before is not None:
                self._take_over(before, old, read)
            undo.pop_all()
        self._written = self._last  # durable, in the one file or the other

    def _load(self) -> tuple[dict[str, _Record], _Clock]:
        try:
            found = self._db.rows("SELECT number, at, gone, removal FROM removals ORDER BY number")
            clocks = self._db.rows("SELECT last, seconds, boot, uptime FROM clock")
            records = [
                _Record(int(number), wire.Removal.model_validate_json(removal), float(at), bool(gone))
                for number, at, gone, removal in found
            ]
            clock = _Clock()
            for last, seconds, boot, uptime in clocks:
                clock = _Clock(int(last), float(seconds), uptime_clock.Moment(str(boot), float(uptime)))
        except (ValueError, TypeError) as exc:  # pydantic's error is a ValueError
            raise self._db.damaged(f"it is not {_SCHEMA.what}") from exc
        return {r.removal.cid: r for r in records}, clock

    def _take_over(
        self, before: journal_json.File, old: Path, read: Callable[[], uptime_clock.Moment]
    ) -> None:
        """Migrate an old file in one transaction. Interrupted after it, the next start finds nothing new in the file.

        Without room for that the old file stays, and each start assigns its records the same numbers until there is.
        """
        then, _ = uptime_clock.UptimeClock(
            before.clock, uptime_clock.Moment(before.boot, before.uptime), read
        ).now()
        now, _ = self._clock.now()
        shift, first = now - then, self._last
        for n in sorted(before.removals, key=lambda n: n.number):
            known = self._by_cid.get(n.removal.cid)
            if known is None or _says_more(n.removal, known.removal):
                self._put(_Record(first + n.number, n.removal, n.at + shift, n.gone))
        if self._changed or not first:
            self._last = first + max([before.last, *(n.number for n in before.removals)])
        self._untaken = _Untaken(old, self._changes(self._changed))
        self._changed.clear()
        try:
            self._finish_take_over()
        except MeshError as exc:
            if exc.code is not Code.DISK_FLOOR:
                raise
            _LOG.warning("cannot take over what was removed yet", file=str(old), error=str(exc))

    def _finish_take_over(self) -> None:
        """Blocks; thread-safe. Raises MeshError DISK_FLOOR, BAD_STATE, BUSY: then the old file still exists."""
        with self._taking:
            if self._untaken is None:
                return
            changes = self._untaken.changes
            if not self._db.write(changes, _DOING):
                self._db.create(changes, _DOING)
            journal_json.remove(self._untaken.old)
            self._untaken = None

    def close(self) -> None:
        """Close the file. Blocks. All is in the one file then; a later change reopens it."""
        self._db.close()

    @property
    def last(self) -> int:
        """The number of the newest durable record."""
        return self._written

    def get(self, cid: str) -> wire.Removal | None:
        """The removal of an entry that can still be restored here."""
        found = self._by_cid.get(cid)
        return found.removal if found and not found.gone else None

    def knows(self, cid: str) -> bool:
        """Whether that entry's removal is recorded, even where its content is unpinned already."""
        return cid in self._by_cid

    def cids(self) -> list[str]:
        """The CIDs of all recorded removals."""
        return list(self._by_cid)

    def all(self) -> list[wire.Removal]:
        """All removals that can still be restored."""
        return [n.removal for n in self._by_cid.values() if not n.gone]

    def lying(self) -> list[Lying]:
        """All removals that can still be restored, each with its age."""
        now, _ = self._clock.now()
        return [Lying(n.removal, now - n.at) for n in self._by_cid.values() if not n.gone]

    def after(self, number: int, *, most: int = 1000) -> wire.Removals:
        """The oldest `most` records that are newer than `number`; total: the number to ask after next."""
        newer = [n for n in self._by_cid.values() if number < n.number <= self._written]
        part = newer[:most]
        total = part[-1].number if len(part) < len(newer) else self._written
        return wire.Removals(removals=[n.removal for n in part], total=total)

    async def record(self, removals: Iterable[wire.Removal]) -> list[wire.Removal]:
        """Record the new ones among these, and return them once they are durable.

        Raises MeshError DISK_FLOOR, BAD_STATE, BUSY.
        """
        new = []
        now, _ = self._clock.now()
        for removal in removals:
            known = self._by_cid.get(removal.cid)
            if known is not None and not _says_more(removal, known.removal):
                continue
            self._last += 1
            self._put(_Record(self._last, removal, now))
            new.append(removal)
        await self._flush()
        return new

    def _put(self, record: _Record) -> None:
        cid = record.removal.cid
        self._by_cid.pop(cid, None)  # the newest number is the last one
        self._by_cid[cid] = record
        self._changed.add(cid)

    async def drop(self, cids: Iterable[str]) -> None:
        """Drop records: the entry is back, or its content is unpinned."""
        for cid in cids:
            if self._by_cid.pop(cid, None) is not None:
                self._changed.add(cid)
        await self._flush()

    async def drop_kept(self, pinset: Collection[str], number: int) -> None:
        """Drop records up to `number` of what is in the pinset, as put back. Later ones are newer than the list."""
        await self.drop([c for c, n in self._by_cid.items() if c in pinset and n.number <= number])

    async def mark_gone(self, *cids: str) -> None:
        """Record that this node has unpinned these. One transaction."""
        for cid in cids:
            if (found := self._by_cid.get(cid)) is not None and not found.gone:
                found.gone = True
                self._changed.add(cid)
        await self._flush()

    async def purge(self, older_s: float) -> None:
        """Drop records of what is unpinned, and was removed more than so many seconds ago."""
        now, _ = self._clock.now()
        await self.drop([c for c, n in self._by_cid.items() if n.gone and now - n.at > older_s])

    async def keep_time(self, *, at_once: bool = False) -> None:
        """Store the clock, at most once an hour: after a reboot it continues there. And finish a pending migration.

        Does nothing where the file was moved away, as `leave` does. Raises MeshError DISK_FLOOR, BAD_STATE, BUSY.
        """
        if self._untaken is not None and self._untaken.old.exists():
            try:
                await self._flush(clock=True)
            except MeshError as exc:
                if exc.code is not Code.DISK_FLOOR:  # that is no news
                    raise
            return
        now, _ = self._clock.now()
        if self._by_cid and (at_once or now - self._kept_at > _KEEP_TIME_S) and self._db.path.exists():
            await self._flush(clock=True)

    async def _flush(self, *, clock: bool = False) -> None:
        """Write all changes, durably. Concurrent callers share a transaction. clock: write it even without changes."""
        async with self._writing:
            if not self._changed and not clock:
                return
            if self._untaken is not None:
                await asyncio.to_thread(self._finish_take_over)
            changed, self._changed = self._changed, set()
            last, kept_at = self._last, self._clock.now()[0]
            try:
                if not await asyncio.to_thread(self._db.write, self._changes(changed), _DOING):
                    await asyncio.to_thread(self._create, list(self._by_cid))
            except BaseException:
                self._changed |= changed
                raise
            self._written, self._kept_at = last, kept_at

    def _create(self, cids: list[str]) -> None:
        self._db.create(self._changes(cids), _DOING)

    def _changes(self, cids: Iterable[str]) -> list[db.Change]:
        """The changes that bring the file up to date for these records."""
        known = [(cid, self._by_cid.get(cid)) for cid in cids]
        seconds, at = self._clock.now()
        return [
            (_DROP, [(cid,) for cid, record in known if record is None]),
            (
                _PUT,
                [
                    (cid, r.number, r.at, int(r.gone), r.removal.model_dump_json())
                    for cid, r in known
                    if r is not None
                ],
            ),
            (_SET_CLOCK, [(self._last, seconds, at.boot, at.uptime)]),
        ]


def _says_more(new: wire.Removal, old: wire.Removal) -> bool:
    """Whether a removal adds to a known one: it is later, or the first to know who did it, or that it is urgent."""
    return (
        (new.time > old.time + 1.0 and bool(new.by))
        or (bool(new.by) and not old.by)
        or (new.now and not old.now)
    )


def removal_of(pin: Pin, by: str, *, now: bool = False) -> wire.Removal:
    """The record of `pin`'s removal by the node with fingerprint `by`."""
    return wire.Removal(
        cid=pin.cid,
        time=time.time(),
        by=by,
        name=pin.name,
        owner=pin.owner,
        root=pin.root,
        size=pin.size,
        files=pin.files,
        directory=pin.directory,
        entry_time=pin.time,
        wanted=pin.wanted,
        now=now,
    )


def pin_of(removal: wire.Removal) -> Pin:
    """The removed entry, as a pin to put back."""
    return Pin(
        cid=removal.cid,
        name=removal.name or removal.cid,
        owner=removal.owner,
        root=removal.root or removal.cid,
        size=removal.size,
        time=removal.entry_time,
        wanted=removal.wanted,
        directory=removal.directory,
        files=removal.files,
    )


def view(lying: Iterable[Lying], window_s: float, name_of: Callable[[str], str]) -> list[wire.TrashEntry]:
    """The trash as the API shows it, the newest removal first; versions count within the trash.

    expires: by the wall clock, if the machine runs until then.
    """
    by_cid = {t.removal.cid: t for t in lying}
    now = time.time()
    shown = []
    for n in entries.number(pin_of(t.removal) for t in by_cid.values()):
        removal, age_s = by_cid[n.pin.cid].removal, by_cid[n.pin.cid].age_s
        shown.append(
            wire.TrashEntry(
                cid=n.pin.cid,
                name=n.pin.name,
                version=n.version,
                owner=name_of(n.pin.owner) if n.pin.owner else "unknown",
                root=n.pin.root,
                size=n.pin.size,
                directory=n.pin.directory,
                time=n.pin.time,
                removed=removal.time,
                removed_by=name_of(removal.by) if removal.by else "unknown",
                expires=now + window_s - age_s,
            )
        )
    return sorted(shown, key=lambda t: -t.removed)


def due(lying: Iterable[Lying], window_s: float, *, pressure: bool) -> list[wire.Removal]:
    """The removals whose retention time is over, the oldest first; under disk pressure the oldest at least. Pure."""
    ordered = sorted(lying, key=lambda t: -t.age_s)
    over = [t for t in ordered if t.age_s >= window_s]
    return [t.removal for t in over or (ordered[:1] if pressure else [])]
