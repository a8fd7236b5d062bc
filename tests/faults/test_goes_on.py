"""Whatever a loop or a check of the daemon raises, it goes on, and says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import LONGEST_S, Daemon
from tests.mesh.pairing import until


@pytest.mark.parametrize(
    ("fault", "part", "error"),
    [
        ("a_check", "check clocks", "KeyError: 'a mistake in a check'"),
        ("a_watcher", "heartbeats", "Input/output error: /var/lib/meshd/seen.json"),
        ("a_look", "audit of the secrets", "Input/output error: /var/lib/meshd/node.key"),
        ("one_pass", "reconciler", "KeyError: 'a mistake in a pass'"),
    ],
)
def test_a_part_that_raises_is_a_condition_and_the_node_serves_on(
    daemon: Daemon, fault: str, part: str, error: str
) -> None:
    daemon.begin(fault).serving()
    until(lambda: "part-failed" in daemon.conditions(), "it is said", LONGEST_S)
    told = daemon.conditions()["part-failed"]
    assert told["subject"] == part
    assert error in told["cause"]
    assert "journalctl" in told["hint"]

    (daemon.state / "node.key").chmod(0o644)
    if fault != "a_look":
        until(lambda: "secret-readable" in daemon.conditions(), "what else is wrong is said too", LONGEST_S)
    assert daemon.meshctl("status").out.count("error: a part of meshd fails") == 1
    assert len(daemon.engines) == 2

    daemon.signal()
    assert daemon.ended() == 0
    assert daemon.ends_of_engines() == [("cluster", "exit 0"), ("kubo", "exit 0")]
    told_of = [line["failed"] for line in daemon.logged("a part failed")]
    told_of += [f"check {line['check']}" for line in daemon.logged("a check failed")]
    assert told_of.count(part) == 1, "told once, however often it failed"


def test_a_disk_that_cannot_be_asked_is_a_condition_and_the_status_still_answers(daemon: Daemon) -> None:
    daemon.begin("the_disk").serving()
    until(lambda: "disk-unreadable" in daemon.conditions(), "it is said", LONGEST_S)
    status = daemon.status()
    assert status["storage"] is None
    assert [p["accepts"] for p in status["peers"]] == [False]
    assert "its disk cannot be seen" in daemon.meshctl("status").out

    (daemon.state / "node.key").chmod(0o644)
    until(lambda: "secret-readable" in daemon.conditions(), "what is new is said", LONGEST_S)
    daemon.signal()
    assert daemon.ended() == 0


def test_a_log_that_takes_nothing_ends_nothing(daemon: Daemon) -> None:
    daemon.begin("a_watcher", stderr=Path("/dev/full")).serving()
    until(lambda: "part-failed" in daemon.conditions(), "what goes on is said by status", LONGEST_S)
    daemon.signal()
    assert daemon.ended() == 0
    assert daemon.engines == []
