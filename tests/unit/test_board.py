"""The board tells each condition once when it comes and once when it goes; and services that die again and again."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from meshd.model import Condition, PeerState, Phase, ServiceState
from tests.unit.facts import AWAY, TROUBLE, Looked, facts, listened, service, told

# -- services that die again and again -----------------------------------------------------------------------------


def dying(board: Looked, *looks: tuple[float, Phase, int]) -> set[str]:
    """What is told after these looks at kubo: when, its phase, how often it has failed."""
    for now, phase, restarts in looks:
        state = ServiceState("kubo", phase, restarts=restarts, last_exit="exit 1" if restarts else "")
        board.look(facts(now, services={"kubo": state}))
    return {c.code for c in board.conditions}


CRASHING = [(float(10 * n), Phase.READY, n) for n in range(4)]


def test_a_service_that_runs_each_time_it_is_looked_at_and_yet_keeps_dying_is_told() -> None:
    board = Looked()
    assert dying(board, *CRASHING[:3]) == set()
    assert dying(board, CRASHING[3]) == {"service-unstable"}
    (condition,) = board.conditions
    assert condition.cause == "3 times in ten minutes; the last time: exit 1"
    assert "meshctl logs kubo" in condition.hint


def test_it_is_well_again_after_two_calm_minutes() -> None:
    board = Looked()
    assert dying(board, *CRASHING, (149.0, Phase.READY, 3)) == {"service-unstable"}
    assert dying(board, (151.0, Phase.READY, 3)) == set()


def test_deaths_of_long_ago_do_not_count() -> None:
    board = Looked()
    dying(board, *((float(100 * n), Phase.READY, n) for n in range(20)))
    (condition,) = board.conditions
    assert condition.cause.startswith("7 times in ten minutes"), "those at 1300, 1400 ... 1900"
    assert condition.since == 300.0


def test_a_service_that_never_gets_ready_is_down_and_not_unstable() -> None:
    board = Looked()
    looks = [(float(n), (Phase.STARTING, Phase.BACKOFF)[n % 2], (n + 1) // 2) for n in range(20)]
    assert dying(board, *looks) == {"service-down"}


def test_a_service_that_was_killed_is_told_with_what_kills() -> None:
    killed = "kubo ended by itself: signal SIGKILL; its last lines: Daemon is ready"
    (condition,) = told(facts(**service(phase=Phase.BACKOFF, last_exit=killed)))
    assert condition.cause == "kubo ended by itself: signal SIGKILL, so something killed it"
    assert "out of memory" in condition.hint


def test_the_worst_comes_first_then_the_oldest() -> None:
    board = Looked()
    board.look(facts(10.0, full="full"))
    board.look(facts(20.0, full="full", joined=(("cellar", "attic", "invited"),), short=1))
    board.look(facts(30.0, full="full", joined=(("cellar", "attic", "invited"),), short=1, drift=("d",)))
    assert [(c.code, c.since) for c in board.conditions] == [
        ("kubo-config-drift", 30.0),
        ("disk-floor", 10.0),
        ("copies-missing", 20.0),
        ("member-joined", 20.0),
    ]


# -- the board -----------------------------------------------------------------------------------------------------


def test_a_condition_is_told_once_when_it_comes_and_once_when_it_goes() -> None:
    board, heard = listened()
    for now, full in enumerate(["", "5 bytes", "4 bytes", "3 bytes", "", ""]):
        board.look(facts(float(now), full=full))
    assert heard == [("raised", "disk-floor"), ("cleared", "disk-floor")]
    assert board.conditions == ()


def test_it_keeps_since_when_and_shows_the_newest_cause() -> None:
    board = Looked()
    board.look(facts(10.0, full="5 bytes"))
    board.look(facts(20.0, full="4 bytes"))
    (condition,) = board.conditions
    assert (condition.since, condition.cause) == (10.0, "4 bytes")


def test_what_comes_back_is_told_again_with_a_new_since() -> None:
    board, heard = listened()
    for now, full in ((10.0, "x"), (20.0, ""), (30.0, "x")):
        board.look(facts(now, full=full))
    assert heard == [("raised", "disk-floor"), ("cleared", "disk-floor"), ("raised", "disk-floor")]
    assert board.conditions[0].since == 30.0


def test_two_of_a_kind_are_two() -> None:
    board, heard = listened()
    other = PeerState("f3", "cellar", "10.0.0.3")
    board.look(facts(peers=(AWAY, other)))
    board.look(facts(peers=(other,)))
    assert heard == [("raised", "peer-away"), ("raised", "peer-away"), ("cleared", "peer-away")]
    assert [c.subject for c in board.conditions] == ["cellar"]


@given(st.lists(st.sets(st.integers(0, len(TROUBLE) - 1), max_size=4), max_size=6))
def test_what_was_raised_and_not_cleared_is_what_holds(turns: list[set[int]]) -> None:
    board = Looked()
    held: set[tuple[str, str]] = set()

    def hear(what: str, condition: Condition) -> None:
        if what == "raised":
            assert condition.key not in held
            held.add(condition.key)
        else:
            held.remove(condition.key)

    board.listeners.append(hear)
    for now, troubles in enumerate(turns):
        merged: dict[str, Any] = {}
        for index in troubles:
            merged |= {key: value for key, value in TROUBLE[index][2].items() if key != "now"}
        board.look(facts(float(now), **merged))
        assert {c.key for c in board.conditions} == held
