"""The rows of the index: its schema, and the mapping of entries to rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from meshd import db
from meshd.model import Pin, parse_wanted
from meshd.pins.entries import NumberedPin

PART = 500  # entries, or CIDs, a query
COLUMNS = (
    "e.cid, e.name, e.rank, e.root, e.size, e.files, e.directory, e.tags, p.owner, p.wanted, p.allocations"
)
ENTRIES = "entries AS e JOIN placements AS p ON p.id = e.placement"

SCHEMA = db.Schema(
    what="an index of entries",
    application=0x6D736863,  # "mshc"
    version=1,
    # A placement is what many entries have in common, with their number and bytes: sums cost no look at any of them.
    create="""
    CREATE TABLE placements (
        id INTEGER PRIMARY KEY, owner TEXT NOT NULL, wanted TEXT NOT NULL, allocations TEXT NOT NULL,
        entries INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL DEFAULT 0,
        UNIQUE (allocations, wanted, owner)
    );
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY, cid TEXT NOT NULL UNIQUE, digest BLOB, name TEXT NOT NULL, folded TEXT NOT NULL,
        rank REAL NOT NULL, root TEXT NOT NULL, size INTEGER NOT NULL, files INTEGER NOT NULL, directory INTEGER NOT NULL,
        tags TEXT NOT NULL, placement INTEGER NOT NULL REFERENCES placements
    );
    CREATE TABLE tags (tag TEXT NOT NULL, entry INTEGER NOT NULL, PRIMARY KEY (tag, entry)) WITHOUT ROWID;
    CREATE INDEX by_name ON entries (name, rank, cid);
    CREATE INDEX by_time ON entries (rank, name, cid);
    CREATE INDEX by_digest ON entries (digest);
    CREATE INDEX by_root ON entries (root, cid);
    CREATE INDEX by_placement ON entries (placement, id, size);
    CREATE INDEX by_entry ON tags (entry);
    CREATE TRIGGER came AFTER INSERT ON entries BEGIN
        UPDATE placements SET entries = entries + 1, size = size + new.size WHERE id = new.placement;
    END;
    CREATE TRIGGER went AFTER DELETE ON entries BEGIN
        UPDATE placements SET entries = entries - 1, size = size - old.size WHERE id = old.placement;
        DELETE FROM placements WHERE id = old.placement AND entries = 0;
        DELETE FROM tags WHERE entry = old.id;
    END
    """,
    lost="it is made anew from the cluster's list",
)


def put(sql: sqlite3.Connection, pins: Sequence[tuple[Pin, bytes | None]]) -> None:
    """Insert or replace entries, each with the digest of its record."""
    pins = list({pin.cid: (pin, digest) for pin, digest in pins}.values())
    remove(sql, [pin.cid for pin, _ in pins])
    placements = [(text(p.owner), str(p.wanted), json.dumps(p.allocations)) for p, _ in pins]
    sql.executemany(
        "INSERT OR IGNORE INTO placements (owner, wanted, allocations) VALUES (?, ?, ?)", placements
    )
    sql.executemany(
        "INSERT INTO entries (cid, digest, name, folded, rank, root, size, files, directory, tags, placement)"
        " SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, id FROM placements WHERE owner = ? AND wanted = ? AND allocations = ?",
        [
            (
                text(p.cid),
                digest,
                name := text(p.name),
                name.casefold(),
                0.0 - p.time,
                text(p.root),
                p.size,
                p.files,
                int(p.directory),
                json.dumps(p.tags),
                *placement,
            )
            for (p, digest), placement in zip(pins, placements, strict=True)
        ],
    )

    tagged = [(text(tag), text(pin.cid)) for pin, _ in pins for tag in pin.tags]
    sql.executemany("INSERT OR IGNORE INTO tags (tag, entry) SELECT ?, id FROM entries WHERE cid = ?", tagged)


def remove(sql: sqlite3.Connection, cids: Iterable[str]) -> None:
    sql.executemany("DELETE FROM entries WHERE cid = ?", [(text(cid),) for cid in cids])


def parts(cids: list[str]) -> Iterator[list[str]]:
    return (cids[n : n + PART] for n in range(0, len(cids), PART))


def marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def text(text: str) -> str:
    """Text for SQLite, which has no lone surrogates, as JSON may."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def allocations_of(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def pin_of(row: Sequence[Any]) -> Pin:
    cid, name, rank, root, size, files, directory, tags, owner, wanted, allocations = row
    return Pin(
        cid=cid,
        name=name,
        owner=owner,
        root=root,
        size=size,
        time=0.0 - rank,
        wanted=parse_wanted(wanted),
        directory=bool(directory),
        allocations=allocations_of(allocations),
        files=files,
        tags=tuple(json.loads(tags)),
    )


def present(sql: sqlite3.Connection, cids: Collection[str]) -> set[str]:
    query = f"SELECT cid FROM entries WHERE cid IN ({marks(cids)})"
    return {cid for (cid,) in sql.execute(query, [text(c) for c in cids])}


def by_cid(sql: sqlite3.Connection, cids: Collection[str]) -> list[Pin]:
    query = f"SELECT {COLUMNS} FROM {ENTRIES} WHERE e.cid IN ({marks(cids)})"
    return [pin_of(row) for row in sql.execute(query, [text(c) for c in cids])]


def count_before(sql: sqlite3.Connection, pin: Pin, behind: Pin | None = None) -> int:
    """How many entries of its name come before it. behind: count from that one on, which has the same name."""
    query = "SELECT count(*) FROM entries WHERE name = ? AND (rank, cid) < (?, ?)"
    values: list[Any] = [pin.name, 0.0 - pin.time, pin.cid]
    if behind is not None:
        query += " AND (rank, cid) >= (?, ?)"
        values += [0.0 - behind.time, behind.cid]
    return int(sql.execute(query, values).fetchone()[0])


def numbered(sql: sqlite3.Connection, pins: Iterable[Pin]) -> Iterator[NumberedPin]:
    """Entries with their versions. Counts each name once."""
    last: dict[str, NumberedPin] = {}
    for pin in pins:
        known = last.get(pin.name)
        if known is None:
            version = count_before(sql, pin) + 1
        else:  # "newest" and "name" both have the newest of a name first
            version = known.version + count_before(sql, pin, known.pin)
        last[pin.name] = NumberedPin(pin, version)
        yield last[pin.name]
