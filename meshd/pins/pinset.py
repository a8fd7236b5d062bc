"""The pinset in memory: one reader of the cluster's list, which everybody else asks.

Reading the whole list costs 25 µs an entry, and 5 µs where it was read before (measured with 100,000). So it is not read while
the cluster's datastore says that nothing was written, and a large one that changes again and again is not read for every question
(see `allowed_age`). In between each look at a single record is taken over, so whoever has pinned or
removed here finds the change at once. What deletes data does not go by this alone: it looks at each record anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from meshd.cluster.datastore import Datastore, Mark
from meshd.cluster.rest import Cluster, parse_pin
from meshd.model import Pin
from meshd.pins import entries
from meshd.pins.entries import NumberedPin

Key = tuple[str, float, str]
"""Where an entry stands in the list: its name, its time (negative: the newest first), its CID."""

SMALL = 1000  # entries; a list up to that is read for every question
_OLDEST_S = 10.0  # so old a large one may be
_SETTLED_S = (
    1.0  # after the last write the cluster surely shows what it wrote: it writes first, and shows it then
)
_STEP = 2000  # entries between which others have their turn in the event loop
_PATCH_MOST = 200  # changes that are put into the list; for more of them it is sorted anew


def key_of(pin: Pin) -> Key:
    return (pin.name, -pin.time, pin.cid)


def allowed_age(count: int, took_s: float) -> float:
    """Seconds that a list of `count` entries may be old; took_s: what reading it took. Pure.

    So reading takes a tenth of the time at most, however often it is asked for.
    """
    return 0.0 if count <= SMALL else min(_OLDEST_S, 10 * took_s)


class PinsetSnapshot:
    """The pinset at one moment, never changed. pins: by CID. at: when reading it began, on the monotonic clock. size: bytes of all
    entries. owners: how many entries each fingerprint has. size, owners and `here` cost nothing."""

    __slots__ = ("_allocated", "_keys", "at", "owners", "pins", "size")

    def __init__(self, pins: dict[str, Pin], keys: list[Key], at: float) -> None:
        """keys: of all pins, sorted."""
        self.pins = pins
        self.at = at
        self._keys = keys
        self.size = 0
        self.owners: Counter[str] = Counter()
        # Cluster id -> entries that name it; "": those that name none.
        self._allocated: Counter[str] = Counter()

    def count(self, pins: Iterable[Pin], sign: int = 1) -> None:
        """Only while it is made: take these into the sums."""
        for pin in pins:
            self.size += sign * pin.size
            self.owners[pin.owner] += sign
            for peer in pin.allocations or ("",):
                self._allocated[peer] += sign

    def patched(self, changes: dict[str, Pin | None], at: float) -> PinsetSnapshot:
        """The same, as of `at`, with these entries as they are given, or without them."""
        if not changes:
            pins, keys = self.pins, self._keys
        else:
            pins, keys = dict(self.pins), list(self._keys)
        new = PinsetSnapshot(pins, keys, at)
        new.size, new.owners, new._allocated = self.size, self.owners.copy(), self._allocated.copy()
        for cid, pin in changes.items():
            old = pins.pop(cid, None)
            if old is not None:
                del keys[bisect_left(keys, key_of(old))]
                new.count([old], -1)
            if pin is not None:
                pins[cid] = pin
                insort(keys, key_of(pin))
                new.count([pin])
        return new

    def __len__(self) -> int:
        return len(self.pins)

    def here(self, cluster_id: str) -> int:
        """How many entries that node shall hold."""
        return self._allocated[cluster_id] + self._allocated[""]

    def keys(self, after: Key | None = None) -> Iterator[Key]:
        """In the order of the list, those behind `after`, whether that is still there or not."""
        start = bisect_right(self._keys, after) if after is not None else 0
        return itertools.islice(self._keys, start, None)

    def numbered(self, key: Key) -> NumberedPin:
        """The entry that stands there, and its number among those of its name."""
        version = bisect_left(self._keys, key) - bisect_left(self._keys, (key[0],)) + 1
        return NumberedPin(self.pins[key[2]], version)

    def resolve(self, reference: str) -> NumberedPin:
        """The entry that a person means, as `entries.resolve`. Raises MeshError NOT_FOUND."""
        names = set(entries.names_meant(reference))
        if (pin := self.pins.get(reference)) is not None:
            names.add(pin.name)
        return entries.resolve(reference, (pin for name in names for pin in self._named(name)))

    def _named(self, name: str) -> Iterator[Pin]:
        for index in range(bisect_left(self._keys, (name,)), len(self._keys)):
            if self._keys[index][0] != name:
                return
            yield self.pins[self._keys[index][2]]


class Pinset:
    """`read` it, or `look` at one record. `stop` it before the cluster's client is closed."""

    def __init__(self, cluster: Cluster, datastore: Datastore) -> None:
        """datastore: the cluster's."""
        self._cluster = cluster
        self._datastore = datastore
        self._mark: Mark | None = None  # of the datastore, as it was seen last
        self._mark_since = 0.0  # when it was first seen so, on the monotonic clock
        self._read_at: Mark | None = None  # what the list was read at, where it was settled by then
        cluster.listeners.append(self._seen)
        self._snapshot: PinsetSnapshot | None = None
        self._took = 0.0
        self._lines: dict[bytes, Pin] = {}  # digest of a record as it came -> what it says
        self._reading: asyncio.Task[None] | None = None
        self._looks: dict[str, tuple[float, Pin | None]] = {}  # cid -> when it was asked, what was said

    async def read(self, *, anew: bool = False) -> PinsetSnapshot:
        """Every entry. anew: as it is now, also where the list is large. Many callers share one reading.

        Raises MeshError NOT_READY, ENGINE_FAILED: also where nothing was written since the last reading, and the cluster is down.
        """
        asked = time.monotonic()
        before = self._snapshot
        if before is not None and await self._unmoved() and self._snapshot is before:
            asked = before.at
        while (found := self._fit(0.0 if anew else None, asked)) is None:
            if self._reading is None or self._reading.done():  # awaiting that one would go round for ever
                self._reading = asyncio.create_task(self._refresh(), name="read-pinset")
                self._reading.add_done_callback(_retrieve)
            await asyncio.shield(self._reading)
        return found

    def last(self, age_s: float) -> PinsetSnapshot | None:
        """What was read last, if that is no older than so many seconds."""
        return self._fit(age_s, time.monotonic())

    async def look(self, cid: str) -> Pin | None:
        """One record as it is now. Raises MeshError."""
        return await self._cluster.allocation(cid)

    async def allocations(self) -> list[Pin]:
        """Every entry, in no order."""
        return list((await self.read()).pins.values())

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def _unmoved(self) -> bool:
        """Whether the cluster answers, and has written nothing since the list was read. Raises MeshError."""
        if self._read_at is None:
            return False
        await self._cluster.version()  # before the look: what it has shown to anybody by now, it has written
        return await self._look_at_datastore() == self._read_at

    async def _look_at_datastore(self) -> Mark | None:
        mark = await asyncio.to_thread(self._datastore.mark)
        if mark != self._mark:
            self._mark, self._mark_since = mark, time.monotonic()
        return mark

    def _fit(self, age_s: float | None, asked: float) -> PinsetSnapshot | None:
        """The list with all that was seen since; None where it is too old, or too much was seen."""
        snapshot = self._snapshot
        if snapshot is None:
            return None
        allowed = allowed_age(len(snapshot), self._took) if age_s is None else age_s
        if snapshot.at < asked - allowed:
            return None
        changes = {
            cid: pin
            for cid, (when, pin) in self._looks.items()
            if when >= snapshot.at and snapshot.pins.get(cid) != pin
        }
        if len(changes) > _PATCH_MOST and snapshot.at < asked:
            return None
        if changes:
            snapshot = self._snapshot = snapshot.patched(changes, snapshot.at)
        return snapshot

    def _seen(self, cid: str, pin: Pin | None, asked: float) -> None:
        """One record was looked at; asked: when. The latest question counts."""
        if asked >= self._looks.get(cid, (0.0, None))[0]:
            self._looks[cid] = (asked, pin)

    async def _refresh(self) -> None:
        """Read the list. A record that came before just so is not parsed again, nor is the list sorted anew for a few changes."""
        mark = await self._look_at_datastore()
        at, before = time.monotonic(), self._snapshot or PinsetSnapshot({}, [], 0.0)
        pins: dict[str, Pin] = {}
        lines: dict[bytes, Pin] = {}
        changes: dict[str, Pin | None] = {}
        same: dict[str, str] = {}
        async with contextlib.aclosing(self._cluster.records()) as records:
            async for line in records:
                digest = blake2b(line, digest_size=16).digest()
                pin = self._lines.get(digest) or _shared(parse_pin(json.loads(line)), same)
                lines[digest] = pins[pin.cid] = pin
                if before.pins.get(pin.cid) is not pin:
                    changes[pin.cid] = pin
        if len(pins) != len(before) + sum(cid not in before.pins for cid in changes):
            changes |= dict.fromkeys(before.pins.keys() - pins.keys())
        if len(changes) <= _PATCH_MOST:
            snapshot = before.patched(changes, at)
        else:
            snapshot = await _sorted(pins, at)
        self._lines, self._snapshot, self._took = lines, snapshot, time.monotonic() - at
        self._read_at = mark if at - self._mark_since >= _SETTLED_S else None
        self._looks = {c: look for c, look in self._looks.items() if look[0] >= at}


def _retrieve(task: asyncio.Task[None]) -> None:
    """Whoever waits has the task's error, and maybe nobody does any more."""
    if not task.cancelled():
        task.exception()


def _shared(pin: Pin, same: dict[str, str]) -> Pin:
    """The same, with the texts that many entries have not once for each of them."""
    return Pin(
        cid=pin.cid,
        name=pin.name,
        owner=same.setdefault(pin.owner, pin.owner),
        root=pin.root,
        size=pin.size,
        time=pin.time,
        wanted=pin.wanted,
        directory=pin.directory,
        allocations=tuple(same.setdefault(peer, peer) for peer in pin.allocations),
        files=pin.files,
    )


async def _sorted(pins: dict[str, Pin], at: float) -> PinsetSnapshot:
    """A list of these, made in steps: one sort of 100,000 keys would hold up the event loop, in a thread too."""
    every = list(pins.values())
    runs: list[list[Key]] = []
    parts = [every[n : n + _STEP] for n in range(0, len(every), _STEP)]
    snapshot = PinsetSnapshot(pins, [], at)
    for part in parts:
        runs.append(sorted(key_of(pin) for pin in part))
        snapshot.count(part)
        await asyncio.sleep(0)
    while len(runs) > 1:
        merged = []
        for n in range(0, len(runs), 2):
            # sorted() finds the runs and merges them.
            merged.append(sorted([k for run in runs[n : n + 2] for k in run]))
            await asyncio.sleep(0)
        runs = merged
    snapshot._keys.extend(runs[0] if runs else ())
    return snapshot
