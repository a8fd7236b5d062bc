"""The records of operations, in one SQLite file. Losing it costs the history, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict

from meshd import db
from meshd.errors import Code, MeshError
from meshd.wire.operations import OperationState

_SCHEMA = db.Schema(
    what="a record of operations",
    application=0x6D736F70,  # "msop"
    version=1,
    create="CREATE TABLE operations (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, record TEXT NOT NULL)",
    lost="what was under way before is not told any more",
)
_PUT = """
    INSERT INTO operations (id, record) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record
"""
_DROP = "DELETE FROM operations WHERE id = ?"
_DOING = "cannot record what is under way"
_LOG = structlog.get_logger(part="operations")


class Record(BaseModel):
    """The record of an operation; see `wire.Operation`. last: the event that it ended with, as JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    verb: str
    subject: str
    by: str
    began: float
    ended: float | None = None
    state: OperationState = "running"
    cid: str = ""
    last: str = ""


class OperationStore:
    """The file. Calls block, and are durable when they return."""

    def __init__(self, path: Path) -> None:
        self._db = db.Database(path, _SCHEMA)

    def load(self) -> list[Record]:
        """All records, the oldest first.

        An unusable file must not keep the daemon from starting: a damaged one is removed, and one that cannot be read
        now stays.
        """
        try:
            found = self._db.rows("SELECT record FROM operations ORDER BY number")
            return [Record.model_validate_json(record) for (record,) in found]
        except ValueError as exc:  # pydantic's error is one
            self._discard(self._db.damaged(str(exc).splitlines()[0]))
        except MeshError as exc:
            if exc.code is Code.BAD_STATE:
                self._discard(exc)
            else:
                _LOG.warning("cannot read what was under way before", error=str(exc))
        return []

    def write(self, changed: Mapping[str, Record | None], everything: Iterable[Record]) -> None:
        """Write records. changed: by id, the oldest first; None to delete one. everything: the content of a new file.

        Raises MeshError DISK_FLOOR, BAD_STATE, BUSY.
        """
        put = [record for record in changed.values() if record is not None]
        gone = [(id_,) for id_, record in changed.items() if record is None]
        if not self._db.write([(_DROP, gone), (_PUT, map(_row, put))], _DOING):
            self._db.create([(_PUT, map(_row, everything))], _DOING)

    def close(self) -> None:
        """Close the file. The next call reopens it."""
        self._db.close()

    def _discard(self, why: MeshError) -> None:
        _LOG.warning("cannot read what was under way before; the record begins anew", error=str(why))
        self._db.close()
        path = self._db.path
        try:
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        except OSError as exc:  # then nothing is recorded, which each attempt reports
            _LOG.warning("cannot remove the damaged record", file=str(path), error=str(exc))


def _row(record: Record) -> db.Row:
    return (record.id, record.model_dump_json())
