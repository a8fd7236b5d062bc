"""decide() as a table: one row a rule."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest

from meshd.model import OverlayState, Phase, ServiceState, Snapshot
from meshd.reconciler.decide import (
    GRACE_WITHOUT_ADDRESS,
    LOOK_AGAIN,
    Action,
    Fail,
    Link,
    Listen,
    Recover,
    Start,
    Stop,
    decide,
    why_not_run,
)

HERE = "10.0.0.1"
NOW = 1000.0
WANTED = {"kubo": "k1", "cluster": "c1"}
PIDS = {"kubo": 10, "cluster": 20}


def service(name: str, phase: str, **facts: Any) -> ServiceState:
    runs = phase in ("starting", "ready", "stopping")
    fields: dict[str, Any] = {"pid": PIDS[name] if runs else None, "settings": WANTED[name] if runs else ""}
    return ServiceState(name, Phase(phase), **(fields | facts))


def snapshot(
    kubo: str | ServiceState = "ready", cluster: str | ServiceState = "ready", **facts: Any
) -> Snapshot:
    """A node on which all is well, but for what is given."""
    services = {
        "kubo": service("kubo", kubo) if isinstance(kubo, str) else kubo,
        "cluster": service("cluster", cluster) if isinstance(cluster, str) else cluster,
    }
    fields: dict[str, Any] = {
        "overlay": OverlayState(HERE),
        "in_mesh": True,
        "wanted_settings": WANTED,
        "listening": HERE,
        "recovered_for": (10, 20),
    }
    return Snapshot(NOW, services=services, **(fields | facts))


NO_ADDRESS: dict[str, Any] = {"overlay": OverlayState(), "wanted_settings": {}}


@dataclass(frozen=True)
class Row:
    case: str
    seen: Snapshot
    done: tuple[Action, ...]


def backoff(name: str, retry_in: float, settings: str = "") -> ServiceState:
    return service(name, "backoff", retry_at=NOW + retry_in, settings=settings or WANTED[name])


TABLE = [
    Row("where all is well nothing is done", snapshot(), ()),
    # order of start
    Row("kubo is started first", snapshot("stopped", "stopped"), (Start("kubo"),)),
    Row("the cluster waits while kubo starts", snapshot("starting", "stopped"), ()),
    Row("the cluster waits while kubo is in back-off", snapshot(backoff("kubo", 5), "stopped"), ()),
    Row("the cluster waits while kubo stops", snapshot("stopping", "stopped"), ()),
    Row("the cluster starts once kubo is ready", snapshot("ready", "stopped"), (Start("cluster"),)),
    # a disk that was full
    Row(
        "what could not write is left alone while there is no room",
        snapshot(cluster=service("cluster", "ready", starved="no space left on device"), disk_full=True),
        (),
    ),
    Row(
        "what could not write is started anew once there is room",
        snapshot(cluster=service("cluster", "ready", starved="no space left on device")),
        (Stop("cluster", "its disk was full, which it does not get over by itself"),),
    ),
    # why nothing may run
    Row("outside a mesh nothing starts", snapshot("stopped", "stopped", in_mesh=False), (Listen(None),)),
    Row("without an address nothing starts", snapshot("stopped", "stopped", **NO_ADDRESS), (Listen(None),)),
    Row("on a forgotten node nothing starts", snapshot("stopped", "stopped", forgotten=True), ()),
    Row("while meshd stops nothing starts", snapshot("stopped", "stopped", stopping=True), (Listen(None),)),
    # order of stop
    Row(
        "the cluster is stopped before kubo", snapshot(stopping=True), (Stop("cluster", "meshd is stopping"),)
    ),
    Row("kubo waits until the cluster has stopped", snapshot("ready", "stopping", stopping=True), ()),
    Row(
        "then kubo is stopped",
        snapshot("ready", "stopped", stopping=True),
        (Stop("kubo", "meshd is stopping"),),
    ),
    Row(
        "a cluster in back-off does not run and need not be waited for",
        snapshot("ready", backoff("cluster", 5), stopping=True),
        (Stop("kubo", "meshd is stopping"), Stop("cluster", "meshd is stopping")),
    ),
    Row("what stops already is not told again", snapshot("stopping", "stopping", stopping=True), ()),
    Row(
        "a node that left its mesh stops in order",
        snapshot(in_mesh=False),
        (Stop("cluster", "this node is in no mesh"), Listen(None)),
    ),
    Row(
        "a forgotten node stops in order, and goes on telling others",
        snapshot(forgotten=True),
        (Stop("cluster", "the mesh has forgotten this node"),),
    ),
    Row(
        "when the address is gone all stop at once, soon",
        snapshot(**NO_ADDRESS),
        (
            Stop("kubo", "there is no overlay address", GRACE_WITHOUT_ADDRESS),
            Stop("cluster", "there is no overlay address", GRACE_WITHOUT_ADDRESS),
            Listen(None),
        ),
    ),
    # settings
    Row(
        "what runs with other settings is stopped",
        snapshot(wanted_settings={"kubo": "k1", "cluster": "c2"}),
        (Stop("cluster", "its settings have changed"),),
    ),
    Row(
        "what starts with other settings is stopped",
        snapshot(
            "ready", "starting", wanted_settings={"kubo": "k1", "cluster": "c2"}, under_way={"cluster": 1.0}
        ),
        (Stop("cluster", "its settings have changed"),),
    ),
    # back-off
    Row("a back-off is waited out", snapshot(backoff("kubo", 0.1), "ready"), ()),
    Row(
        "after its back-off a service starts again", snapshot(backoff("kubo", 0.0), "ready"), (Start("kubo"),)
    ),
    Row(
        "other settings are tried at once",
        snapshot(backoff("kubo", 30, settings="k0"), "ready"),
        (Start("kubo"),),
    ),
    Row("a dead kubo does not take the cluster with it", snapshot(backoff("kubo", 5), "ready"), ()),
    # leak, frozen
    Row(
        "what leaks is killed",
        snapshot(service("kubo", "ready", leak="UDP 0.0.0.0:1"), "ready"),
        (Fail("kubo", "it had a socket where none may be: UDP 0.0.0.0:1"),),
    ),
    Row(
        "what leaks while it starts is killed before it is ready",
        snapshot("ready", service("cluster", "starting", leak="UDP 0.0.0.0:1"), under_way={"cluster": 1.0}),
        (Fail("cluster", "it had a socket where none may be: UDP 0.0.0.0:1"),),
    ),
    Row(
        "a leak of an earlier run does not hinder the next one",
        snapshot(dataclasses.replace(backoff("kubo", 0), leak="UDP 0.0.0.0:1"), "stopped"),
        (Start("kubo"),),
    ),
    Row(
        "what is frozen is killed",
        snapshot("ready", service("cluster", "ready", healthy=False)),
        (Fail("cluster", "it runs but does not answer"),),
    ),
    # a start under way
    Row(
        "an address that goes cuts a start short",
        snapshot("starting", "stopped", under_way={"kubo": 1.0}, **NO_ADDRESS),
        (Stop("kubo", "there is no overlay address", GRACE_WITHOUT_ADDRESS), Listen(None)),
    ),
    Row(
        "the end of meshd cuts a start short",
        snapshot("starting", "stopped", under_way={"kubo": 1.0}, stopping=True),
        (Stop("kubo", "meshd is stopping"),),
    ),
    Row("a start under way is not begun again", snapshot("stopped", "stopped", under_way={"kubo": 1.0}), ()),
    Row(
        "a stop under way is not begun again",
        snapshot("ready", "ready", under_way={"cluster": 1.0}, stopping=True),
        (),
    ),
    # the peer API
    Row("the peer API is served on the address", snapshot(listening=None), (Listen(HERE),)),
    Row("it follows the address", snapshot(listening="10.0.0.9"), (Listen(HERE),)),
    Row("it stays while kubo is down", snapshot(backoff("kubo", 5), "ready"), ()),
    Row("it waits before it tries a port again", snapshot(listening=None, listen_retry_at=NOW + 1), ()),
    Row("it tries a port again", snapshot(listening=None, listen_retry_at=NOW), (Listen(HERE),)),
    Row("it stays until the services have stopped", snapshot("stopping", "stopped", stopping=True), ()),
    Row("it ends with them", snapshot("stopped", "stopped", stopping=True), (Listen(None),)),
    Row(
        "it ends with them on a forgotten node too",
        snapshot("stopped", "stopped", stopping=True, forgotten=True),
        (Listen(None),),
    ),
    Row(
        "a forgotten node that stops does not begin to serve",
        snapshot("stopped", "stopped", stopping=True, forgotten=True, listening=None),
        (),
    ),
    Row("one attempt to serve at a time", snapshot(listening=None, under_way={"peer-api": 1.0}), ()),
    # links
    Row("kubo is told whom to hold on to", snapshot(links=frozenset("ab")), (Link(frozenset("ab")),)),
    Row("and whom no longer", snapshot(linked=frozenset("a")), (Link(frozenset()),)),
    Row("but not before it is ready", snapshot("starting", "stopped", links=frozenset("a")), ()),
    Row("nor twice at once", snapshot(links=frozenset("a"), under_way={"peering": 1.0}), ()),
    # recover
    Row("a new kubo is recovered from", snapshot(recovered_for=(9, 20)), (Recover(),)),
    Row("a new cluster is recovered", snapshot(recovered_for=(10, 19)), (Recover(),)),
    Row("once per generation", snapshot(recovered_for=(10, 20)), ()),
    Row("not while one of them is down", snapshot("ready", backoff("cluster", 5), recovered_for=(9, 9)), ()),
    Row("and not twice at once", snapshot(recovered_for=(9, 9), under_way={"recover": 1.0}), ()),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.case)
def test_decide(row: Row) -> None:
    assert decide(row.seen).actions == row.done


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({}, ""),
        ({"stopping": True, "in_mesh": False}, "meshd is stopping"),
        ({"in_mesh": False} | NO_ADDRESS, "this node is in no mesh"),
        ({"forgotten": True} | NO_ADDRESS, "the mesh has forgotten this node"),
        (NO_ADDRESS, "there is no overlay address"),
    ],
)
def test_the_reason_that_is_told_is_the_one_that_matters_most(facts: dict[str, Any], why: str) -> None:
    assert why_not_run(snapshot(**facts)) == why


@pytest.mark.parametrize(
    ("seen", "wait"),
    [
        pytest.param(snapshot(), LOOK_AGAIN, id="all is well"),
        pytest.param(snapshot(backoff("kubo", 0.5), "ready"), 0.5, id="a back-off ends"),
        pytest.param(snapshot(backoff("kubo", 30), "ready"), LOOK_AGAIN, id="a back-off ends later"),
        pytest.param(
            snapshot(backoff("kubo", 4), backoff("cluster", -20)), 4.0, id="the cluster waits for kubo"
        ),
        pytest.param(
            snapshot("starting", backoff("cluster", -20)), LOOK_AGAIN, id="the cluster waits for a start"
        ),
        pytest.param(snapshot(listening=None, listen_retry_at=NOW + 2), 2.0, id="the port is tried again"),
    ],
)
def test_the_next_look_is_when_something_can_be_done(seen: Snapshot, wait: float) -> None:
    assert decide(seen).look_again_s == pytest.approx(wait)
