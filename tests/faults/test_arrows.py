"""Calls between rooms go down, as the arrows of the architecture page do. Upwards goes only what answers nothing: events."""

from __future__ import annotations

import json
from typing import NamedTuple

from tests.docs.test_architecture import floors
from tests.faults.conftest import LONGEST_S, Daemon
from tests.mesh.pairing import until

# Where a lower room is made to be filled by a higher one, which it knows as a protocol of its own: (caller, callee).
PLUGGED_IN = {
    ("supervise", "kubo"): "supervise.service.Program: how a program is prepared and asked",
    ("supervise", "cluster"): "the same",
    ("serving", "control"): "serving.listener.Listener: its socket, who calls, what one too many is told",
    ("serving", "pins"): "the same",
    ("serving", "http"): "serving.listener.Listener.guard: what answers a request",
}
# It calls the handlers of the routes that all rooms bring (http.route.Route), and who says who calls (http.adapter.Identify).
SERVES_ALL = "http"


class Call(NamedTuple):
    caller: str
    by: str
    callee: str
    function: str
    answers: list[str]


def upward(calls: list[Call]) -> list[Call]:
    """Those from a room to one above it that are answered."""
    floor_of = {room: number for number, rooms in enumerate(floors()) for room in rooms}
    return [
        call
        for call in calls
        if call.answers
        and floor_of[call.caller] > floor_of[call.callee]
        and call.caller != SERVES_ALL
        and (call.caller, call.callee) not in PLUGGED_IN
    ]


def test_a_node_that_runs_makes_no_call_that_is_answered_by_a_room_above(daemon: Daemon) -> None:
    daemon.begin("traced").serving()
    for verb in ("status", "doctor", "peers", "ls", "trash"):
        assert daemon.meshctl(verb).code in (0, 1)
    (daemon.state / "node.key").chmod(0o644)
    until(lambda: "secret-readable" in daemon.conditions(), "what is wrong is noticed", LONGEST_S)
    daemon.signal()
    assert daemon.ended() == 0
    calls = [Call(*call) for call in json.loads((daemon.folder / "calls.json").read_text())]
    seen = {(call.caller, call.callee) for call in calls}
    assert {
        ("control", "pins"),
        ("reconciler", "mesh"),
        ("lifecycle", "reconciler"),
        ("pins", "mesh"),
    } <= seen
    assert ("supervise", "reconciler") in seen, "a service tells the reconciler, which answers nothing"
    assert upward(calls) == []


def test_a_call_that_is_answered_from_above_is_seen() -> None:
    wrong = Call("mesh", "Membership._serve", "control", "StatusApi.why_not_ready", ["str"])
    told = Call("mesh", "MeshStore._apply", "reconciler", "Reconciler.wake", [])
    down = Call("control", "StatusApi.document", "mesh", "MeshStore.me", ["Member"])
    assert upward([wrong, told, down]) == [wrong]
