"""Merging rosters: whoever meets whom and in which order, all agree in the end."""

from __future__ import annotations

import functools

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from meshd.mesh import certificate, roster
from meshd.mesh.roster import canonical, check_member, digest, live, merge, names, next_stamp
from meshd.wire import Joiner, Member, Roster

_CERTIFICATES = [certificate.make(Ed25519PrivateKey.generate()) for _ in range(3)]


def member(number: int = 0, **other: object) -> Member:
    pem = _CERTIFICATES[number]
    facts: dict[str, object] = {
        "fingerprint": certificate.fingerprint_of(pem),
        "name": f"node{number}",
        "certificate": pem,
        "address": "10.0.0.1",
        "peer_port": 4010,
        "swarm_port": 4001,
        "cluster_port": 9096,
        "kubo_id": "k",
        "cluster_id": "c",
    }
    return Member.model_validate(facts | other)


_STATEMENTS = st.builds(
    member,
    st.integers(0, 2),
    name=st.sampled_from(["attic", "barn"]),
    address=st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    stamp=st.sampled_from([0.0, 1.0, 2.0, 3.5]),
    admitted=st.sampled_from([0.0, 1.0]),
    forgotten=st.booleans(),
    leaving_since=st.sampled_from([0.0, 7.0]),
    leaving_stamp=st.sampled_from([0.0, 7.0, 8.0]),
)
_ROSTERS = st.lists(_STATEMENTS, max_size=8)


def _spelled(entries: roster.Entries) -> dict[str, str]:
    return {key: canonical(value) for key, value in entries.items()}


@given(_ROSTERS, _ROSTERS)
def test_order_does_not_matter(a: list[Member], b: list[Member]) -> None:
    one, two = merge(merge({}, a), b), merge(merge({}, b), a)
    assert _spelled(one) == _spelled(two)
    assert digest(one) == digest(two)


@given(_ROSTERS, _ROSTERS, _ROSTERS)
def test_grouping_does_not_matter(a: list[Member], b: list[Member], c: list[Member]) -> None:
    left = merge(merge(merge({}, a), b), c)
    right = merge(merge({}, a), merge(merge({}, b), c).values())
    assert _spelled(left) == _spelled(right)


@given(_ROSTERS)
def test_again_changes_nothing(a: list[Member]) -> None:
    once = merge({}, a)
    assert _spelled(merge(once, a)) == _spelled(merge(once, once.values())) == _spelled(once)


@given(_ROSTERS, st.randoms())
def test_forgotten_wins_and_the_newest_else(a: list[Member], random: object) -> None:
    merged = merge({}, a)
    for fingerprint, winner in merged.items():
        about = [statement for statement in a if statement.fingerprint == fingerprint]
        assert winner.forgotten == any(statement.forgotten for statement in about)
        rivals = [statement for statement in about if statement.forgotten == winner.forgotten]
        assert winner.stamp == max(statement.stamp for statement in rivals)


@given(_ROSTERS, _ROSTERS)
def test_equal_digests_mean_equal_rosters(a: list[Member], b: list[Member]) -> None:
    one, two = merge({}, a), merge({}, b)
    assert (digest(one) == digest(two)) == (_spelled(one) == _spelled(two))


@given(st.lists(_STATEMENTS, min_size=3, max_size=9), st.randoms(use_true_random=False))
def test_three_nodes_that_gossip_agree(statements: list[Member], random: object) -> None:
    nodes = [merge({}, statements[i::3]) for i in range(3)]
    for i, j in ((0, 1), (1, 2), (2, 0), (0, 1)):
        nodes[i] = merge(nodes[i], nodes[j].values())
        nodes[j] = merge(nodes[j], nodes[i].values())
    assert len({digest(node) for node in nodes}) == 1
    assert _spelled(nodes[0]) == _spelled(functools.reduce(lambda x, y: merge(x, [y]), statements, {}))


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_times_cross_the_wire_unchanged(stamp: float, admitted: float) -> None:
    """A digest over a time that lost its last digit on the way would never agree."""
    sent = Roster(members=[member(0, stamp=stamp, admitted=admitted)])
    received = Roster.model_validate_json(sent.model_dump_json())
    assert canonical(received.members[0]) == canonical(sent.members[0])


def test_that_a_node_leaves_outlives_what_else_is_said_of_it() -> None:
    """A meshd that does not know the mark passes the statement on without it, and the node may state a new address."""
    here = roster.with_leaving_mark(member(0, stamp=5.0), 7.0, 7.0)
    for said in (member(0, stamp=5.0), member(0, stamp=9.0, address="10.0.0.2")):
        for merged in (merge(merge({}, [here]), [said]), merge(merge({}, [said]), [here])):
            assert merged[here.fingerprint] == said.model_copy(
                update={"leaving_since": 7.0, "leaving_stamp": here.leaving_stamp}
            )
    stays = roster.with_leaving_mark(here, 0.0, 6.0)
    assert merge(merge({}, [stays]), [here])[here.fingerprint].leaving_since == 0.0, (
        "its newest word, by any clock"
    )
    assert roster.with_leaving_mark(stays, 0.0, 9.0) is stays


def test_whose_copies_count_where_nodes_leave() -> None:
    attic, barn, cellar = (member(i, admitted=float(i)) for i in range(3))
    everybody = {m.fingerprint: m for m in (attic, barn, cellar)}

    def leave(*leaving: Member) -> dict[str, Member]:
        return everybody | {
            m.fingerprint: roster.with_leaving_mark(m, 10.0 + i, 10.0) for i, m in enumerate(leaving)
        }

    def counted(entries: dict[str, Member], without: Member) -> list[str]:
        return [m.name for m in roster.staying(entries, without.fingerprint)]

    assert counted(leave(), attic) == ["node1", "node2"]
    assert counted(leave(attic, barn), attic) == ["node2"]
    assert counted(leave(attic, barn), barn) == ["node2"]
    assert counted(leave(attic), barn) == ["node2"], "barn is forgotten while attic leaves"
    all_leave = leave(cellar, attic, barn)
    assert counted(all_leave, cellar) == counted(all_leave, attic) == ["node1"]
    assert counted(all_leave, barn) == [], "the last to begin has nobody"
    gone = {**everybody, barn.fingerprint: roster.forgotten(barn, "", 3.0)}
    assert counted(gone, attic) == ["node2"]
    assert counted({attic.fingerprint: attic}, attic) == []


def test_two_of_one_name_are_told_apart() -> None:
    first, second, third = (
        member(0, name="attic", admitted=1.0),
        member(1, name="Attic", admitted=2.0),
        member(2),
    )
    called = names(merge({}, [second, first, third]))
    assert called[first.fingerprint] == "attic"
    assert called[second.fingerprint] == f"Attic~{second.fingerprint[:4]}"
    gone = roster.forgotten(first, "", 3.0)
    assert names(merge({}, [second, gone]))[second.fingerprint] == "Attic"
    assert live(merge({}, [second, gone])) == [second]


@pytest.mark.parametrize("now", [0.0, 5.0, 1e9])
@pytest.mark.parametrize("previous", [0.0, 1.0, 2e9])
def test_a_stamp_is_always_newer(now: float, previous: float) -> None:
    assert next_stamp(now, previous) > previous
    assert next_stamp(now, previous) >= now


def test_a_statement_of_oneself() -> None:
    known = member(0, stamp=10.0)
    same = Joiner(**{key: getattr(known, key) for key in Joiner.model_fields})
    assert roster.restated(known, same, 20.0) is known
    moved = roster.restated(known, same.model_copy(update={"address": "10.0.0.9"}), 5.0)
    assert (moved.address, moved.admitted) == ("10.0.0.9", known.admitted)
    assert moved.stamp > known.stamp


@pytest.mark.parametrize(
    "wrong",
    [
        {"fingerprint": "a" * 64},
        {"fingerprint": "../etc"},
        {"name": "a b"},
        {"name": "\x1b[31m"},
        {"address": "0.0.0.0"},
        {"address": "::"},
        {"address": "224.0.0.1"},
        {"address": "host"},
        {"address": "FD00::1"},
        {"peer_port": 0},
        {"swarm_port": 70000},
        {"kubo_id": "a/b"},
        {"cluster_id": "x" * 200},
        {"site": "a\nb"},
        {"stamp": float("nan")},
        {"stamp": float("inf")},
        {"stamp": -1.0},
        {"stamp": -0.0},
        {"admitted": 1e13},
        {"admitted_by": "somebody"},
        {"forgotten_by": "\x1b"},
        {"certificate": ""},
    ],
)
def test_statements_that_cannot_be(wrong: dict[str, object]) -> None:
    check_member(member())
    with pytest.raises(ValueError):
        check_member(member().model_copy(update=wrong))
