"""The index of the catalogue: every entry of the cluster's list in SQLite, sorted, counted and searchable.

It is a cache of the cluster's list (`pinset.py` keeps it up to date): a file that is lost or damaged is rebuilt from
that, so it need not survive a power cut whole (`db.Cache`). It bounds memory: long results come in pages.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from meshd import db
from meshd.model import Pin, Replicas, parse_wanted
from meshd.pins import index_rows as rows
from meshd.pins.entries import NumberedPin

Key = tuple[str, float, str]
"""The sort key of an entry in the list: its name, its time (negative: the newest first), its CID."""

Order = Literal["name", "newest"]

PART = rows.PART

_ORDERS: Mapping[Order, tuple[int, int, int]] = {"name": (0, 1, 2), "newest": (1, 0, 2)}
_KEY = ("name", "rank", "cid")


def key_of(pin: Pin) -> Key:
    return (pin.name, -pin.time, pin.cid)


@dataclass(frozen=True, slots=True)
class PlacementGroup:
    """Properties that many entries share. size: bytes of all of them."""

    id: int
    owner: str
    wanted: Replicas
    allocations: tuple[str, ...]
    entries: int
    size: int

    def on(self, cluster_id: str) -> bool:
        """Whether that node is allocated to them."""
        return not self.allocations or cluster_id in self.allocations


@dataclass(frozen=True, slots=True)
class Search:
    """A filter: entries that match all given criteria.

    name: substring, ignoring case. owners: fingerprints. since, until: wall clock, seconds; `until` is exclusive.
    """

    name: str = ""
    owners: tuple[str, ...] | None = None
    root: str = ""
    since: float | None = None
    until: float | None = None
    tag: str = ""

    def terms(self) -> tuple[str, list[Any]]:
        """The filter as SQL, "" for all entries, and its parameters."""
        terms: list[tuple[str, list[Any]]] = []
        if self.name:
            terms.append(("instr(e.folded, ?) > 0", [rows.text(self.name).casefold()]))
        if self.owners is not None:
            terms.append((f"p.owner IN ({rows.marks(self.owners)})", [*self.owners]))
        if self.root:
            terms.append(("e.root = ?", [rows.text(self.root)]))
        if self.since is not None:
            terms.append(("e.rank <= ?", [0.0 - self.since]))
        if self.until is not None:
            terms.append(("e.rank > ?", [0.0 - self.until]))
        if self.tag:
            terms.append(("e.id IN (SELECT entry FROM tags WHERE tag = ?)", [rows.text(self.tag)]))
        return " AND ".join(term for term, _ in terms), [value for _, values in terms for value in values]


@dataclass(frozen=True, slots=True)
class Page:
    """entries: sorted, each with its version. total: entries on all pages. more: whether another page follows."""

    entries: list[NumberedPin]
    total: int
    more: bool


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over all entries. here: how many are allocated to a node."""

    entries: int
    size: int
    here: int


class CatalogueIndex:
    """The index. Thread-safe: each call is one transaction, and blocks.

    Each call raises db.Discarded where the file fails: then it is empty.
    """

    def __init__(self, path: Path | None) -> None:
        """path: None for an index in memory."""
        self._cache = db.Cache(path, rows.SCHEMA)

    def run(self, work: Callable[[sqlite3.Connection], db.T]) -> db.T:
        return self._cache.run(work)

    def discard(self) -> None:
        """Discard the file: the index is empty then."""
        self._cache.discard()

    def close(self) -> None:
        """Close the file; all is in it then. The next call reopens it."""
        self._cache.close()

    # -- changes ---------------------------------------------------------------------------------------------------

    def apply(self, changes: Mapping[str, Pin | None]) -> bool:
        """Apply changes, CID -> entry, None for a removed one. Whether that changed anything."""

        def work(sql: sqlite3.Connection, cids: list[str]) -> bool:
            before = {p.cid: p for p in rows.by_cid(sql, cids)}
            news = [cid for cid in cids if before.get(cid) != changes[cid]]
            rows.remove(sql, [cid for cid in news if changes[cid] is None])
            rows.put(sql, [(pin, None) for cid in news if (pin := changes[cid]) is not None])
            return bool(news)

        news = [self.run(partial(work, cids=part)) for part in rows.parts(list(changes))]
        return any(news)

    # -- sums ------------------------------------------------------------------------------------------------------

    def placement_groups(self) -> list[PlacementGroup]:
        """All placement groups: few, however many entries there are."""

        def work(sql: sqlite3.Connection) -> list[PlacementGroup]:
            found = sql.execute(
                "SELECT id, owner, wanted, allocations, entries, size FROM placements ORDER BY id"
            )
            return [
                PlacementGroup(
                    number, owner, parse_wanted(wanted), rows.allocations_of(allocations), entries, int(size)
                )
                for number, owner, wanted, allocations, entries, size in found
            ]

        return self.run(work)

    def sums(self, cluster_id: str = "") -> Sums:
        """The sums. cluster_id: the node that `here` is about."""
        every = self.placement_groups()
        here = sum(p.entries for p in every if p.on(cluster_id))
        return Sums(sum(p.entries for p in every), sum(p.size for p in every), here)

    def owners(self) -> set[str]:
        """Fingerprints of all owners of entries; "" for pins of another program."""
        return self.run(
            lambda sql: {owner for (owner,) in sql.execute("SELECT DISTINCT owner FROM placements")}
        )

    # -- one entry -------------------------------------------------------------------------------------------------

    def get(self, cid: str) -> Pin | None:
        return next(iter(self.run(lambda sql: rows.by_cid(sql, [cid]))), None)

    def newest(self, name: str, version: int = 1) -> NumberedPin | None:
        """The entry with that name and version: 1 for the newest."""

        def work(sql: sqlite3.Connection) -> NumberedPin | None:
            order = "ORDER BY e.rank, e.cid LIMIT 1 OFFSET ?"
            found = sql.execute(
                f"SELECT {rows.COLUMNS} FROM {rows.ENTRIES} WHERE e.name = ? {order}",
                (rows.text(name), version - 1),
            )
            return next((NumberedPin(rows.pin_of(row), version) for row in found), None)

        return self.run(work) if 1 <= version < 2**63 else None

    def numbered(self, cid: str) -> NumberedPin | None:
        """An entry by CID, with its version."""

        def work(sql: sqlite3.Connection) -> NumberedPin | None:
            return next(
                (NumberedPin(pin, rows.count_before(sql, pin) + 1) for pin in rows.by_cid(sql, [cid])), None
            )

        return self.run(work)

    def versions(self, name: str) -> int:
        """The number of entries with that name."""
        count = "SELECT count(*) FROM entries WHERE name = ?"
        return self.run(lambda sql: int(sql.execute(count, (rows.text(name),)).fetchone()[0]))

    # -- many ------------------------------------------------------------------------------------------------------

    def page(self, search: Search, *, limit: int, after: Key | None = None, order: Order = "name") -> Page:
        """One page. after: the key at which the page before ended, even if that entry is removed."""

        def work(sql: sqlite3.Connection) -> Page:
            term, values = search.terms()
            where = f"WHERE {term}" if term else ""
            count = (
                f"SELECT count(*) FROM {rows.ENTRIES} {where}"
                if term
                else "SELECT coalesce(sum(entries), 0) FROM placements"
            )
            [[total]] = sql.execute(count, values).fetchall()
            columns = [_KEY[n] for n in _ORDERS[order]]
            if after is not None:
                behind = f"({', '.join(f'e.{c}' for c in columns)}) > (?, ?, ?)"
                where = f"{where} AND {behind}" if where else f"WHERE {behind}"
                key = (rows.text(after[0]), after[1], rows.text(after[2]))
                values = [*values, *(key[n] for n in _ORDERS[order])]
            # CROSS JOIN: the entries in their order, and not those of one placement after the other, sorted
            found = sql.execute(
                f"SELECT {rows.COLUMNS} FROM entries AS e CROSS JOIN placements AS p ON p.id = e.placement"
                f" {where} ORDER BY {', '.join(f'e.{c}' for c in columns)} LIMIT ?",
                (*values, limit + 1),
            )
            pins = [rows.pin_of(row) for row in found]
            return Page(list(rows.numbered(sql, pins[:limit])), total, len(pins) > limit)

        return self.run(work)

    def among(self, cids: Iterable[str]) -> set[str]:
        """Those of `cids` that are entries."""
        found: set[str] = set()
        for part in rows.parts(list(cids)):
            found |= self.run(partial(rows.present, cids=part))
        return found

    def pins(self, cids: Collection[str]) -> list[Pin]:
        """The entries among `cids`, in no order."""
        return [pin for part in rows.parts(list(cids)) for pin in self.run(partial(rows.by_cid, cids=part))]

    def elsewhere(self, cids: Collection[str], cluster_id: str) -> list[Pin]:
        """The entries among `cids` that are not allocated to that node."""
        return [pin for pin in self.pins(cids) if pin.allocations and cluster_id not in pin.allocations]

    def part(self, after: str = "", *, limit: int = PART) -> list[Pin]:
        """A page of entries by CID, after that one. Paging by key misses no entry while others come and go."""
        query = f"SELECT {rows.COLUMNS} FROM {rows.ENTRIES} WHERE e.cid > ? ORDER BY e.cid LIMIT ?"
        return self.run(lambda sql: [rows.pin_of(row) for row in sql.execute(query, (after, limit))])

    def of_root(self, root: str, after: str = "", *, limit: int = PART) -> list[Pin]:
        """As `part`, of the entries with that root."""
        query = (
            f"SELECT {rows.COLUMNS} FROM {rows.ENTRIES} WHERE e.root = ? AND e.cid > ? ORDER BY e.cid LIMIT ?"
        )
        return self.run(
            lambda sql: [rows.pin_of(row) for row in sql.execute(query, (rows.text(root), after, limit))]
        )

    def of_group(
        self, number: int, largest: int, after: int = 0, *, limit: int = PART
    ) -> list[tuple[int, Pin]]:
        """As `part`, of a group's entries of at most `largest` bytes; each with the number to go on after."""
        query = (
            f"SELECT e.id, {rows.COLUMNS} FROM {rows.ENTRIES} WHERE e.placement = ? AND e.size <= ? AND e.id > ?"
            " ORDER BY e.id LIMIT ?"
        )
        values = (number, largest, after, limit)
        return self.run(lambda sql: [(row[0], rows.pin_of(row[1:])) for row in sql.execute(query, values)])

    def count_in_groups(self, largest: Mapping[int, int]) -> int:
        """The number of entries of these groups, of at most so many bytes each."""
        query = "SELECT count(*) FROM entries WHERE placement = ? AND size <= ?"
        return self.run(
            lambda sql: sum(int(sql.execute(query, each).fetchone()[0]) for each in largest.items())
        )

    def names(self, groups: Sequence[int], *, limit: int) -> tuple[str, ...]:
        """The first names of the entries of these groups."""
        query = "SELECT name FROM entries WHERE placement = ? ORDER BY name LIMIT ?"

        def work(sql: sqlite3.Connection) -> tuple[str, ...]:
            found = (name for number in groups for (name,) in sql.execute(query, (number, limit)))
            return tuple(heapq.nsmallest(limit, found))

        return self.run(work)
