"""The journal of removals: durable before it answers, and numbers that are never used again."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from meshd import db, files, wire
from meshd.errors import Code, MeshError
from meshd.model import Pin
from meshd.pins.running import Moment, moment
from meshd.pins.trash import Journal, Lying, due, pin_of, removal_of, view

DAY = 86400.0


def removal(cid: str = "c1", time: float = 100.0, by: str = "f1", **facts: Any) -> wire.Removal:
    fields: dict[str, Any] = {"cid": cid, "time": time, "by": by, "name": f"name-{cid}", "owner": "f1"}
    return wire.Removal(**(fields | facts))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trash.db"


_made: list[Journal] = []


def opened(path: Path, read: Callable[[], Moment] = moment) -> Journal:
    """A journal as a start of the daemon finds it; closed after the test."""
    _made.append(Journal(path, read))
    return _made[-1]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close()


# -- durable -------------------------------------------------------------------------------------------------------


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
    _made.pop().close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


async def changed_within(path: Path) -> None:
    await opened(path).record([removal(f"c{n}") for n in range(100)])
    _made.pop().close()
    raw = bytearray(path.read_bytes())
    raw[4096:8192] = bytes(4096)
    path.write_bytes(raw)


async def of_a_record_that_makes_no_sense(path: Path) -> None:
    await opened(path).record([removal("c1")])
    _made.pop().close()
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE removals SET removal = '{}'")


async def of_a_newer_meshd(path: Path) -> None:
    await opened(path).record([removal("c1")])
    _made.pop().close()
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


# -- what meshd 0.1 wrote -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{", "[]", '{"removals": [{"number": 1}]}', '{"last": "x"}', "null"])
def test_a_damaged_old_journal_is_told_and_not_taken_for_an_empty_one(content: str, path: Path) -> None:
    old = path.with_name("trash.json")
    old.write_text(content)
    with pytest.raises(MeshError) as caught:
        Journal(path)
    assert caught.value.code is Code.BAD_STATE
    assert str(old) in caught.value.title
    assert caught.value.hint
    assert (old.read_text(), path.exists()) == (content, False)


OLD = {
    "version": 1,
    "last": 9,
    "clock": 500.0,
    "boot": "first",
    "uptime": 900.0,
    "removals": [
        {"number": 4, "removal": removal("c1", now=True).model_dump(), "at": 100.0, "gone": True},
        {"number": 7, "removal": removal("c2", size=5).model_dump(), "at": 450.0, "gone": False},
    ],
}


def check_old(journal: Journal) -> None:
    """It has what OLD says, 100 s after that was written on the same run of the machine."""
    assert journal.last == 9
    assert [r.cid for r in journal.after(0).removals] == ["c1", "c2"]
    assert journal.all() == [removal("c2", size=5)]
    assert ages(journal) == {"c2": 150.0}


def test_what_an_older_meshd_recorded_is_taken_over_with_numbers_and_ages(path: Path) -> None:
    old, machine = path.with_name("trash.json"), Machine()
    old.write_text(json.dumps(OLD))
    check_old(opened(path, machine.moment))
    assert not old.exists()
    check_old(opened(path, machine.moment))
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("step", ["execute", "executemany", "fsync", "rename", "unlink", "sync_directory"])
def test_taking_over_can_be_cut_off_anywhere_and_is_done_at_the_next_start(
    step: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of one kind is cut off once, the first one at the first start, the second one at the second ..."""
    old, machine, cut_off = path.with_name("trash.json"), Machine(), 0
    old.write_text(json.dumps(OLD))
    while True:
        with monkeypatch.context() as patch:
            calls = cut_at(step, cut_off, patch)
            try:
                _made.append(Journal(path, machine.moment))
            except _Cut:
                cut_off += 1
                assert old.exists() or path.exists()
                continue
        if len(calls) <= cut_off:
            break
    assert cut_off > 0
    check_old(_made[-1])
    left = {p.name for p in path.parent.iterdir()}
    assert left <= {"trash.db", "trash.db-wal", "trash.db-shm"}, "nothing unfinished"


class _Cut(BaseException):
    """The power is gone."""


def cut_at(step: str, number: int, patch: pytest.MonkeyPatch) -> list[str]:
    """The calls that were made; the one with that number is not done."""
    calls: list[str] = []

    def cutting(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            calls.append(step)
            if len(calls) == number + 1:
                raise _Cut
            return real(*args, **options)

        return call

    if step.startswith("execute"):
        connect = sqlite3.connect

        class Connection(sqlite3.Connection):
            pass

        setattr(Connection, step, cutting(getattr(sqlite3.Connection, step)))
        patch.setattr(sqlite3, "connect", partial(connect, factory=Connection))
    elif step == "fsync":
        patch.setattr(os, "fsync", cutting(os.fsync))
    elif step == "sync_directory":
        patch.setattr(files, "sync_directory", cutting(files.sync_directory))
    else:
        patch.setattr(Path, step, cutting(getattr(Path, step)))
    return calls


async def test_a_journal_that_an_older_meshd_began_anew_is_added_to_what_is_there(path: Path) -> None:
    """This meshd ran, then an older one, and now this one again."""
    machine = Machine()
    journal = opened(path, machine.moment)
    await journal.record([removal("c0"), removal("c2")])
    machine.uptime += 10
    path.with_name("trash.json").write_text(json.dumps(OLD))
    again = opened(path, machine.moment)
    assert [r.cid for r in again.all()] == ["c0", "c2"]
    assert ages(again) == {"c0": 10.0, "c2": 10.0}
    assert again.knows("c1")
    assert again.last == 2 + 9
    assert len({r.cid for r in again.after(2).removals}) == 1, "c1 is new to who had asked"


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
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        journal.close()
        with pytest.raises(MeshError, match="cannot record what was removed") as caught:
            await journal.record([removal("c2")])
        assert caught.value.code is Code.BUSY
        assert journal.last == 1
        other.execute("ROLLBACK")
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


# -- numbers -------------------------------------------------------------------------------------------------------


async def test_numbers_are_never_used_again(path: Path) -> None:
    journal = opened(path)
    await journal.record([removal("c1"), removal("c2")])
    await journal.drop(["c2"])
    assert journal.last == 2
    await journal.record([removal("c3")])
    assert journal.last == 3
    await journal.drop(["c1", "c3"])
    again = opened(path)
    assert (again.all(), again.last) == ([], 3)
    await again.record([removal("c4")])
    assert again.last == 4


async def test_who_asks_again_gets_only_what_is_new(path: Path) -> None:
    journal = opened(path)
    await journal.record([removal(f"c{i}") for i in range(5)])
    page = journal.after(0, most=2)
    assert [r.cid for r in page.removals] == ["c0", "c1"]
    page = journal.after(page.total, most=2)
    assert [r.cid for r in page.removals] == ["c2", "c3"]
    page = journal.after(page.total, most=2)
    assert ([r.cid for r in page.removals], page.total) == (["c4"], 5)
    assert journal.after(5) == wire.Removals(removals=[], total=5)


async def test_who_asks_gets_past_what_was_dropped(path: Path) -> None:
    journal = opened(path)
    await journal.record([removal("c1"), removal("c2")])
    await journal.drop(["c1", "c2"])
    assert journal.after(0) == wire.Removals(removals=[], total=2)


# -- news ----------------------------------------------------------------------------------------------------------


async def test_what_is_known_already_is_no_news(path: Path) -> None:
    journal = opened(path)
    assert len(await journal.record([removal()])) == 1
    assert await journal.record([removal(), removal(time=99.0), removal(by="", time=500.0)]) == []
    assert journal.last == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(removal(by=""), removal(by="f1"), id="who did it"),
        pytest.param(removal(), removal(now=True), id="that it is to go now"),
        pytest.param(removal(time=100.0), removal(time=102.0), id="that it was removed again"),
    ],
)
async def test_what_says_more_replaces_what_is_known_under_a_new_number(
    old: wire.Removal, new: wire.Removal, path: Path
) -> None:
    journal = opened(path)
    await journal.record([old])
    assert await journal.record([new]) == [new]
    assert journal.get("c1") == new
    assert journal.after(1).removals == [new]
    assert len(opened(path).all()) == 1


# -- gone ----------------------------------------------------------------------------------------------------------


async def test_what_was_let_go_cannot_be_restored_and_others_still_hear_of_it(path: Path) -> None:
    journal = opened(path)
    await journal.record([removal("c1"), removal("c2")])
    await journal.mark_gone("c1")
    for same in (journal, opened(path)):
        assert same.get("c1") is None
        assert [r.cid for r in same.all()] == ["c2"]
        assert [r.cid for r in same.after(0).removals] == ["c1", "c2"]
    assert await journal.record([removal("c1")]) == []


async def test_what_went_long_ago_is_forgotten(path: Path) -> None:
    machine = Machine()
    journal = opened(path, machine.moment)
    await journal.record([removal("c1"), removal("c3")])
    machine.uptime += 100
    await journal.record([removal("c2")])
    await journal.mark_gone("c1")
    await journal.mark_gone("c2")
    machine.uptime += 50
    await journal.purge(older_s=120.0)
    assert {r.cid for r in opened(path).after(0).removals} == {"c2", "c3"}


async def test_what_came_back_is_forgotten(path: Path) -> None:
    journal = opened(path)
    await journal.record([removal()])
    await journal.drop(["c1", "unknown"])
    assert opened(path).get("c1") is None
    assert len(await journal.record([removal(time=300.0)])) == 1


# -- age -----------------------------------------------------------------------------------------------------------


class Machine:
    """A machine that the test starts, lets run and suspends."""

    def __init__(self) -> None:
        self.boot, self.uptime = "first", 1000.0

    def moment(self) -> Moment:
        return Moment(self.boot, self.uptime)

    def restart(self, *, uptime: float = 5.0) -> None:
        self.boot, self.uptime = self.boot + "+", uptime


def ages(journal: Journal) -> dict[str, float]:
    return {t.removal.cid: t.age_s for t in journal.lying()}


async def test_the_trash_ages_as_the_machine_runs(path: Path) -> None:
    machine = Machine()
    journal = opened(path, machine.moment)
    await journal.record([removal("c1")])
    machine.uptime += 60
    await journal.record([removal("c2")])
    machine.uptime += 5
    assert ages(journal) == {"c1": 65.0, "c2": 5.0}


async def test_a_clock_that_is_set_years_ahead_empties_no_trash(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    journal = opened(path, machine.moment)
    await journal.record([removal("c1", time=100.0)])
    monkeypatch.setattr("time.time", lambda: 100.0 + 365 * 86400)
    machine.uptime += 60
    for same in (journal, opened(path, machine.moment)):
        assert due(same.lying(), 30 * DAY, pressure=False) == []
        assert ages(same) == {"c1": 60.0}


async def test_the_trash_ages_while_only_the_daemon_was_down(path: Path) -> None:
    machine = Machine()
    await opened(path, machine.moment).record([removal("c1")])
    machine.uptime += DAY
    assert ages(opened(path, machine.moment)) == {"c1": DAY}


async def test_the_trash_does_not_age_while_the_machine_is_off(path: Path) -> None:
    machine = Machine()
    journal = opened(path, machine.moment)
    await journal.record([removal("c1")])
    machine.uptime += 10
    await journal.keep_time(at_once=True)
    machine.restart(uptime=50_000.0)
    again = opened(path, machine.moment)
    assert ages(again) == {"c1": 10.0}
    machine.uptime += 7
    assert ages(again) == {"c1": 17.0}


async def test_a_power_cut_costs_the_trash_an_hour_of_age_at_most(path: Path) -> None:
    machine = Machine()
    journal = opened(path, machine.moment)
    await journal.record([removal("c1")])
    for _ in range(100):
        machine.uptime += 100
        await journal.keep_time()
    machine.restart()
    assert 10_000 - 3700 <= ages(opened(path, machine.moment))["c1"] <= 10_000


async def test_a_trash_of_a_node_that_left_is_not_made_anew(path: Path) -> None:
    journal = opened(path)
    await journal.record([removal()])
    path.rename(path.with_name("before"))
    await journal.keep_time(at_once=True)
    assert not path.exists()


# -- due -----------------------------------------------------------------------------------------------------------

TRASH = [Lying(removal("young"), 20.0), Lying(removal("old"), 100.0), Lying(removal("older"), 105.0)]


def test_what_is_over_goes_the_oldest_first() -> None:
    assert [r.cid for r in due(TRASH, 100.0, pressure=False)] == ["older", "old"]


def test_what_is_not_over_stays() -> None:
    assert due(TRASH, 105.1, pressure=False) == []


def test_under_pressure_the_oldest_goes_before_its_time_and_only_that() -> None:
    assert [r.cid for r in due(TRASH, 200.0, pressure=True)] == ["older"]


def test_under_pressure_what_is_over_is_enough() -> None:
    assert [r.cid for r in due(TRASH, 100.0, pressure=True)] == ["older", "old"]


def test_an_empty_trash_gives_nothing() -> None:
    assert due([], 0.0, pressure=True) == []


# -- restore and view ----------------------------------------------------------------------------------------------


@given(
    st.builds(
        Pin,
        cid=st.just("c1"),
        name=st.text(min_size=1),
        owner=st.text(),
        root=st.text(min_size=1),
        size=st.integers(0),
        time=st.floats(0, 1e10),
        wanted=st.integers(1, 1000) | st.just("all"),
        directory=st.booleans(),
        files=st.integers(0),
    )
)
def test_what_is_restored_is_what_was_removed(pin: Pin) -> None:
    assert pin_of(removal_of(pin, "f1")) == pin


def test_a_removal_of_which_only_the_cid_is_known_is_shown_by_its_cid() -> None:
    pin = pin_of(wire.Removal(cid="c1", time=1.0, by=""))
    assert (pin.name, pin.root) == ("c1", "c1")


def test_the_trash_is_shown_with_the_newest_removal_first() -> None:
    same = [
        removal("c1", 10.0, name="club", entry_time=1.0),
        removal("c2", 20.0, name="club", entry_time=2.0, by="f2"),
        removal("c3", 15.0, name="minutes", owner=""),
        removal("c4", 1.0, by=""),
    ]
    lying = [Lying(r, 3 * DAY) for r in same]
    before = time.time()
    shown = view(lying, 30 * DAY, {"f1": "attic", "f2": "barn"}.__getitem__)
    assert [(t.name, t.version) for t in shown] == [("club", 1), ("minutes", 1), ("club", 2), ("name-c4", 1)]
    assert [(t.owner, t.removed_by) for t in shown] == [
        ("attic", "barn"),
        ("unknown", "attic"),
        ("attic", "attic"),
        ("attic", "unknown"),
    ]
    assert before + 27 * DAY <= shown[0].expires <= time.time() + 27 * DAY
