"""What was removed and is still here. Each node keeps it for its own window and lets go by itself.

The window counts time that passed on this machine (`running`), not the wall clock's.
The record of a removal is made before the removal is acknowledged, and only a record lets content go: an empty or
damaged catalogue is not a removal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from meshd import files, wire
from meshd.errors import Code, MeshError
from meshd.model import Pin
from meshd.pins import entries, running

_KEEP_TIME_S = 3600.0  # so much ageing a machine that loses power may lose


@dataclass(frozen=True, slots=True)
class Lying:
    """A removal, and the seconds that its content has lain in this node's trash."""

    removal: wire.Removal
    age_s: float


class _Numbered(BaseModel):
    number: int
    removal: wire.Removal
    at: float = 0.0  # what the clock of this file showed when it was recorded
    gone: bool = False  # let go here; the record stays for a while, so that others do not tell it as news


class _File(BaseModel):
    """clock: seconds (see `running`), as it was in the run `boot` of the machine when that was `uptime` seconds old."""

    version: int = 1
    last: int = 0
    clock: float = 0.0
    boot: str = ""
    uptime: float = 0.0
    removals: list[_Numbered] = []


class Journal:
    """Removals that this node knows of, durable in one file. Numbers rise and are never used again."""

    def __init__(self, path: Path, read: Callable[[], running.Moment] = running.moment) -> None:
        self._path = path
        self._file = self._load()
        since = running.Moment(self._file.boot, self._file.uptime)
        self._clock = running.RunClock(self._file.clock, since, read)
        self._by_cid = {n.removal.cid: n for n in self._file.removals}
        self._writing = asyncio.Lock()
        self._written = self._file.last
        self._dirty = False

    def _load(self) -> _File:
        hint = f"move {self._path} away: what was removed then stays on this node until it is removed again"
        try:
            return _File.model_validate(files.read_json(self._path, hint=hint))
        except FileNotFoundError:
            return _File()
        except ValidationError as exc:
            raise MeshError(
                Code.BAD_STATE,
                f"cannot use {self._path}",
                "it is not a journal of removals",
                hint,
            ) from exc

    @property
    def last(self) -> int:
        """The number of the newest durable record."""
        return self._written

    def get(self, cid: str) -> wire.Removal | None:
        """The removal of an entry that can still be restored here."""
        found = self._by_cid.get(cid)
        return found.removal if found and not found.gone else None

    def knows(self, cid: str) -> bool:
        """Whether that entry's removal is recorded, also where its content went already."""
        return cid in self._by_cid

    def all(self) -> list[wire.Removal]:
        """All that can still be restored."""
        return [n.removal for n in self._by_cid.values() if not n.gone]

    def lying(self) -> list[Lying]:
        """All that can still be restored, each with its age."""
        now, _ = self._clock.now()
        return [Lying(n.removal, now - n.at) for n in self._by_cid.values() if not n.gone]

    def after(self, number: int, *, most: int = 1000) -> wire.Removals:
        """The oldest `most` records that are newer than `number`; total: the number to ask after next."""
        newer = sorted(
            (n for n in self._by_cid.values() if number < n.number <= self._written), key=lambda n: n.number
        )
        part = newer[:most]
        total = part[-1].number if len(part) < len(newer) else self._written
        return wire.Removals(removals=[n.removal for n in part], total=total)

    async def record(self, removals: Iterable[wire.Removal]) -> list[wire.Removal]:
        """Write down those that are new, and return them once they are durable. Raises MeshError DISK_FLOOR, BAD_STATE."""
        new = []
        now, _ = self._clock.now()
        for removal in removals:
            known = self._by_cid.get(removal.cid)
            if known is not None and not _says_more(removal, known.removal):
                continue
            self._file.last += 1
            self._by_cid[removal.cid] = _Numbered(number=self._file.last, removal=removal, at=now)
            self._dirty = True
            new.append(removal)
        await self._flush()
        return new

    async def drop(self, cids: Iterable[str]) -> None:
        """Forget records: the entry is back, or its content went."""
        for cid in cids:
            self._dirty |= self._by_cid.pop(cid, None) is not None
        await self._flush()

    async def drop_kept(self, pinset: Collection[str], number: int) -> None:
        """Forget records up to `number` of what is in the pinset: it was put back. Later ones are newer than the list."""
        await self.drop([c for c, n in self._by_cid.items() if c in pinset and n.number <= number])

    async def mark_gone(self, cid: str) -> None:
        """This node let the content go."""
        if (found := self._by_cid.get(cid)) is not None:
            found.gone = True
            self._dirty = True
        await self._flush()

    async def purge(self, older_s: float) -> None:
        """Forget what went, and was removed more than so many seconds ago."""
        now, _ = self._clock.now()
        await self.drop([c for c, n in self._by_cid.items() if n.gone and now - n.at > older_s])

    async def keep_time(self, *, at_once: bool = False) -> None:
        """Write down how old everything is, if that was not done for an hour: a restart of the machine goes on there.

        Not where the file was moved away, as `leave` does. Raises MeshError DISK_FLOOR, BAD_STATE.
        """
        now, _ = self._clock.now()
        if self._by_cid and (at_once or now - self._file.clock > _KEEP_TIME_S) and self._path.exists():
            self._dirty = True
            await self._flush()

    async def _flush(self) -> None:
        """Durable when it returns; many callers at once share a write."""
        async with self._writing:
            if not self._dirty:
                return
            self._dirty = False
            last = self._file.last
            self._file.removals = list(self._by_cid.values())
            self._file.clock, at = self._clock.now()
            self._file.boot, self._file.uptime = at.boot, at.uptime
            text = self._file.model_dump_json(indent=1)
            try:
                await asyncio.to_thread(files.write_durably, self._path, text)
            except BaseException as exc:
                self._dirty = True
                if isinstance(exc, OSError):
                    raise files.unusable(exc, "cannot record what was removed") from exc
                raise
            self._written = last


def _says_more(new: wire.Removal, old: wire.Removal) -> bool:
    """A later removal of the same entry, or the first one that knows who did it or that it is to go now. Pure."""
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
    """The entry that was removed, as it can be put back."""
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
    """Those whose time is over, the oldest first; under disk pressure the oldest one at least. Pure."""
    ordered = sorted(lying, key=lambda t: -t.age_s)
    over = [t for t in ordered if t.age_s >= window_s]
    return [t.removal for t in over or (ordered[:1] if pressure else [])]
