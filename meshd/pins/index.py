"""The index of the catalogue: every entry of the cluster's list in SQLite, sorted, counted and searchable.

It is a cache. What is true the cluster says (`pinset.py` brings it here); a file that is lost or damaged is made anew from that,
so it need not survive a power cut whole (`db.Cache`). Nothing here is ever all in memory: what may be long is asked for in pages.
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
"""Where an entry stands in the list: its name, its time (negative: the newest first), its CID."""

Order = Literal["name", "newest"]

PART = rows.PART

_ORDERS: Mapping[Order, tuple[int, int, int]] = {"name": (0, 1, 2), "newest": (1, 0, 2)}
_KEY = ("name", "rank", "cid")


def key_of(pin: Pin) -> Key:
    return (pin.name, -pin.time, pin.cid)


@dataclass(frozen=True, slots=True)
class Placement:
    """What many entries have in common. size: bytes of all of them."""

    id: int
    owner: str
    wanted: Replicas
    allocations: tuple[str, ...]
    entries: int
    size: int

    def on(self, cluster_id: str) -> bool:
        """Whether that node shall hold them."""
        return not self.allocations or cluster_id in self.allocations


@dataclass(frozen=True, slots=True)
class Search:
    """Which entries are meant: those for which all that is given holds.

    name: a part of it, in any case. owners: fingerprints. since, until: wall clock, seconds; the second is not among them.
    """

    name: str = ""
    owners: tuple[str, ...] | None = None
    root: str = ""
    since: float | None = None
    until: float | None = None
    tag: str = ""

    def terms(self) -> tuple[str, list[Any]]:
        """As SQL, "" for all entries, and its parameters."""
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
    """entries: in their order, each with its number among those of its name. total: of all pages. more: another one follows."""

    entries: list[NumberedPin]
    total: int
    more: bool


@dataclass(frozen=True, slots=True)
class Sums:
    """Of all entries. here: how many a node shall hold."""

    entries: int
    size: int
    here: int


class CatalogueIndex:
    """For threads: each call is one transaction, and blocks. Each raises db.Discarded where the file fails: then it is empty."""

    def __init__(self, path: Path | None) -> None:
        """path: None for memory."""
        self._cache = db.Cache(path, rows.SCHEMA)

    def run(self, work: Callable[[sqlite3.Connection], db.T]) -> db.T:
        return self._cache.run(work)

    def discard(self) -> None:
        """Throw it away: it is empty then."""
        self._cache.discard()

    def close(self) -> None:
        """All is in the one file then. The next call opens it again."""
        self._cache.close()

    # -- changes ---------------------------------------------------------------------------------------------------

    def apply(self, changes: Mapping[str, Pin | None]) -> bool:
        """These entries are so now, by CID; None: it is gone. Whether that was news."""

        def work(sql: sqlite3.Connection, cids: list[str]) -> bool:
            before = {p.cid: p for p in rows.by_cid(sql, cids)}
            news = [cid for cid in cids if before.get(cid) != changes[cid]]
            rows.remove(sql, [cid for cid in news if changes[cid] is None])
            rows.put(sql, [(pin, None) for cid in news if (pin := changes[cid]) is not None])
            return bool(news)

        news = [self.run(partial(work, cids=part)) for part in rows.parts(list(changes))]
        return any(news)

    # -- sums ------------------------------------------------------------------------------------------------------

    def placements(self) -> list[Placement]:
        """All that there are: few, however many entries."""

        def work(sql: sqlite3.Connection) -> list[Placement]:
            found = sql.execute(
                "SELECT id, owner, wanted, allocations, entries, size FROM placements ORDER BY id"
            )
            return [
                Placement(
                    number, owner, parse_wanted(wanted), rows.allocations_of(allocations), entries, int(size)
                )
                for number, owner, wanted, allocations, entries, size in found
            ]

        return self.run(work)

    def sums(self, cluster_id: str = "") -> Sums:
        """cluster_id: the node of which `here` is asked."""
        every = self.placements()
        here = sum(p.entries for p in every if p.on(cluster_id))
        return Sums(sum(p.entries for p in every), sum(p.size for p in every), here)

    def owners(self) -> set[str]:
        """Fingerprints of all that own an entry, "" among them where another program pinned one."""
        return self.run(
            lambda sql: {owner for (owner,) in sql.execute("SELECT DISTINCT owner FROM placements")}
        )

    # -- one entry -------------------------------------------------------------------------------------------------

    def get(self, cid: str) -> Pin | None:
        return next(iter(self.run(lambda sql: rows.by_cid(sql, [cid]))), None)

    def newest(self, name: str, version: int = 1) -> NumberedPin | None:
        """The one of that name with that number: 1 for the newest."""

        def work(sql: sqlite3.Connection) -> NumberedPin | None:
            order = "ORDER BY e.rank, e.cid LIMIT 1 OFFSET ?"
            found = sql.execute(
                f"SELECT {rows.COLUMNS} FROM {rows.ENTRIES} WHERE e.name = ? {order}",
                (rows.text(name), version - 1),
            )
            return next((NumberedPin(rows.pin_of(row), version) for row in found), None)

        return self.run(work) if 1 <= version < 2**63 else None

    def numbered(self, cid: str) -> NumberedPin | None:
        """That entry, and its number among those of its name."""

        def work(sql: sqlite3.Connection) -> NumberedPin | None:
            return next(
                (NumberedPin(pin, rows.count_before(sql, pin) + 1) for pin in rows.by_cid(sql, [cid])), None
            )

        return self.run(work)

    def versions(self, name: str) -> int:
        """How many entries have that name."""
        count = "SELECT count(*) FROM entries WHERE name = ?"
        return self.run(lambda sql: int(sql.execute(count, (rows.text(name),)).fetchone()[0]))

    # -- many ------------------------------------------------------------------------------------------------------

    def page(self, search: Search, *, limit: int, after: Key | None = None, order: Order = "name") -> Page:
        """after: where the page before ended, whether that entry is still there or not."""

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
        """Those of these that there are."""
        found: set[str] = set()
        for part in rows.parts(list(cids)):
            found |= self.run(partial(rows.present, cids=part))
        return found

    def pins(self, cids: Collection[str]) -> list[Pin]:
        """Those of these that there are, in no order."""
        return [pin for part in rows.parts(list(cids)) for pin in self.run(partial(rows.by_cid, cids=part))]

    def elsewhere(self, cids: Collection[str], cluster_id: str) -> list[Pin]:
        """Those of these that are for other nodes than that one."""
        return [pin for pin in self.pins(cids) if pin.allocations and cluster_id not in pin.allocations]

    def part(self, after: str = "", *, limit: int = PART) -> list[Pin]:
        """Those behind that CID, by CID: no entry is missed by whoever goes through all while others come and go."""
        query = f"SELECT {rows.COLUMNS} FROM {rows.ENTRIES} WHERE e.cid > ? ORDER BY e.cid LIMIT ?"
        return self.run(lambda sql: [rows.pin_of(row) for row in sql.execute(query, (after, limit))])

    def of_root(self, root: str, after: str = "", *, limit: int = PART) -> list[Pin]:
        """The same, of those that keep this content."""
        query = (
            f"SELECT {rows.COLUMNS} FROM {rows.ENTRIES} WHERE e.root = ? AND e.cid > ? ORDER BY e.cid LIMIT ?"
        )
        return self.run(
            lambda sql: [rows.pin_of(row) for row in sql.execute(query, (rows.text(root), after, limit))]
        )

    def of_placement(
        self, number: int, largest: int, after: int = 0, *, limit: int = PART
    ) -> list[tuple[int, Pin]]:
        """The same, of those that have it and are no larger than so many bytes; each with the number to go on after."""
        query = (
            f"SELECT e.id, {rows.COLUMNS} FROM {rows.ENTRIES} WHERE e.placement = ? AND e.size <= ? AND e.id > ?"
            " ORDER BY e.id LIMIT ?"
        )
        values = (number, largest, after, limit)
        return self.run(lambda sql: [(row[0], rows.pin_of(row[1:])) for row in sql.execute(query, values)])

    def count_of_placements(self, largest: Mapping[int, int]) -> int:
        """How many have one of these and are no larger than the bytes beside it."""
        query = "SELECT count(*) FROM entries WHERE placement = ? AND size <= ?"
        return self.run(
            lambda sql: sum(int(sql.execute(query, each).fetchone()[0]) for each in largest.items())
        )

    def names(self, placements: Sequence[int], *, limit: int) -> tuple[str, ...]:
        """The first names of those that have one of these."""
        query = "SELECT name FROM entries WHERE placement = ? ORDER BY name LIMIT ?"

        def work(sql: sqlite3.Connection) -> tuple[str, ...]:
            found = (name for number in placements for (name,) in sql.execute(query, (number, limit)))
            return tuple(heapq.nsmallest(limit, found))

        return self.run(work)
