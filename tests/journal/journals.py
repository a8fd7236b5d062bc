"""Journals of removals, as a daemon finds them at its start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from meshd import wire
from meshd.pins.trash import Journal
from meshd.pins.uptime_clock import Moment, moment

MADE: list[Journal] = []  # closed after each test


def removal(cid: str = "c1", time: float = 100.0, by: str = "f1", **facts: Any) -> wire.Removal:
    fields: dict[str, Any] = {"cid": cid, "time": time, "by": by, "name": f"name-{cid}", "owner": "f1"}
    return wire.Removal(**(fields | facts))


def opened(path: Path, read: Callable[[], Moment] = moment) -> Journal:
    """A journal as a start of the daemon finds it; closed after the test. One journal has the file at a time: those before
    it have ended, and each of them opens it again when it has something to write."""
    for before in MADE:
        before.close()
    journal = Journal(path, read)
    journal.close()
    MADE.append(journal)
    return journal


class Machine:
    """A simulated machine, which the test starts, lets run and suspends."""

    def __init__(self) -> None:
        self.boot, self.uptime = "first", 1000.0

    def moment(self) -> Moment:
        return Moment(self.boot, self.uptime)

    def restart(self, *, uptime: float = 5.0) -> None:
        self.boot, self.uptime = self.boot + "+", uptime


def ages(journal: Journal) -> dict[str, float]:
    return {t.removal.cid: t.age_s for t in journal.lying()}
