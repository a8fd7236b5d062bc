"""The network falls into two halves, both go on, and they meet again: all are of one mind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mesh.cables import NEEDS_CABLES, Cables, Side, cables
from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import Mesh, Node
from tests.mesh.pairing import holds_for, random_file, sha256, until

__all__ = ["cables"]  # a fixture is known where it is imported
pytestmark = [pytest.mark.mesh, *NEEDS_CABLES, pytest.mark.timeout(300)]


def _heeded(node: Node) -> set[str]:
    """Whose word on the list of entries its cluster takes, by cluster id, its own among them."""
    config = json.loads((node.state / "cluster" / "service.json").read_text())
    return {_cluster_id(node), *config["consensus"]["crdt"]["trusted_peers"]}


def _cluster_id(node: Node) -> str:
    return str(json.loads((node.state / "cluster" / "identity.json").read_text())["id"])


def test_a_roster_that_two_sides_changed_while_they_were_apart_is_one_again_and_forgotten_wins(
    cables: Cables, make_node: MakeNode, tmp_path: Path
) -> None:
    def node(name: str, side: Side) -> Node:
        namespace, address = cables.plug(side)
        return make_node(name, address=address, namespace=namespace, metrics="127.0.0.1")

    attic, barn, cellar = node("attic", "west"), node("barn", "east"), node("cellar", "east")
    Mesh([attic, barn, cellar]).build()
    file = random_file(tmp_path / "before.bin", 300_000)
    assert attic.pin(file)["held"] == 3

    cables.cut()
    until(lambda: not attic.peers()["barn"]["reachable"], "attic is alone", 60)
    until(lambda: not barn.peers()["attic"]["reachable"], "barn and cellar are without it", 60)
    dairy, eaves = node("dairy", "west").start(), node("eaves", "east").start()
    Mesh([attic]).admit(dairy, attic)
    attic.do("forget", "cellar", "--yes")
    Mesh([barn]).admit(eaves, barn)
    attic.do("pin", "-", "--name", "west.txt", "--replicas", "2", stdin=b"west")
    barn.do("pin", "-", "--name", "east.txt", "--replicas", "2", stdin=b"east")
    cellar.stop()  # what it says of itself now is newer than that it was forgotten
    cellar.config.write_text(cellar.config.read_text().replace('site = ""', 'site = "loft"'))
    cellar.start().wait_ready()
    until(lambda: barn.peers()["cellar"]["site"] == "loft", "barn has its newest statement")
    cellar.stop()  # so that only what was said of it decides, and not what it does when it hears of it
    assert set(attic.peers()) == {"attic", "barn", "dairy"}
    assert set(barn.peers()) == {"attic", "barn", "cellar", "eaves"}

    cables.mend()
    members = Mesh([attic, barn, dairy, eaves])
    for one in members:
        until(lambda one=one: set(one.peers()) == {n.name for n in members}, f"{one} knows all members", 90)
    members.wait_whole()
    cellar.start()
    until(lambda: "forgotten" in cellar.conditions(), "the forgotten one says so", 60)
    agreed = {_cluster_id(n) for n in members}
    for one in members:
        assert _heeded(one) == agreed, f"{one} heeds the members and nobody else"
        for name, text in (("west.txt", b"west"), ("east.txt", b"east")):
            until(lambda one=one, name=name: one.entries(name), f"{one} lists {name}")
            assert one.content(name) == text
        one.do("get", "before.bin", "-o", tmp_path / f"back-{one.name}")
        assert sha256(tmp_path / f"back-{one.name}") == sha256(file)
    holds_for(
        lambda: all(set(n.peers()) == {m.name for m in members} for n in members), "it stays so", 7.0
    )  # two beats
