"""The checks, and the board that tells each condition once when it comes and once when it goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from meshd import __version__
from meshd.errors import Code, MeshError
from meshd.health.board import Board
from meshd.model import Condition, PeerState, Phase, ServiceState, Severity
from meshd.pins.storage import Room, why_full
from tests.unit.facts import AWAY, DAY, DOWN, HERE, UP, facts, told


def service(**changes: Any) -> dict[str, Any]:
    return {"services": {"kubo": ServiceState("kubo", **changes)}}


TROUBLE: list[tuple[str, str, dict[str, Any]]] = [
    ("overlay-down", "", {"overlay": DOWN}),
    ("peer-api-down", "", {"listen_error": MeshError(Code.BUSY, "cannot listen", "d", "h")}),
    ("service-leak", "kubo", service(phase=Phase.READY, leak="UDP 0.0.0.0:1")),
    ("service-leak", "kubo", service(phase=Phase.BACKOFF, leak="UDP 0.0.0.0:1", last_exit="killed")),
    ("service-frozen", "kubo", service(phase=Phase.READY, missed=1)),
    ("service-down", "kubo", service(phase=Phase.BACKOFF, last_exit="exit 1")),
    ("service-down", "kubo", service(phase=Phase.STARTING, last_exit="exit 1")),
    ("kubo-config-drift", "", {"drift": ("Bootstrap is ['auto']",)}),
    ("swarm-stranger", "12D3x", {"strangers": ("12D3x at /ip4/10.0.0.9/tcp/4001",)}),
    ("secret-readable", "/var/lib/meshd/node.key", {"open_files": ("/var/lib/meshd/node.key",)}),
    ("forgotten", "", {"forgotten_by": "barn", "mesh_name": "archive"}),
    ("member-joined", "cellar", {"joined": (("cellar", "attic", "invited"),)}),
    ("peer-away", "barn", {"peers": (AWAY,)}),
    (
        "peer-problem",
        "barn",
        {"peers": (PeerState("f2", "barn", "10.0.0.2", reachable=True, ready=True, problem="old"),)},
    ),
    ("peer-lost", "barn", {"now": 1e9, "peers": (replace(AWAY, last_seen=1e9 - 8 * DAY),)}),
    ("peer-full", "barn", {"peers": (replace(HERE, accepts=False),)}),
    ("peer-version", "barn", {"peers": (replace(HERE, version="0.0.1"),)}),
    ("disk-floor", "", {"full": "the disk has 5 bytes free"}),
    ("copies-missing", "", {"short": 3}),
    ("state-unwritable", "", {"unwritable": "Read-only file system"}),
    (
        "engine-missing",
        "",
        {"in_mesh": False, "unusable": MeshError(Code.ENGINE_MISSING, "cannot find ipfs")},
    ),
    ("clock-apart", "barn", {"peers": (replace(HERE, ahead_s=-61.0),)}),
]


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
    assert {c.code for c in told(facts(peers=others, lost=("minutes",)))} == {"cut-off"}
    assert told(facts(peers=others, lost=("minutes",), settled=False)) == []
    one_there = (AWAY, replace(HERE, fingerprint="f3", name="cellar"))
    assert {c.code for c in told(facts(peers=one_there, lost=("minutes",)))} == {"content-gone", "peer-away"}


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
        board.update(facts(now, peers=(starting,)))
    assert heard == []
    board.update(facts(161.0, peers=(starting,)))
    (condition,) = board.conditions
    assert condition.key == ("peer-not-ready", "barn")
    assert condition.since == 100.0
    assert condition.hint == "on barn: meshctl status"
    board.update(facts(163.0, peers=(HERE,)))
    assert heard == [("raised", "peer-not-ready"), ("cleared", "peer-not-ready")]


def test_a_node_that_is_started_in_time_is_not_told_and_waits_anew_the_next_time() -> None:
    board, heard = listened()
    starting = replace(HERE, ready=False)
    for now, peer in ((100.0, starting), (150.0, HERE), (155.0, starting), (170.0, starting)):
        board.update(facts(now, peers=(peer,)))
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
        board.update(facts(float(now), **service(**look)))
        assert [(c.code, c.cause) for c in board.conditions] == [("service-leak", "UDP 0.0.0.0:1")]
    board.update(facts(9.0, **service(phase=Phase.READY, last_exit=killed)))
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


# -- services that die again and again -----------------------------------------------------------------------------


def dying(board: Board, *looks: tuple[float, Phase, int]) -> set[str]:
    """What is told after these looks at kubo: when, its phase, how often it has failed."""
    for now, phase, restarts in looks:
        state = ServiceState("kubo", phase, restarts=restarts, last_exit="exit 1" if restarts else "")
        board.update(facts(now, services={"kubo": state}))
    return {c.code for c in board.conditions}


CRASHING = [(float(10 * n), Phase.READY, n) for n in range(4)]


def test_a_service_that_runs_each_time_it_is_looked_at_and_yet_keeps_dying_is_told() -> None:
    board = Board()
    assert dying(board, *CRASHING[:3]) == set()
    assert dying(board, CRASHING[3]) == {"service-unstable"}
    (condition,) = board.conditions
    assert condition.cause == "3 times in ten minutes; the last time: exit 1"
    assert "meshctl logs kubo" in condition.hint


def test_it_is_well_again_after_two_calm_minutes() -> None:
    board = Board()
    assert dying(board, *CRASHING, (149.0, Phase.READY, 3)) == {"service-unstable"}
    assert dying(board, (151.0, Phase.READY, 3)) == set()


def test_deaths_of_long_ago_do_not_count() -> None:
    board = Board()
    dying(board, *((float(100 * n), Phase.READY, n) for n in range(20)))
    (condition,) = board.conditions
    assert condition.cause.startswith("7 times in ten minutes"), "those at 1300, 1400 ... 1900"
    assert condition.since == 300.0


def test_a_service_that_never_gets_ready_is_down_and_not_unstable() -> None:
    board = Board()
    looks = [(float(n), (Phase.STARTING, Phase.BACKOFF)[n % 2], (n + 1) // 2) for n in range(20)]
    assert dying(board, *looks) == {"service-down"}


def test_a_service_that_was_killed_is_told_with_what_kills() -> None:
    killed = "kubo ended by itself: signal SIGKILL; its last lines: Daemon is ready"
    (condition,) = told(facts(**service(phase=Phase.BACKOFF, last_exit=killed)))
    assert condition.cause == "kubo ended by itself: signal SIGKILL, so something killed it"
    assert "out of memory" in condition.hint


def test_the_worst_comes_first_then_the_oldest() -> None:
    board = Board()
    board.update(facts(10.0, full="full"))
    board.update(facts(20.0, full="full", joined=(("cellar", "attic", "invited"),), short=1))
    board.update(facts(30.0, full="full", joined=(("cellar", "attic", "invited"),), short=1, drift=("d",)))
    assert [(c.code, c.since) for c in board.conditions] == [
        ("kubo-config-drift", 30.0),
        ("disk-floor", 10.0),
        ("copies-missing", 20.0),
        ("member-joined", 20.0),
    ]


# -- the board -----------------------------------------------------------------------------------------------------


def listened() -> tuple[Board, list[tuple[str, str]]]:
    board, heard = Board(), list[tuple[str, str]]()
    board.listeners.append(lambda what, condition: heard.append((what, condition.code)))
    return board, heard


def test_a_condition_is_told_once_when_it_comes_and_once_when_it_goes() -> None:
    board, heard = listened()
    for now, full in enumerate(["", "5 bytes", "4 bytes", "3 bytes", "", ""]):
        board.update(facts(float(now), full=full))
    assert heard == [("raised", "disk-floor"), ("cleared", "disk-floor")]
    assert board.conditions == ()


def test_it_keeps_since_when_and_shows_the_newest_cause() -> None:
    board = Board()
    board.update(facts(10.0, full="5 bytes"))
    board.update(facts(20.0, full="4 bytes"))
    (condition,) = board.conditions
    assert (condition.since, condition.cause) == (10.0, "4 bytes")


def test_what_comes_back_is_told_again_with_a_new_since() -> None:
    board, heard = listened()
    for now, full in ((10.0, "x"), (20.0, ""), (30.0, "x")):
        board.update(facts(now, full=full))
    assert heard == [("raised", "disk-floor"), ("cleared", "disk-floor"), ("raised", "disk-floor")]
    assert board.conditions[0].since == 30.0


def test_two_of_a_kind_are_two() -> None:
    board, heard = listened()
    other = PeerState("f3", "cellar", "10.0.0.3")
    board.update(facts(peers=(AWAY, other)))
    board.update(facts(peers=(other,)))
    assert heard == [("raised", "peer-away"), ("raised", "peer-away"), ("cleared", "peer-away")]
    assert [c.subject for c in board.conditions] == ["cellar"]


@given(st.lists(st.sets(st.integers(0, len(TROUBLE) - 1), max_size=4), max_size=6))
def test_what_was_raised_and_not_cleared_is_what_holds(turns: list[set[int]]) -> None:
    board = Board()
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
        board.update(facts(float(now), **merged))
        assert {c.key for c in board.conditions} == held
