"""Who gets a connection, and who loses one: no sockets, no clock."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from meshd.serving.limiter import Limit, Limiter, Origin, Slot

ANA, BEN, COY = (Origin("people", name) for name in ("ana", "ben", "coy"))
ROOT = Origin("root", "0")
LIMITS = {"people": Limit(each=2, together=4), "root": Limit(1, 1)}


class Door:
    """A limiter with a clock that a test turns, and what it closed."""

    def __init__(self, grace_s: float = 0.0) -> None:
        self.now = 0.0
        self.closed: list[str] = []
        self.limiter = Limiter(LIMITS, grace_s=grace_s, monotonic=lambda: self.now)

    def take(self, origin: Origin, name: str) -> Slot | None:
        self.now += 1
        return self.limiter.take(origin, lambda: self.closed.append(name))

    def enters(self, origin: Origin, name: str) -> Slot:
        slot = self.take(origin, name)
        assert slot is not None
        return slot


@pytest.fixture
def door() -> Door:
    return Door()


def test_the_longest_silent_one_of_a_caller_makes_room_for_its_next(door: Door) -> None:
    door.enters(ANA, "first")
    door.enters(ANA, "second")
    door.enters(ANA, "third")
    assert door.closed == ["first"]


def test_a_caller_loses_its_own_connections_and_no_one_elses(door: Door) -> None:
    door.enters(BEN, "ben's, which is older")
    for name in ("a", "b", "c", "d"):
        door.enters(ANA, name)
    assert door.closed == ["a", "b"]


def test_what_is_being_answered_is_never_closed(door: Door) -> None:
    for name in ("watch", "upload"):
        door.limiter.busy(door.enters(ANA, name))
    assert door.take(ANA, "one more") is None
    assert door.closed == []


def test_silence_is_counted_from_the_end_of_the_last_answer(door: Door) -> None:
    first = door.enters(ANA, "first")
    door.limiter.busy(first)
    door.enters(ANA, "second")
    door.now += 1
    door.limiter.silent(first)
    door.enters(ANA, "third")
    assert door.closed == ["second"]


def test_where_all_places_are_taken_who_has_most_loses_one(door: Door) -> None:
    door.enters(BEN, "ben's, which is older")
    door.enters(COY, "coy's")
    door.enters(ANA, "a")
    door.enters(ANA, "b")
    door.enters(COY, "coy's second")
    assert door.closed == ["a"]


def test_others_cannot_take_the_places_of_root(door: Door) -> None:
    for origin in (ANA, BEN):
        for name in ("a", "b"):
            door.limiter.busy(door.enters(origin, name))
    assert door.take(COY, "too many together") is None
    assert door.take(ROOT, "root's") is not None
    assert door.closed == []


def test_in_its_grace_a_connection_keeps_its_place() -> None:
    door = Door(grace_s=5.0)
    door.enters(ANA, "first")
    door.enters(ANA, "second")
    assert door.take(ANA, "too soon") is None
    door.now += 3
    door.enters(ANA, "later")
    assert door.closed == ["first"]


def test_one_that_is_found_out_to_be_another_counts_as_that(door: Door) -> None:
    slot = door.enters(ANA, "root's in truth")
    assert door.limiter.move(slot, ROOT)
    assert (door.limiter.count("people"), door.limiter.count("root")) == (0, 1)
    door.limiter.busy(slot)
    other = door.enters(ANA, "also root's")
    assert not door.limiter.move(other, ROOT)
    assert (door.limiter.count("people"), door.limiter.count("root")) == (0, 1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "release", "busy", "silent", "move"]),
            st.sampled_from([ANA, BEN, COY, ROOT]),
            st.integers(0, 9),
        )
    )
)
def test_whatever_happens_no_limit_is_passed_and_nothing_busy_is_closed(
    steps: list[tuple[str, Origin, int]],
) -> None:
    door, slots = Door(), list[Slot]()

    def closing(slot_of: list[Slot]) -> None:
        assert slot_of[0].silent_since is not None
        slots.remove(slot_of[0])

    for do, origin, number in steps:
        door.now += 1
        if do == "take":
            mine: list[Slot] = []
            slot = door.limiter.take(origin, lambda mine=mine: closing(mine))  # type: ignore[misc]  # a default
            if slot is not None:
                mine.append(slot)
                slots.append(slot)
        elif slots:
            slot = slots[number % len(slots)]
            if do == "release":
                door.limiter.release(slot)
                slots.remove(slot)
            elif do == "move":
                if not door.limiter.move(slot, origin):
                    slots.remove(slot)
            else:
                (door.limiter.busy if do == "busy" else door.limiter.silent)(slot)
        for kind, limit in LIMITS.items():
            count = [slot.origin for slot in slots if slot.origin.kind == kind]
            assert door.limiter.count(kind) == len(count) <= limit.together
            assert all(count.count(each) <= limit.each for each in count)
