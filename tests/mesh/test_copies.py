"""Copies follow the nodes: away, back again, and never two of one site where it can be avoided."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mesh.conftest import MakeMesh, MakeNode
from tests.mesh.nodes import NAMES, Mesh, Node
from tests.mesh.pairing import random_file, sha256, until

pytestmark = pytest.mark.mesh


def _settled(mesh: Mesh, name: str, cid: str) -> bool:
    """Whether two hold it, by the list of every node and by the word of every kubo."""
    pinned = {n.name for n in mesh if cid in n.pinned()}
    return len(pinned) == 2 and all(n.holders(name) == pinned for n in mesh)


@pytest.mark.timeout(240)
def test_copies_of_a_node_that_stays_away_are_made_elsewhere_and_the_surplus_goes_when_it_returns(
    make_mesh: MakeMesh, tmp_path: Path
) -> None:
    mesh = make_mesh(3, replicas=2, heal_after="5s", trash="20s")
    attic, barn, cellar = mesh
    entries = [barn.pin(random_file(tmp_path / "own.bin", 2_000_000))]
    for number in range(30):  # until one of attic's has its second copy on barn
        entries.append(attic.pin(random_file(tmp_path / f"foreign-{number}.bin", 50_000)))
        if "barn" in {c["node"] for c in entries[-1]["copies"]}:
            break
    own, foreign = entries[0], entries[-1]
    assert {c["node"] for c in foreign["copies"]} == {"attic", "barn"}
    assert len(own["copies"]) == 2
    barn.stop()

    for entry in (own, foreign):
        name = entry["name"]
        until(lambda name=name: cellar.holders(name) == {"attic", "cellar"}, f"the others hold {name}", 60)
    barn.start()
    mesh.wait_whole()
    for entry in (foreign, own):
        name, cid = entry["name"], entry["cid"]
        until(lambda name=name, cid=cid: _settled(mesh, name, cid), f"barn let {name} go", 40)
        assert cid not in barn.pinned()
        assert all(name not in node.trash() for node in mesh), "what moved was not removed"
        barn.do("get", name, "-o", tmp_path / f"back-{name}")
        assert sha256(tmp_path / f"back-{name}") == sha256(tmp_path / name)


@pytest.fixture(scope="module")
def sited(make_nodes: MakeNode) -> Mesh:
    """attic and barn share a site, cellar is elsewhere."""
    sites = ("north", "north", "south")
    return Mesh([make_nodes(n, site=s, replicas=2) for n, s in zip(NAMES, sites, strict=False)]).build()


def test_two_copies_are_never_both_at_one_site(sited: Mesh, tmp_path: Path) -> None:
    def sites_of(node: Node, number: int) -> list[str]:
        entry = node.pin(random_file(tmp_path / f"{node.name}-{number}.bin", 5_000))
        known = {p["name"]: p["site"] for p in node.peers().values()}
        return sorted(known[c["node"]] for c in entry["copies"])

    for node in sited:
        for number in range(4):
            assert sites_of(node, number) == ["north", "south"], f"pinned on {node}"


def test_sites_do_not_stand_in_the_way_of_three_copies(sited: Mesh, tmp_path: Path) -> None:
    assert sited[0].pin(random_file(tmp_path / "everywhere.bin", 100), "--replicas", "3")["held"] == 3
