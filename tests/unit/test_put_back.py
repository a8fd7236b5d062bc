"""A removal whose entry is in the pinset again is forgotten; one that is newer than the list it was read from is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshd.pins.trash import Journal
from meshd.wire import Removal


def removal(cid: str) -> Removal:
    return Removal(cid=cid, time=100.0, by="f1")


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    """Three removals, numbered 1 to 3."""
    made = Journal(tmp_path / "trash.db")
    for cid in ("c1", "c2", "c3"):
        await made.record([removal(cid)])
    yield made
    made.close()


async def test_what_is_in_the_pinset_again_is_forgotten_durably(journal: Journal, tmp_path: Path) -> None:
    await journal.drop_kept({"c1", "c3", "never-removed"}, journal.last)
    assert [r.cid for r in journal.all()] == ["c2"]
    journal.close()
    again = Journal(tmp_path / "trash.db")
    assert [r.cid for r in again.all()] == ["c2"]
    again.close()


async def test_a_removal_after_the_pinset_was_read_stays(journal: Journal) -> None:
    """The list was read when the newest number was 2: it had c3 because c3 was removed only then."""
    await journal.drop_kept({"c1", "c2", "c3"}, 2)
    assert [r.cid for r in journal.all()] == ["c3"]


async def test_what_is_in_no_pinset_stays(journal: Journal) -> None:
    await journal.drop_kept(set(), journal.last)
    assert [r.cid for r in journal.all()] == ["c1", "c2", "c3"]
