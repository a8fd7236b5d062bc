"""The journal of removals on a full disk: the node starts with all it knows, and records nothing until there is room.

Each disk is a real one: a small filesystem in memory, or an ext4 in a file.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from meshd import db, wire
from meshd.errors import Code, MeshError
from meshd.pins import journal_json
from meshd.pins.trash import Journal
from meshd.pins.uptime_clock import Moment
from tests.mesh.disks import NEEDS_DISKS, MakeDisk, make_disk
from tests.refusals.daemon import tmpfs

__all__ = ["make_disk"]  # a fixture is known where it is imported
pytestmark = NEEDS_DISKS


def removal(cid: str) -> wire.Removal:
    return wire.Removal(cid=cid, time=100.0, by="f1", name=f"name-{cid}", owner="f1")


def now() -> Moment:
    return Moment("first", 1000.0)


OLD = {
    "version": 1,
    "last": 9,
    "clock": 500.0,
    "boot": "first",
    "uptime": 900.0,
    "removals": [
        {"number": 4, "removal": removal("c1").model_dump(), "at": 100.0, "gone": True},
        {"number": 7, "removal": removal("c2").model_dump(), "at": 450.0, "gone": False},
    ],
}


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path, make_disk: MakeDisk) -> Iterator[Path]:
    """A disk with some room."""
    folder = tmp_path / "disk"
    if request.param == "ext4":
        make_disk(folder, 8 * 1024 * 1024)
        yield folder
    else:
        with tmpfs(folder, "size=1m,nr_inodes=64,mode=700"):
            yield folder


@pytest.fixture
def path(disk: Path) -> Path:
    return disk / "trash.db"


def use_up_room(disk: Path) -> Callable[[], None]:
    """Take all of it, to the last block. What is returned makes room again."""
    filler = disk / "fill"
    with filler.open("wb", buffering=0) as file:
        for size in (64 * 1024, 4096, 512):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return filler.unlink


def use_up_inodes(disk: Path) -> Callable[[], None]:
    """Take all of them: no file can be made. What is returned makes room again."""
    filler = disk / "files"
    filler.mkdir()
    with contextlib.suppress(OSError):
        for number in range(10_000):
            (filler / str(number)).touch()
    return lambda: shutil.rmtree(filler)


SHORTAGES = [use_up_room, use_up_inodes]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Journal]:
    """A journal as a start of the daemon finds it."""
    journal = Journal(path, now)
    try:
        yield journal
    finally:
        journal.close()


async def killed(path: Path) -> None:
    """What a killed daemon leaves: the newest record is beside the file only."""
    with opened(path) as journal:
        await journal.record([removal("c1")])
        await journal.record([removal("c2")])
        beside = path.with_name(f"{path.name}-wal")
        kept = [(file, file.read_bytes()) for file in (path, beside)]
    for file, content in kept:
        file.write_bytes(content)


async def ended(path: Path) -> None:
    """What one that was stopped leaves: one file."""
    with opened(path) as journal:
        await journal.record([removal("c1"), removal("c2")])


async def refused(journal: Journal, cid: str) -> None:
    with pytest.raises(MeshError, match="cannot record what was removed") as caught:
        await journal.record([removal(cid)])
    assert caught.value.code is Code.DISK_FLOOR
    assert "df -h" in caught.value.hint


@pytest.mark.parametrize("use_up", SHORTAGES)
@pytest.mark.parametrize("left", [ended, killed])
async def test_a_full_disk_lets_a_node_read_its_journal_and_record_once_there_is_room(
    left: Callable[[Path], Awaitable[None]], use_up: Callable[[Path], Callable[[], None]], path: Path
) -> None:
    await left(path)
    make_room = use_up(path.parent)
    with opened(path) as journal:
        assert [r.cid for r in journal.all()] == ["c1", "c2"]
        assert journal.last == 2
        if use_up is use_up_room or left is ended:  # else the file beside it is there, and has room
            await refused(journal, "c3")
            assert journal.last == 2, "nobody is told of it"
        make_room()
        await journal.record([removal("c4")])
        assert journal.last >= 3
    with opened(path) as again:
        assert {"c1", "c2", "c4"} <= {r.cid for r in again.all()}


async def test_what_was_not_recorded_for_want_of_room_is_no_record_after_a_restart(path: Path) -> None:
    await ended(path)
    use_up_inodes(path.parent)
    with opened(path) as journal:
        await refused(journal, "c3")
    with opened(path) as again:
        assert [r.cid for r in again.all()] == ["c1", "c2"]


async def test_nothing_is_read_past_what_lies_beside_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that cannot be opened, the file alone would tell less than what was recorded."""
    await killed(path)
    use_up_room(path.parent)
    connect = db._connect

    def no_room(path: Path, how: str) -> sqlite3.Connection:
        if "immutable" not in how:
            exc = sqlite3.OperationalError("database or disk is full")
            exc.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise exc
        return connect(path, how)

    monkeypatch.setattr(db, "_connect", no_room)
    with pytest.raises(MeshError) as caught:
        Journal(path, now)
    assert caught.value.code is Code.DISK_FLOOR


# -- what an older meshd left ---------------------------------------------------------------------------------------


def check_old(journal: Journal) -> None:
    """It has what OLD says, 100 s after that was written on the same run of the machine."""
    assert journal.last == 9
    assert [r.cid for r in journal.after(0).removals] == ["c1", "c2"]
    assert journal.all() == [removal("c2")]
    assert {t.removal.cid: t.age_s for t in journal.lying()} == {"c2": 150.0}


@pytest.fixture
def old(path: Path) -> Path:
    old = path.with_name("trash.json")
    old.write_text(json.dumps(OLD))
    return old


@pytest.mark.parametrize("use_up", SHORTAGES)
def test_what_an_older_meshd_recorded_stays_where_it_is_until_there_is_room(
    use_up: Callable[[Path], Callable[[], None]], path: Path, old: Path
) -> None:
    before = old.read_bytes()
    use_up(path.parent)
    for _ in range(2):  # a crash costs nothing: the next start finds the same, with the same numbers
        with opened(path) as journal:
            check_old(journal)
    assert old.read_bytes() == before
    assert not path.exists()


@pytest.mark.parametrize("use_up", SHORTAGES)
async def test_the_next_record_takes_an_older_journal_over(
    use_up: Callable[[Path], Callable[[], None]], path: Path, old: Path
) -> None:
    make_room = use_up(path.parent)
    with opened(path) as journal:
        await refused(journal, "c3")
        assert old.exists()
        make_room()
        await journal.record([removal("c4")])
        assert not old.exists()
    with opened(path) as again:
        assert [r.cid for r in again.all()] == ["c2", "c3", "c4"]
        assert again.last == 11
        assert again.knows("c1")


async def test_without_a_new_record_it_is_taken_over_when_the_time_is_kept(path: Path, old: Path) -> None:
    make_room = use_up_room(path.parent)
    with opened(path) as journal:
        await journal.keep_time()  # without room that is no error: a sweep goes on
        assert old.exists()
        make_room()
        await journal.keep_time()
        assert not old.exists()
    with opened(path) as again:
        check_old(again)


async def test_what_was_put_back_meanwhile_does_not_come_back_from_the_old_file(
    path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power goes after the records are in the database and before the old file has gone."""
    make_room = use_up_room(path.parent)
    with opened(path) as journal:
        with pytest.raises(MeshError):
            await journal.drop(["c2"])
        make_room()
        with monkeypatch.context() as patch:

            def cut(_: Path) -> None:
                raise MeshError(Code.BAD_STATE, "cannot remove it", "the disk is ill", "")

            patch.setattr(journal_json, "remove", cut)
            with pytest.raises(MeshError, match="cannot remove it"):
                await journal.drop([])
    assert path.exists()
    with opened(path) as again:  # the drop was not acknowledged
        check_old(again)
        await again.drop(["c2"])
    assert not old.exists()
    with opened(path) as again:
        assert again.all() == []


async def test_an_older_journal_is_added_to_what_is_there_under_the_same_numbers(path: Path) -> None:
    with opened(path) as journal:
        await journal.record([removal("c0")])
    path.with_name("trash.json").write_text(json.dumps(OLD))
    make_room = use_up_inodes(path.parent)
    for _ in range(2):
        with opened(path) as journal:
            assert [r.cid for r in journal.all()] == ["c0", "c2"]
            assert journal.last == 1 + 9
    make_room()
    with opened(path) as journal:
        assert [r.cid for r in journal.all()] == ["c0", "c2"]
        assert journal.last == 1 + 9
    assert not path.with_name("trash.json").exists()


# -- alone ----------------------------------------------------------------------------------------------------------


async def test_a_journal_needs_no_third_file_and_is_held_by_one_meshd(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_S", 0.05)
    await ended(path)
    with opened(path) as journal:
        await journal.record([removal("c3")])
        assert {p.name for p in path.parent.glob("trash*")} == {"trash.db", "trash.db-wal"}
        with pytest.raises(MeshError) as caught:
            Journal(path, now)
        assert caught.value.code is Code.BUSY
        assert path.stat().st_mode & 0o777 == 0o600
