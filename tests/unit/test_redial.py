"""When the cluster is started anew because members are at new addresses, and when not."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.cluster.config import ClusterSettings
from meshd.cluster.redial import AGAIN_S, UNHEARD_S, YIELD_S, Redial, decide, unheard
from meshd.mesh.engine_settings import fingerprint

B = ("idB", "/ip4/10.0.0.2/tcp/9096/p2p/idB")
C = ("idC", "/ip4/10.0.0.3/tcp/9096/p2p/idC")
PLACE = ClusterSettings(
    address="10.0.0.1",
    port=9096,
    rest_socket=Path("/run/meshd/private/cluster.sock"),
    gate_socket=Path("/run/meshd/private/gate.sock"),
    name="attic",
    mesh_id="m1",
    secret="5e" * 32,
    trusted=("idB", "idC"),
    peers=(B[1], C[1]),
)


def with_other(**fields: object) -> ClusterSettings:
    return ClusterSettings(**{f: getattr(PLACE, f) for f in PLACE.__slots__} | fields)


def watched(
    looks: list[tuple[float, dict[str, str]]],
    own: str = "idA",
    known: Redial = Redial(),  # noqa: B008
    *,
    moved: bool = True,
) -> Redial:
    """What is known after those looks: when, and who was not heard where."""
    for now, silent in looks:
        known = decide(known, own, silent, now, moved=moved)
    return known


# -- what a restart depends on -------------------------------------------------------------------------------------


def test_another_address_of_a_member_is_no_reason_by_itself() -> None:
    assert fingerprint(with_other(peers=(B[1].replace("10.0.0.2", "10.0.0.9"),))) == fingerprint(PLACE)


@pytest.mark.parametrize(
    "fields",
    [{"trusted": ("idB",)}, {"address": "10.0.0.9"}, {"redials": 1}, {"secret": "0" * 64}, {"name": "barn"}],
)
def test_all_else_is(fields: dict[str, object]) -> None:
    assert fingerprint(with_other(**fields)) != fingerprint(PLACE)


# -- who is not heard ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialled", "heard", "silent"),
    [
        ((), (), dict([B, C])),
        ((B[1], C[1]), (), {}),  # dialled there already: a restart would do no more
        ((B[1],), (), dict([C])),
        ((), ("idB", "idC"), {}),  # they dialled us
        ((), ("idB",), dict([C])),
        (("/ip4/10.0.0.9/tcp/9096/p2p/idB",), ("idC",), dict([B])),
    ],
)
def test_who_is_at_an_address_that_was_never_dialled_and_is_not_heard(
    dialled: tuple[str, ...], heard: tuple[str, ...], silent: dict[str, str]
) -> None:
    assert unheard(dict([B, C]), dialled, heard) == silent


# -- when it restarts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "looks", "count"),
    [
        ("all are heard", [(t, {}) for t in range(0, 300, 2)], 0),
        ("it is heard in time", [(0, dict([B])), (4, dict([B])), (6, {})], 0),
        ("it is not heard", [(0, dict([B])), (6, dict([B]))], 1),
        ("two are not heard", [(0, dict([B, C])), (6, dict([B, C]))], 1),
        ("each for too short a time", [(0, dict([B])), (4, dict([C])), (8, dict([C]))], 0),
        ("it is heard between", [(0, dict([B])), (4, {}), (6, dict([B])), (10, dict([B]))], 0),
    ],
)
def test_a_restart_needs_somebody_who_stays_unheard(
    name: str, looks: list[tuple[float, dict[str, str]]], count: int
) -> None:
    assert watched(looks).count == count, name


def test_an_address_that_flaps_restarts_nobody() -> None:
    looks = [(float(t), {"idB": f"/ip4/10.0.0.{2 + t // 4 % 2}/tcp/9096/p2p/idB"}) for t in range(0, 3600, 2)]
    assert watched(looks).count == 0


def test_an_address_that_changes_slowly_restarts_at_most_once_in_a_while() -> None:
    looks = [(float(t), {"idB": f"/ip4/10.0.{t // 12}.2/tcp/9096/p2p/idB"}) for t in range(0, 600, 2)]
    assert 1 <= watched(looks).count <= 600 / AGAIN_S


def test_after_a_restart_the_next_waits() -> None:
    once = watched([(0, dict([B])), (UNHEARD_S, dict([B]))])
    assert once.count == 1
    soon = [(UNHEARD_S + t, dict([C])) for t in range(2, int(AGAIN_S), 2)]
    assert watched(soon, known=once).count == 1
    assert watched([*soon, (UNHEARD_S + AGAIN_S, dict([C]))], known=once).count == 2


def test_of_two_nodes_one_dials_and_the_other_waits_longer() -> None:
    a, b = ("idA", "/ip4/10.0.0.1/tcp/9096/p2p/idA"), B
    looks = [0.0, UNHEARD_S, YIELD_S - 1, YIELD_S]
    assert [watched([(t, dict([b])) for t in looks[:n]], own="idA").count for n in (1, 2)] == [0, 1]
    assert [watched([(t, dict([a])) for t in looks[:n]], own="idB").count for n in (2, 3, 4)] == [0, 0, 1]


def test_who_has_not_moved_itself_waits_for_nobody() -> None:
    """Its connection to the other one is dead, and who is at the other end of it does not know."""
    looks = [(0.0, dict([B])), (UNHEARD_S, dict([B]))]
    assert watched(looks, own="idZ", moved=False).count == 1
    assert watched(looks, own="idZ").count == 0
