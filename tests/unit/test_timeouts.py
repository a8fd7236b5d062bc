"""How long one waits for a node's copy, and what is said meanwhile."""

from __future__ import annotations

import pytest

from meshd.pins.timeouts import SAY_AFTER_S, TELL_EVERY_S, State, given_up, worth_saying, worth_telling


@pytest.mark.parametrize(
    ("state", "waited_s", "away", "expected"),
    [
        ("held", 1e9, True, False),
        ("refused", 0.0, False, True),
        ("unknown", 19.0, False, False),
        ("unknown", 21.0, False, True),
        ("unknown", 1.0, True, False),
        ("unknown", 3.0, True, True),
        ("missing", 89.0, False, False),
        ("missing", 91.0, False, True),
        ("missing", 3.0, True, False),
        ("fetching", 140.0, False, False),  # one block over a line of 64 kbit/s
        ("fetching", 181.0, False, True),
    ],
)
def test_a_node_is_given_up_when_it_gets_no_further(
    state: State, waited_s: float, away: bool, expected: bool
) -> None:
    assert given_up(state, waited_s, away=away) is expected


@pytest.mark.parametrize("state", sorted(SAY_AFTER_S))
def test_who_waits_is_told_for_whom_and_not_at_once(state: State) -> None:
    after = SAY_AFTER_S[state]
    assert worth_saying(state, after - 0.1, "barn") == ""
    assert "waiting for barn" in worth_saying(state, after + 0.1, "barn")
    assert not given_up(state, after + 0.1), "it is said before the node is given up"


@pytest.mark.parametrize("state", ["held", "refused"])
def test_there_is_nothing_to_say_of_a_node_that_is_done(state: State) -> None:
    assert worth_saying(state, 1e9, "barn") == ""


@pytest.mark.parametrize(
    ("fetched", "told", "passed_s", "expected"),
    [
        (0, 0, float("inf"), False),  # nothing yet
        (1, 0, float("inf"), True),
        (2, 1, TELL_EVERY_S / 2, False),
        (2, 1, TELL_EVERY_S, True),
        (2, 2, 1e9, False),
        (1, 2, TELL_EVERY_S, True),  # it has begun anew
    ],
)
def test_what_a_node_has_fetched_is_told_when_it_changed_and_not_too_often(
    fetched: int, told: int, passed_s: float, expected: bool
) -> None:
    assert worth_telling(fetched, told, passed_s) is expected
