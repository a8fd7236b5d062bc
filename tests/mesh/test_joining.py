"""How machines become one mesh."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import Mesh, Node
from tests.mesh.pairing import until

pytestmark = pytest.mark.mesh


def test_init_in_the_mesh_one_has_says_so_and_is_done(mesh: Mesh) -> None:
    answer = mesh[0].do("init", "--name", "archive")
    assert "archive" in answer.out
    assert "already" in answer.out + answer.err
    assert mesh[0].do("init").code == 0


def test_init_of_another_mesh_is_refused_with_what_to_type(mesh: Mesh) -> None:
    answer = mesh[1].meshctl("init", "--name", "other")
    assert answer.code == 1
    assert "archive" in answer.err
    assert "meshctl leave" in answer.err


def test_joining_the_mesh_one_is_in_says_so_and_is_done(mesh: Mesh) -> None:
    line = mesh[0].do("invite").out.strip()
    answer = mesh[1].do("join", line)
    assert "already" in answer.out + answer.err
    assert len(mesh[0].peers()) == 3


def test_every_node_knows_every_other_one(mesh: Mesh) -> None:
    for node in mesh:
        out = node.do("peers").out
        for other in mesh:
            assert other.name in out
            assert other.address in out


@pytest.fixture
def newcomer(make_node: MakeNode) -> Node:
    """A machine that runs meshd and is in no mesh."""
    return make_node("dairy").start()


def test_what_is_no_invite_is_refused_before_anything_is_asked(mesh: Mesh, newcomer: Node) -> None:
    line = mesh[0].do("invite").out.strip()
    for bad in (line[:-1], line[: len(line) // 2], line[:-4] + "AAAA", "meshd1.hello", "minutes-1974.pdf"):
        answer = newcomer.meshctl("join", bad)
        assert answer.code == 1, bad
        assert "cannot" in answer.err
        assert "try: " in answer.err
    assert newcomer.status()["mesh"] is None


def test_a_revoked_invite_admits_nobody(mesh: Mesh, newcomer: Node) -> None:
    invite = mesh[0].do("invite", "--json").document()
    mesh[0].do("invite", "--revoke", invite["id"])
    answer = newcomer.meshctl("join", invite["invite"])
    assert answer.code == 1
    assert "meshctl invite" in answer.err


def test_an_expired_invite_says_so(mesh: Mesh, newcomer: Node) -> None:
    reply = mesh[0].api("POST", "/v1/invites", {"expires_s": 0.01})
    answer = newcomer.meshctl("join", reply.json()["invite"])
    assert answer.code == 1
    assert "its time is over" in answer.err
    assert "meshctl invite" in answer.err


def test_the_invite_of_another_mesh_is_refused(mesh: Mesh, newcomer: Node) -> None:
    newcomer.do("init", "--name", "elsewhere")
    line = newcomer.do("invite").out.strip()
    answer = mesh[2].meshctl("join", line)
    assert answer.code == 1
    assert "archive" in answer.err
    assert "meshctl leave" in answer.err


@pytest.fixture(scope="module")
def alone(make_nodes: MakeNode) -> Node:
    """A mesh of one."""
    node = make_nodes("attic").start()
    node.do("init", "--name", "archive")
    return node


@pytest.fixture
def founder(alone: Node) -> Iterator[Node]:
    """A mesh of one that others may join; who did is forgotten afterwards."""
    yield alone
    for name, peer in alone.peers().items():
        if not peer["this_node"]:
            alone.do("forget", name, "--yes", "--force")


def test_an_invite_admits_one_node_only(founder: Node, make_node: MakeNode) -> None:
    first, second = make_node("forge").start(), make_node("gable").start()
    line = founder.do("invite").out.strip()
    first.do("join", line)
    answer = second.meshctl("join", line)
    assert answer.code == 1
    assert "another node has joined with it" in answer.err
    assert "meshctl invite" in answer.err
    assert second.status()["mesh"] is None
    assert "gable" not in founder.peers()


def test_an_invite_can_come_from_a_pipe_and_be_broken_into_lines(founder: Node, newcomer: Node) -> None:
    line = founder.do("invite").out
    newcomer.do("join", stdin=(line[:40] + "\n  " + line[40:]).encode())
    assert {"attic", "dairy"} <= set(newcomer.peers())
    until(lambda: "dairy joined, invited by attic" in founder.do("status").out, "the founder is told")
    entry = newcomer.do(
        "pin", "-", "--name", "hello", "--replicas", "2", "--json", stdin=b"hello"
    ).document()["entry"]
    assert {c["node"] for c in entry["copies"]} == {"attic", "dairy"}


def test_two_machines_may_not_have_one_name(founder: Node, make_node: MakeNode) -> None:
    other = make_node("attic").start()
    line = founder.do("invite").out.strip()
    answer = other.meshctl("join", line)
    assert answer.code == 1
    assert "--name" in answer.err
    other.do("join", line, "--name", "loft")
    assert "loft" in founder.peers()


def test_a_node_joins_through_the_second_while_the_first_is_down(make_node: MakeNode) -> None:
    attic, barn, cellar = make_node("attic"), make_node("barn"), make_node("cellar")
    two = Mesh([attic, barn]).build()
    attic.stop()
    cellar.start()
    two.admit(cellar, barn)
    assert cellar.ready()
    two.start_all()
    assert set(attic.peers()) == {"attic", "barn", "cellar"}
    until(lambda: "cellar joined, let in by barn" in attic.do("status").out, "the one that was away is told")
    entry = cellar.do("pin", "-", "--name", "proof.txt", "--json", stdin=b"joined").document()["entry"]
    assert entry["held"] == 3
    until(lambda: "cellar joined" not in attic.do("status").out, "it is told until it was read")
