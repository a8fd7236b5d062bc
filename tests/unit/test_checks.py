"""The checks: of which trouble is told, of which not, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meshd import __version__
from meshd.errors import Code, MeshError
from meshd.model import PeerState, Phase, Severity
from meshd.pins.storage import Room, why_full
from tests.unit.facts import AWAY, DAY, DOWN, HERE, TROUBLE, UP, facts, listened, service, told


def test_where_all_is_well_nothing_is_told() -> None:
    assert told(facts()) == []


@pytest.mark.parametrize(
    ("code", "subject", "trouble"), TROUBLE, ids=[f"{t[0]}-{i}" for i, t in enumerate(TROUBLE)]
)
def test_each_trouble_is_told_alone(code: str, subject: str, trouble: dict[str, Any]) -> None:
    (condition,) = told(facts(**trouble))
    assert condition.key == (code, subject)
    assert condition.title
    assert condition.hint, "what to type"


@pytest.mark.parametrize("phase", [Phase.STOPPED, Phase.STARTING, Phase.STOPPING, Phase.READY])
def test_what_is_on_its_way_is_no_trouble(phase: Phase) -> None:
    assert told(facts(**service(phase=phase))) == []


def test_a_service_that_does_not_run_outside_a_mesh_is_no_trouble() -> None:
    assert told(facts(in_mesh=False, **service(phase=Phase.BACKOFF, last_exit="exit 1"))) == []


def test_the_overlay_s_fault_is_not_told_again_of_all_that_needs_it() -> None:
    trouble = service(phase=Phase.BACKOFF, last_exit="exit 1") | {
        "overlay": DOWN,
        "peers": (AWAY,),
        "listen_error": MeshError(Code.NO_OVERLAY, "cannot listen"),
    }
    assert [c.code for c in told(facts(**trouble))] == ["overlay-down"]


def test_a_forgotten_node_is_told_that_and_not_who_is_away() -> None:
    trouble = service(phase=Phase.BACKOFF) | {
        "forgotten_by": "barn",
        "mesh_name": "archive",
        "peers": (AWAY,),
    }
    (condition,) = told(facts(**trouble))
    assert condition.title == "the mesh archive has forgotten this node"
    assert "barn typed: meshctl forget" in condition.cause


def test_a_node_that_is_away_is_told_with_when_it_was_seen_and_why() -> None:
    never, once = AWAY, PeerState("f3", "cellar", "10.0.0.3", last_seen=1_700_000_000.0, seen_at=5.0)
    one, two = told(facts(peers=(never, once)))
    assert one.cause == "not seen since meshd started here; it does not answer"
    assert one.hint == (
        "start it; if it has a new address: meshctl peers set barn ADDRESS; if it never comes back: meshctl forget barn"
    )
    assert two.cause.startswith("last seen 2023-11-1")
    assert two.hint == "start it; if it never comes back: meshctl forget cellar"


def test_where_all_are_away_at_once_it_is_rather_this_machine() -> None:
    barn = replace(AWAY, last_seen=1_700_000_000.0, seen_at=5.0)
    cellar = PeerState(
        "f3", "cellar", "10.0.0.3", last_seen=1_700_000_030.0, seen_at=35.0, problem="there is no way to it"
    )
    (condition,) = told(facts(1_700_000_100.0, peers=(barn, cellar)))
    assert (condition.code, condition.severity) == ("cut-off", Severity.ERROR)
    assert "cellar was last seen 2023-11-1" in condition.cause
    assert "there is no way to it" in condition.cause
    assert "this machine is on the private network" in condition.hint
    on_zerotier = told(
        facts(1_700_000_100.0, peers=(barn, cellar), overlay=replace(UP, network="8056c2e21c000001"))
    )
    assert "zerotier-cli listnetworks" in on_zerotier[0].hint
    later = replace(cellar, last_seen=1_700_000_061.0)  # one went a good while before the other
    assert [c.code for c in told(facts(1_700_000_100.0, peers=(barn, later)))] == ["peer-away"] * 2
    assert [
        c.code
        for c in told(
            facts(
                1_700_000_100.0,
                peers=(barn, replace(cellar, reachable=True, ready=True, version=__version__, problem="")),
            )
        )
    ] == ["peer-away"]


def test_where_none_was_reached_since_the_start_new_addresses_are_named() -> None:
    now = 1_700_000_000.0
    long_ago = PeerState("f3", "cellar", "10.0.0.3", last_seen=now - 3 * DAY, problem="nothing listens there")
    (condition,) = told(facts(now, peers=(AWAY, long_ago)))
    assert (condition.code, condition.severity) == ("cut-off", Severity.ERROR)
    assert condition.title == "none of the 2 other nodes can be reached"
    assert "meshctl peers set NODE ADDRESS" in condition.hint
    (never,) = told(
        facts(now, peers=(AWAY, replace(AWAY, fingerprint="f4", name="eaves")), moved_from="10.0.0.9")
    )
    assert never.cause == (
        "this machine has a new address (it was 10.0.0.9); none was seen since meshd started here; it does not answer"
    )


@pytest.mark.parametrize(
    ("other", "codes"),
    [
        ({"seen_at": 5.0}, ["peer-away", "peer-away"]),  # one was reached, so addresses are right
        ({"last_seen": 1e9 - 8 * DAY}, ["peer-lost", "peer-away"]),  # it is gone, and not at a new address
        ({"reachable": True, "ready": True, "problem": "", "version": __version__}, ["peer-away"]),
    ],
)
def test_they_are_not_all_at_new_addresses_where_one_is_known_to_be_otherwise(
    other: dict[str, Any], codes: list[str]
) -> None:
    cellar = replace(AWAY, fingerprint="f3", name="cellar", **other)
    assert [c.code for c in told(facts(1e9, peers=(AWAY, cellar)))] == codes


def test_nobody_is_told_to_give_up_entries_while_all_may_be_at_new_addresses() -> None:
    others = (AWAY, replace(AWAY, fingerprint="f3", name="cellar"))
    assert {c.code for c in told(facts(peers=others, lost=("minutes",), lost_count=1))} == {"cut-off"}
    assert told(facts(peers=others, lost=("minutes",), lost_count=1, settled=False)) == []
    one_there = (AWAY, replace(HERE, fingerprint="f3", name="cellar"))
    assert {c.code for c in told(facts(peers=one_there, lost=("minutes",), lost_count=1))} == {
        "content-gone",
        "peer-away",
    }


def test_just_after_the_start_nobody_is_called_away() -> None:
    others = (AWAY, replace(AWAY, fingerprint="f3", name="cellar"))
    assert told(facts(peers=others, settled=False)) == []
    unasked = replace(others[1], problem="")
    assert {c.code for c in told(facts(peers=(AWAY, unasked)))} == {"peer-away"}


@pytest.mark.parametrize(
    ("days", "code", "severity"),
    [(6.9, "peer-away", Severity.WARNING), (7.1, "peer-lost", Severity.ERROR)],
)
def test_who_is_away_for_a_week_is_told_as_lost_and_not_as_away_too(
    days: float, code: str, severity: Severity
) -> None:
    now = 1_700_000_000.0
    (condition,) = told(facts(now, peers=(replace(AWAY, last_seen=now - days * DAY),)))
    assert (condition.code, condition.severity) == (code, severity)
    assert "meshctl forget barn" in condition.hint
    assert f"{int(days)} days" in condition.title or code == "peer-away"


def test_a_node_that_was_never_seen_since_the_start_is_not_called_lost() -> None:
    (condition,) = told(facts(1_700_000_000.0, peers=(AWAY,)))
    assert condition.code == "peer-away"


@pytest.mark.parametrize(
    ("version", "where"), [("0.0.1", "on barn"), ("99.0.0", "on this node"), ("strange", "on barn")]
)
def test_which_of_two_nodes_is_to_be_updated_is_said(version: str, where: str) -> None:
    (condition,) = told(facts(peers=(replace(HERE, version=version),)))
    assert condition.severity is Severity.INFO
    assert version in condition.cause
    assert where in condition.hint


def test_a_node_without_its_services_is_told_once_it_lasts_with_when_it_began() -> None:
    board, heard = listened()
    starting = replace(HERE, ready=False, accepts=False)
    for now in (100.0, 130.0, 159.0):
        board.look(facts(now, peers=(starting,)))
    assert heard == []
    board.look(facts(161.0, peers=(starting,)))
    (condition,) = board.conditions
    assert condition.key == ("peer-not-ready", "barn")
    assert condition.since == 100.0
    assert condition.hint == "on barn: meshctl status"
    board.look(facts(163.0, peers=(HERE,)))
    assert heard == [("raised", "peer-not-ready"), ("cleared", "peer-not-ready")]


def test_a_node_that_is_started_in_time_is_not_told_and_waits_anew_the_next_time() -> None:
    board, heard = listened()
    starting = replace(HERE, ready=False)
    for now, peer in ((100.0, starting), (150.0, HERE), (155.0, starting), (170.0, starting)):
        board.look(facts(now, peers=(peer,)))
    assert heard == []


def test_copies_that_are_missing_are_told_with_who_cannot_take_one() -> None:
    full = replace(HERE, name="cellar", fingerprint="f3", accepts=False)
    found = told(facts(short=2, full="full", peers=(AWAY, full)))
    (condition,) = (c for c in found if c.code == "copies-missing")
    assert condition.cause.startswith("this node takes no more, barn is away, cellar takes no more; ")


def test_a_full_disk_says_that_what_was_removed_goes_early() -> None:
    assert [c.code for c in told(facts(full="full", trash=0))] == ["disk-floor"]
    assert [c.code for c in told(facts(trash=2))] == []
    (early,) = (c for c in told(facts(full="full", trash=2)) if c.code == "trash-early")
    assert "2 removed entries" in early.cause
    assert "meshctl restore" in early.hint


@pytest.mark.parametrize(
    ("ahead_s", "how"), [(59.0, ""), (-59.0, ""), (61.0, "61 s ahead of"), (-90.0, "90 s behind")]
)
def test_clocks_that_are_more_than_a_minute_apart_are_told(ahead_s: float, how: str) -> None:
    found = told(facts(peers=(replace(HERE, ahead_s=ahead_s),)))
    assert [c.code for c in found] == (["clock-apart"] if how else [])
    assert all(how in c.cause for c in found)


def test_a_service_that_meshd_refused_to_start_is_told_with_what_helps_against_that() -> None:
    (condition,) = told(
        facts(**service(phase=Phase.BACKOFF, last_exit="cannot find ipfs", advice="install it"))
    )
    assert condition.hint == "install it; it is tried again by itself"


def test_a_leak_stays_told_while_the_service_is_tried_again_and_goes_once_it_is_ready() -> None:
    board, heard = listened()
    killed = "kubo was killed: it had a socket where none may be: UDP 0.0.0.0:1"
    looks: list[dict[str, Any]] = [
        {"phase": Phase.STARTING, "leak": "UDP 0.0.0.0:1"},
        {"phase": Phase.BACKOFF, "leak": "UDP 0.0.0.0:1", "last_exit": killed},
        {"phase": Phase.STARTING, "last_exit": killed},
    ]
    for now, look in enumerate(looks):
        board.look(facts(float(now), **service(**look)))
        assert [(c.code, c.cause) for c in board.conditions] == [("service-leak", "UDP 0.0.0.0:1")]
    board.look(facts(9.0, **service(phase=Phase.READY, last_exit=killed)))
    assert heard == [("raised", "service-leak"), ("cleared", "service-leak")]


def test_who_was_let_in_by_a_code_was_not_invited() -> None:
    for how, said in (
        ("approved", "cellar joined, approved by attic"),
        ("let in", "cellar joined, let in by attic"),
    ):
        (condition,) = told(facts(joined=(("cellar", "attic", how),)))
        assert condition.title == said


def test_who_is_away_as_it_was_taken_off_the_network_is_told_so_with_how_to_let_it_in() -> None:
    (condition,) = told(facts(peers=(replace(AWAY, last_seen=90.0),), deauthorized={"f2": "1a2b3c4d5e"}))
    assert (condition.code, condition.subject) == ("peer-away", "barn")
    assert "it is not authorized on the ZeroTier network" in condition.cause
    assert "meshctl approve 1a2b3c4d5e" in condition.hint
    assert "start it" not in condition.hint


def test_in_a_mesh_it_is_the_services_that_say_that_a_program_is_missing() -> None:
    assert told(facts(unusable=MeshError(Code.ENGINE_MISSING, "cannot find ipfs", "d", "h"))) == []


def test_a_node_of_another_protocol_is_told_that_and_not_its_version_too() -> None:
    other = replace(HERE, version="9.9", problem="it speaks protocol 9 and this node 1")
    (condition,) = told(facts(peers=(other,)))
    assert condition.code == "peer-problem"


@pytest.mark.parametrize(
    ("full", "helps"),
    [
        (why_full(Room(10**9, 5, 1000, None)), "lower [storage] reserve"),
        (why_full(Room(10**9, 10**8, 1000, 3)), "df -i"),
    ],
)
def test_against_a_lack_of_inodes_another_thing_helps_than_against_a_lack_of_room(
    full: str, helps: str
) -> None:
    (condition,) = told(facts(full=full))
    assert helps in condition.hint
    assert "meshctl trash" in condition.hint
