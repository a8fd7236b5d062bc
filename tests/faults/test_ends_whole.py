"""A daemon that cannot go on ends whole: nothing of it runs on, the log says why, the exit code is not 0. And SIGTERM is heeded
at every moment."""

from __future__ import annotations

import signal

import pytest

from tests.faults.conftest import LONGEST_S, Daemon
from tests.mesh.pairing import until

IN_ORDER = [("cluster", "exit 0"), ("kubo", "exit 0")]


def cannot(daemon: Daemon) -> list[str]:
    """What the log says of why it cannot go on, or else end in order: the first thing first."""
    events = ("cannot go on", "a step of the shutdown failed")
    return [line["error"] for event in events for line in daemon.logged(event)]


# -- it ends by itself ---------------------------------------------------------------------------------------------


def test_where_no_pass_succeeds_any_more_it_stops_its_engines_and_ends_with_1(daemon: Daemon) -> None:
    daemon.begin("every_pass")
    daemon.until_said("a part failed")
    assert daemon.ended() == 1
    assert daemon.ends_of_engines() == IN_ORDER
    (line,) = daemon.logged("cannot go on")
    assert "KeyError: 'a mistake in a pass'" in line["error"]
    assert line["timestamp"] < daemon.logged("stopping")[0]["timestamp"], "it is said before anything else"
    assert daemon.said().startswith("meshd: cannot go on\n  whether kubo and the cluster may run could not")
    assert not daemon.holds_its_folder
    assert not daemon.socket.exists()


def test_engines_that_hear_no_sigterm_are_killed_when_it_ends_by_itself(daemon: Daemon) -> None:
    daemon.begin("every_pass", "deaf")
    assert daemon.ended() == 1
    assert daemon.ends_of_engines() == [("cluster", "signal SIGKILL"), ("kubo", "signal SIGKILL")]


# -- SIGTERM, at each moment ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_stops_in_order_and_ends_with_0(daemon: Daemon, number: signal.Signals) -> None:
    daemon.begin().serving().signal(number)
    assert daemon.ended() == 0
    assert daemon.ends_of_engines() == IN_ORDER
    assert cannot(daemon) == []


def test_told_to_stop_while_it_starts(daemon: Daemon) -> None:
    daemon.begin("a_start_that_hangs").until_said("held up")
    daemon.signal()
    assert daemon.ended() == 0
    assert daemon.ends_of_engines() == []


def test_told_to_stop_while_its_engines_start(daemon: Daemon) -> None:
    daemon.begin("a_kubo_that_never_gets_ready")
    until(lambda: daemon.engines, "kubo was started", LONGEST_S)
    daemon.signal()
    assert daemon.ended() == 0


def test_told_to_stop_while_no_pass_succeeds(daemon: Daemon) -> None:
    daemon.begin("every_pass")
    daemon.until_said("a part failed")
    daemon.signal()
    assert daemon.ended() == 1
    assert daemon.ends_of_engines() == IN_ORDER


def test_told_twice_it_kills_what_does_not_end_and_ends_with_1(daemon: Daemon) -> None:
    daemon.begin("a_stop_that_hangs", "deaf").serving().signal()
    daemon.until_said('"stopping"')
    daemon.signal()
    assert daemon.ended() == 1
    assert "a second signal came" in daemon.said()


def test_told_twice_while_the_event_loop_is_held_up(daemon: Daemon) -> None:
    """As by a disk that does not answer: nothing of the daemon itself can answer then."""
    daemon.begin("a_loop_that_is_held_up").until_said("held up")
    assert len(daemon.engines) == 2
    daemon.signal()
    daemon.signal(signal.SIGINT)  # not a second SIGTERM: the kernel makes one of two that wait
    assert daemon.ended() == 1
    assert "meshd: cannot end in order\n  it was told so twice, and still ran" in daemon.said()
    assert "kubo and the cluster were killed\n" in daemon.said()
    assert "in broken" in daemon.said(), "where it hangs"


# -- an end in which something goes wrong --------------------------------------------------------------------------


def test_a_step_of_the_end_that_raises_keeps_no_other_one_from_being_taken(daemon: Daemon) -> None:
    daemon.begin("a_step_that_raises").serving().signal()
    assert daemon.ended() == 1
    assert cannot(daemon)[0] == "KeyError: 'a mistake at the end'"
    assert daemon.ends_of_engines() == IN_ORDER
    assert not daemon.socket.exists()


def test_a_stop_that_takes_too_long_ends_in_a_kill_and_with_1(daemon: Daemon) -> None:
    daemon.begin("a_stop_that_hangs").serving().signal()
    assert daemon.ended() == 1
    assert cannot(daemon) == [
        "cannot end in order: kubo and the cluster: it was not done within 8 s",
        "cannot end in order: kubo and the cluster were killed",
    ]
    assert daemon.ends_of_engines() == [("cluster", "exit 0")]
    assert not daemon.holds_its_folder


def test_a_task_that_does_not_end_is_not_waited_for_for_ever(daemon: Daemon) -> None:
    daemon.begin("a_task_that_does_not_end").serving().signal()
    assert daemon.ended() == 1
    assert daemon.ends_of_engines() == IN_ORDER
    assert "tasks or threads of it had not ended" in daemon.said()
