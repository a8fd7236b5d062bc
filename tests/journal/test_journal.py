"""The journal of removals is durable before it answers, and is never taken for an empty one."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshd import db, wire
from meshd.errors import Code, MeshError
from meshd.pins.trash import Journal
from tests.journal.journals import MADE, opened, removal


async def test_what_was_recorded_is_there_after_a_restart(path: Path) -> None:
    journal = opened(path)
    recorded = await journal.record([removal("c1"), removal("c2", root="r2", size=5, now=True)])
    again = opened(path)
    assert again.all() == recorded == journal.all()
    assert again.last == 2
    assert again.get("c2") == removal("c2", root="r2", size=5, now=True)


async def test_a_record_is_on_the_disk_when_it_is_answered(path: Path) -> None:
    journal = opened(path)
    for number, cid in enumerate(("c1", "c2"), 1):  # the file is made for the first one
        await journal.record([removal(cid)])
        for file in path.parent.iterdir():
            (path.parent / "copied").mkdir(exist_ok=True)
            if file.is_file():
                shutil.copy(file, path.parent / "copied")
                assert file.stat().st_mode & 0o777 == 0o600
        with contextlib.closing(sqlite3.connect(path.parent / "copied" / path.name)) as copy:
            assert copy.execute("SELECT count(*) FROM removals").fetchone() == (number,)


async def test_a_node_without_a_journal_has_an_empty_one(path: Path) -> None:
    journal = opened(path)
    assert (journal.all(), journal.last, journal.get("c1")) == ([], 0, None)
    assert not path.exists()


def of_another_program(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE notes (text)")
        other.execute("PRAGMA journal_mode=WAL")


async def truncated(path: Path) -> None:
    await opened(path).record([removal(f"c{n}") for n in range(100)])
    MADE.pop().close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


async def changed_within(path: Path) -> None:
    await opened(path).record([removal(f"c{n}") for n in range(100)])
    MADE.pop().close()
    raw = bytearray(path.read_bytes())
    raw[4096:8192] = bytes(4096)
    path.write_bytes(raw)


async def of_a_record_that_makes_no_sense(path: Path) -> None:
    await opened(path).record([removal("c1")])
    MADE.pop().close()
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE removals SET removal = '{}'")


async def of_a_newer_meshd(path: Path) -> None:
    await opened(path).record([removal("c1")])
    MADE.pop().close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version=2")


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda path: path.touch(), "the file is empty"),
        (lambda path: path.write_text("{}"), "the file is damaged"),
        (lambda path: path.write_text("text " * 200), "the file is damaged"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(24)), "the file is damaged"),
        (lambda path: path.write_bytes(bytes(5000)), "the file is damaged"),
        (lambda path: path.mkdir(), "cannot be read"),
        (of_another_program, "it is not a journal of removals"),
        (truncated, "the file is damaged"),
        (changed_within, "the file is damaged"),
        (of_a_record_that_makes_no_sense, "it is not a journal of removals"),
        (of_a_newer_meshd, "a newer meshd wrote it (format 2; this one reads 1)"),
    ],
    ids=[
        "empty",
        "text",
        "long text",
        "header",
        "zeros",
        "folder",
        "foreign",
        "truncated",
        "changed",
        "senseless",
        "newer",
    ],
)
async def test_a_damaged_database_is_told_and_is_left_as_it_is(
    damage: Callable[[Path], Any], cause: str, path: Path
) -> None:
    if inspect.isawaitable(made := damage(path)):
        await made
    before = {p.name: p.read_bytes() for p in path.parent.iterdir() if p.is_file()}
    with pytest.raises(MeshError) as caught:
        Journal(path)
    assert caught.value.code is Code.BAD_STATE
    assert str(path) in caught.value.title
    assert cause in caught.value.detail
    assert caught.value.hint
    assert {p.name: p.read_bytes() for p in path.parent.iterdir() if p.is_file()} == before


async def test_a_record_that_cannot_be_written_is_no_record(path: Path) -> None:
    journal = opened(path)
    await journal.record([removal("c1")])
    path.unlink()
    path.mkdir()  # nothing can be renamed over a folder
    with pytest.raises(MeshError, match="cannot record what was removed"):
        await journal.record([removal("c2")])
    assert journal.last == 1
    path.rmdir()
    assert await journal.record([removal("c2")]) == [], "it is known here"
    assert [r.cid for r in opened(path).all()] == ["c1", "c2"], "and is durable now"
    assert journal.last == 2


async def test_many_at_once_share_a_few_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(path)
    await journal.record([removal("c0")])
    writes = []
    write = db.Database.write

    def counting(self: db.Database, changes: list[db.Change], doing: str) -> bool:
        writes.append(changes)
        return write(self, changes, doing)

    monkeypatch.setattr(db.Database, "write", counting)
    await asyncio.gather(*(journal.record([removal(f"c{i}")]) for i in range(1, 51)))
    assert len(writes) <= 2
    assert len(opened(path).all()) == 51
    assert journal.last == 51


async def test_a_removal_writes_no_more_where_there_are_many_already(path: Path) -> None:
    """What it writes goes to the end of the file beside it, in whole pages."""
    journal, wal = opened(path), path.with_name("trash.db-wal")
    written = []
    for count in (1, 20_000):
        await journal.record([removal(f"{count}-{n}") for n in range(count)])
        journal.close()  # all of it goes into the file itself
        await journal.record([removal(f"one-more-{count}")])
        written.append(wal.stat().st_size)
    assert path.stat().st_size > 4_000_000
    assert written[1] < 10 * 4096 + written[0]
    assert len(opened(path).all()) == 20_003


async def test_many_that_go_at_once_are_one_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(path)
    await journal.record([removal(f"c{n}") for n in range(500)])
    done: list[str] = []
    journal._db._connection.set_trace_callback(done.append)  # type: ignore[union-attr]
    await journal.mark_gone(*(f"c{n}" for n in range(300)))
    assert [d for d in done if d.startswith(("BEGIN", "COMMIT"))] == ["BEGIN IMMEDIATE", "COMMIT"]
    assert len([d for d in done if "INSERT INTO removals" in d]) == 300
    assert len(opened(path).all()) == 200


async def test_who_holds_the_file_is_told_and_nothing_is_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_S", 0.05)
    journal = opened(path)
    await journal.record([removal("c1")])
    journal.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(MeshError, match="cannot record what was removed") as caught:
            await journal.record([removal("c2")])
        assert caught.value.code is Code.BUSY
        assert journal.last == 1
    assert await journal.record([removal("c3")]) == [removal("c3")]
    assert [r.cid for r in opened(path).all()] == ["c1", "c2", "c3"]


async def test_a_full_disk_is_told_as_one_and_nothing_is_lost(path: Path) -> None:
    journal = opened(path)
    await journal.record([removal("c1")])
    _limit(journal, pages=5)
    with pytest.raises(MeshError, match="cannot record what was removed") as caught:
        await journal.record([removal(f"d{n}", name="n" * 200) for n in range(500)])
    assert caught.value.code is Code.DISK_FLOOR
    assert "df -h" in caught.value.hint
    assert journal.last == 1
    assert [r.cid for r in opened(path).all()] == ["c1"]
    _limit(journal, pages=100_000)
    await journal.record([removal("c2")])
    assert len(opened(path).all()) == 502
    assert journal.last == 502


def _limit(journal: Journal, pages: int) -> None:
    """SQLite answers as on a full disk once the file has so many."""
    journal._db.rows(f"PRAGMA max_page_count={pages}")


async def test_a_journal_that_is_moved_away_while_it_is_open_is_made_anew_whole(path: Path) -> None:
    journal = opened(path)
    await journal.record([removal("c1")])
    await journal.record([removal("c2")])
    path.rename(path.with_name("before"))  # its -wal stays, and is none of the new one's
    await journal.record([removal("c3")])
    assert [r.cid for r in opened(path).all()] == ["c1", "c2", "c3"]


async def test_a_commit_waits_for_the_disk(path: Path) -> None:
    journal = opened(path)
    await journal.record([removal("c1")])
    for same in (journal, opened(path)):
        journal.close()
        assert same._db.rows("PRAGMA journal_mode") == [("wal",)]
        assert same._db.rows("PRAGMA synchronous") == [(2,)], "FULL"


async def test_a_journal_of_a_killed_daemon_is_whole_with_what_lies_beside_it(path: Path) -> None:
    journal, elsewhere = opened(path), path.parent / "copy"
    await journal.record([removal("c1")])
    await journal.record([removal("c2")])
    elsewhere.mkdir()
    for file in path.parent.glob("trash.db*"):  # nobody closed it
        shutil.copy(file, elsewhere)
    assert [r.cid for r in opened(elsewhere / path.name).all()] == ["c1", "c2"]


async def test_a_journal_that_was_closed_is_one_file(path: Path) -> None:
    journal = opened(path)
    await journal.record([removal("c1")])
    await journal.record([removal("c2")])
    journal.close()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert [r.cid for r in opened(path).all()] == ["c1", "c2"]


async def test_a_number_counts_only_once_its_own_record_is_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(path)
    begun, go = asyncio.Event(), threading.Semaphore(0)
    loop, write = asyncio.get_running_loop(), db.Database.write

    def slow(self: db.Database, changes: list[db.Change], doing: str) -> bool:
        loop.call_soon_threadsafe(begun.set)
        assert go.acquire(timeout=30)
        return write(self, changes, doing)

    monkeypatch.setattr(db.Database, "write", slow)
    one = asyncio.create_task(journal.record([removal("c1")]))
    await begun.wait()
    two = asyncio.create_task(journal.record([removal("c2")]))
    begun.clear()
    go.release()
    await one
    await begun.wait()
    assert journal.last == 1
    assert [r.cid for r in journal.after(0).removals] == ["c1"]
    go.release()
    await two
    assert journal.last == 2


async def test_nobody_is_told_of_what_is_not_durable_yet(path: Path) -> None:
    journal = opened(path)
    task = asyncio.create_task(journal.record([removal()]))
    await asyncio.wait([task], timeout=0)
    assert journal.after(0) == wire.Removals(removals=[], total=0)
    await task
    assert journal.after(0).total == 1
