"""One reading of the cluster's list, applied to the index part by part: parses and writes only differences.

It keeps a bit an entry, and one part, in memory.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from functools import partial
from hashlib import blake2b

from meshd import db
from meshd.cluster.rest import parse_pin
from meshd.pins import index_rows as rows
from meshd.pins.index import CatalogueIndex

PART = 200  # records a transaction, which bounds how long others wait for the index
_LOOKED_AT = 2000  # entries to check at once whether the list still has them
_DIGEST_BYTES = 16


class Reading:
    """`take` each part of the list, then `end`. Both block, and raise db.Discarded.

    newer: CIDs of records that were read since the reading began; the list may have older ones.
    """

    def __init__(self, index: CatalogueIndex) -> None:
        self._index = index
        self._there = bytearray()  # a bit for each entry's number: the list has it
        self.changed = False

    def take(self, lines: Sequence[bytes], newer: Collection[str]) -> None:
        """Apply a part. lines: raw records."""
        for number in self._index.run(partial(self._compare, lines=lines, newer=newer)):
            self._mark(number)

    def _compare(self, sql: sqlite3.Connection, lines: Sequence[bytes], newer: Collection[str]) -> list[int]:
        """Write the records that differ; the numbers of all entries in the list."""
        digests = {blake2b(line, digest_size=_DIGEST_BYTES).digest(): line for line in lines}
        asked = f"SELECT id, digest FROM entries WHERE digest IN ({rows.marks(digests)})"
        known = {digest: number for number, digest in sql.execute(asked, list(digests))}
        fresh = [(parse_pin(json.loads(line)), d) for d, line in digests.items() if d not in known]
        taken = [(pin, digest) for pin, digest in fresh if pin.cid not in newer]
        rows.put(sql, taken)
        self.changed = self.changed or bool(taken)
        cids = [pin.cid for pin, _ in fresh]
        asked = f"SELECT id FROM entries WHERE cid IN ({rows.marks(cids)})"
        return [*known.values(), *(number for (number,) in sql.execute(asked, cids))]

    def end(self, newer: Collection[str]) -> None:
        """Remove the entries that the list does not have."""
        after = 0
        while (part := self._index.run(partial(self._numbers, after=after))) and (after := part[-1][0]):
            gone = [cid for number, cid in part if not self._is_there(number) and cid not in newer]
            for start in range(0, len(gone), PART):
                self._index.run(partial(rows.remove, cids=gone[start : start + PART]))
            self.changed = self.changed or bool(gone)
        entries, there = self._index.sums().entries, int.from_bytes(self._there).bit_count()
        if abs(entries - there) > len(newer):
            self._index.discard()
            raise db.Discarded(f"it has {entries} entries, and the list {there}")

    @staticmethod
    def _numbers(sql: sqlite3.Connection, after: int) -> list[tuple[int, str]]:
        asked = "SELECT id, cid FROM entries WHERE id > ? ORDER BY id LIMIT ?"
        return sql.execute(asked, (after, _LOOKED_AT)).fetchall()

    def _mark(self, number: int) -> None:
        byte, bit = divmod(number, 8)
        if byte >= len(self._there):
            self._there.extend(bytes(byte + 1024 - len(self._there)))
        self._there[byte] |= 1 << bit

    def _is_there(self, number: int) -> bool:
        byte, bit = divmod(number, 8)
        return byte < len(self._there) and bool(self._there[byte] >> bit & 1)
