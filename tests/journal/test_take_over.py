"""The journal of meshd 0.1 is taken over whole, wherever that is cut off."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from meshd import files
from meshd.errors import Code, MeshError
from meshd.pins.trash import Journal
from tests.journal.journals import MADE, Machine, ages, opened, removal


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
                MADE.append(Journal(path, machine.moment))
            except _Cut:
                cut_off += 1
                assert old.exists() or path.exists()
                continue
        if len(calls) <= cut_off:
            break
    assert cut_off > 0
    check_old(MADE[-1])
    left = {p.name for p in path.parent.iterdir()}
    assert left <= {"trash.db", "trash.db-wal"}, "nothing unfinished"


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
