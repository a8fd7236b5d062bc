"""A cache in SQLite: it is there again as it was left, or it is empty; it never keeps anybody from going on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from meshd.db import Cache, Discarded, Schema

SCHEMA = Schema(what="a cache", application=7, version=2, create="CREATE TABLE facts (fact TEXT)", lost="")


def put(sql: sqlite3.Connection) -> None:
    sql.execute("INSERT INTO facts VALUES ('one')")


def facts(cache: Cache) -> list[str]:
    return cache.run(lambda sql: [fact for (fact,) in sql.execute("SELECT fact FROM facts")])


def left(path: Path) -> Path:
    """A file with one fact."""
    with closing(Cache(path, SCHEMA)) as cache:
        cache.run(put)
    return path


def test_it_is_there_again_for_nobody_else_to_read(tmp_path: Path) -> None:
    path = left(tmp_path / "cache.db")
    assert path.stat().st_mode & 0o777 == 0o600
    with closing(Cache(path, SCHEMA)) as cache:
        assert facts(cache) == ["one"]
        assert not cache.in_memory


def other_application(path: Path) -> None:
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("PRAGMA application_id=8")


def older(path: Path) -> None:
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("PRAGMA user_version=1")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("PRAGMA user_version=3")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def noise(path: Path) -> None:
    path.write_bytes(b"x" * 10_000)


@pytest.mark.parametrize("damage", [other_application, older, newer, cut_off, empty, noise])
def test_a_file_that_cannot_be_used_is_made_anew(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = left(tmp_path / "cache.db")
    damage(path)
    with closing(Cache(path, SCHEMA)) as cache:
        assert facts(cache) == []
        cache.run(put)
        assert not cache.in_memory
    with closing(Cache(path, SCHEMA)) as cache:
        assert facts(cache) == ["one"]


def test_where_no_file_can_be_made_it_is_in_memory(tmp_path: Path) -> None:
    with closing(Cache(tmp_path / "no folder" / "cache.db", SCHEMA)) as cache:
        cache.run(put)
        assert facts(cache) == ["one"]
        assert cache.in_memory


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """What is written must not land in another file of the user's."""
    target = tmp_path / "other"
    (tmp_path / "cache.db").symlink_to(target)
    with closing(Cache(tmp_path / "cache.db", SCHEMA)) as cache:
        cache.run(put)
    assert not target.exists()


def test_a_file_that_fails_later_is_thrown_away_and_it_goes_on_in_memory(tmp_path: Path) -> None:
    path = left(tmp_path / "cache.db")

    def fail(sql: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with closing(Cache(path, SCHEMA)) as cache:
        cache.run(put)
        with pytest.raises(Discarded):
            cache.run(fail)
        assert facts(cache) == []
        cache.run(put)
        assert facts(cache) == ["one"]
        assert cache.in_memory
        assert list(tmp_path.iterdir()) == []


def test_what_a_caller_does_wrong_is_told_and_nothing_of_it_is_done(tmp_path: Path) -> None:
    def wrong(sql: sqlite3.Connection) -> None:
        put(sql)
        raise ValueError("wrong")

    def unbound(sql: sqlite3.Connection) -> None:
        put(sql)
        sql.execute("INSERT INTO facts VALUES (?)")

    with closing(Cache(tmp_path / "cache.db", SCHEMA)) as cache:
        with pytest.raises(ValueError, match="wrong"):
            cache.run(wrong)
        with pytest.raises(sqlite3.ProgrammingError):
            cache.run(unbound)
        assert facts(cache) == []
        assert not cache.in_memory
