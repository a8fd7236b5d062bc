"""All machines at new addresses at once, as after a router that hands out others, or pods that were restarted."""

from __future__ import annotations

import pytest

from tests.mesh.conftest import MakeMesh
from tests.mesh.nodes import Mesh, Node, Subnet
from tests.mesh.pairing import until

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]
_NAMES = {"attic", "barn", "cellar"}


def _move_all(mesh: Mesh, subnet: Subnet, *, seeds: bool) -> None:
    for node in mesh:
        node.terminate()
    for node in mesh:
        node.wait_stopped()
    addresses = [subnet.address() for _ in mesh]
    for node, address in zip(mesh, addresses, strict=True):
        node.move(address, addresses if seeds else ())
    for node in mesh:
        node.begin()
    for node in mesh:
        node.wait_ready()


def _can_read(mesh: Mesh, name: str) -> None:
    """Each lists it and gives its bytes. The list may reach a node only after all have moved: then it is sent again."""
    for node in mesh:
        until(lambda node=node: node.entries(name), f"{node} lists {name}", 90)
        assert node.content(name) == name.encode()


def _keeps(mesh: Mesh, node: Node, name: str) -> None:
    """What is pinned on that node gets a copy on each, and each can read it."""
    entry = node.do("pin", "-", "--name", name, "--json", stdin=name.encode()).document()["entry"]
    assert {c["node"] for c in entry["copies"]} == _NAMES
    _can_read(mesh, name)


def _redialled(node: Node) -> int:
    """How often its cluster was started anew to dial members at new addresses."""
    return sum("is to dial members" in str(r.get("event")) for r in node.records())


def test_all_at_new_addresses_find_each_other_by_a_seed(make_mesh: MakeMesh, subnet: Subnet) -> None:
    mesh = make_mesh()
    barn = mesh[1]
    barn.do("pin", "-", "--name", "before", "--replicas", "1", stdin=b"before")
    _move_all(mesh, subnet, seeds=True)
    mesh.wait_whole()
    assert {n.name: {p["address"] for p in n.peers().values()} for n in mesh} == {
        n.name: {m.address for m in mesh} for n in mesh
    }
    _can_read(mesh, "before")
    for node in mesh:
        _keeps(mesh, node, f"after-{node.name}")
    assert max(map(_redialled, mesh)) <= 1


def test_all_at_new_addresses_without_seeds_are_told_where_one_is(
    make_mesh: MakeMesh, subnet: Subnet
) -> None:
    mesh = make_mesh()
    attic, barn, cellar = mesh
    barn.do("pin", "-", "--name", "before", "--replicas", "1", stdin=b"before")
    _move_all(mesh, subnet, seeds=False)
    until(lambda: "cut-off" in attic.conditions(), "it says that all are away", 60)
    shown = attic.do("status").out
    assert "meshctl peers set NODE ADDRESS" in shown
    assert "meshctl rm" not in shown, "nothing is given up for nodes that have moved"

    wrong = attic.meshctl("peers", "set", "barn", cellar.address)
    assert wrong.code == 1
    assert "cellar answers there" in wrong.err
    assert not attic.peers()["barn"]["reachable"]

    attic.do("peers", "set", "barn", barn.address)
    until(lambda: attic.peers()["barn"]["reachable"], "attic reaches barn")
    until(lambda: barn.peers()["attic"]["reachable"], "barn has heard where attic is")
    attic.do("peers", "set", "cellar", cellar.address)
    mesh.wait_whole()
    _can_read(mesh, "before")
    for node in mesh:
        _keeps(mesh, node, f"after-{node.name}")
    assert sum(map(_redialled, mesh)) >= 1, "clusters that all moved do not find each other by themselves"
    assert max(map(_redialled, mesh)) <= 1
