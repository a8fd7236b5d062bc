"""What the journal of removals tells and to whom, how the trash ages, and what is due."""

from __future__ import annotations

import time
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from meshd import wire
from meshd.model import Pin
from meshd.pins.trash import Lying, due, pin_of, removal_of, view
from tests.journal.journals import Machine, ages, opened, removal

DAY = 86400.0


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
