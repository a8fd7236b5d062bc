"""Copies follow the nodes: away, back again, and never two of one site where it can be avoided."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mesh.asking import random_file, sha256, until
from tests.mesh.conftest import MakeMesh, MakeNode
from tests.mesh.nodes import NAMES, Mesh, Node

pytestmark = pytest.mark.mesh


def _settled(mesh: Mesh, name: str, cid: str) -> set[str]:
    """The holders of an entry once the list and every kubo agree on two; else nothing."""
    listed = mesh[0].holders(name)
    pinned = {n.name for n in mesh if n.alive and cid in n.pinned()}
    return listed if len(listed) == 2 and listed == pinned else set()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("owner_goes", [False, True])
def test_copies_of_a_node_that_stays_away_are_made_elsewhere_and_the_surplus_goes_when_it_returns(
    make_mesh: MakeMesh, tmp_path: Path, owner_goes: bool
) -> None:
    mesh = make_mesh(3, replicas=2, heal_after="5s", trash="20s")
    owner = mesh[1]
    file = random_file(tmp_path / "moving.bin", 2_000_000)
    entry = owner.pin(file)
    first = {c["node"] for c in entry["copies"]}
    assert len(first) == 2
    gone = owner if owner_goes else next(n for n in mesh if n.name in first - {"barn"})
    asked = next(n for n in mesh if n is not gone)
    gone.stop()

    rest = {n.name for n in mesh if n is not gone}
    until(lambda: asked.holders("moving.bin") == rest, "the others hold it", 60)
    gone.start()
    mesh.wait_whole()
    until(lambda: _settled(mesh, "moving.bin", entry["cid"]), "two hold it and the surplus is gone", 60)
    assert entry["cid"] not in gone.pinned()
    for node in mesh:
        assert node.holders("moving.bin") == rest
        assert "moving.bin" not in node.trash(), "a copy that moved was not removed"
    gone.do("get", "moving.bin", "-o", tmp_path / "back")
    assert sha256(tmp_path / "back") == sha256(file)


def test_an_outage_that_is_short_moves_nothing(make_mesh: MakeMesh, tmp_path: Path) -> None:
    mesh = make_mesh(3, replicas=2, heal_after="10m")
    entry = mesh[0].pin(random_file(tmp_path / "staying.bin", 10_000))
    first = {c["node"] for c in entry["copies"]}
    gone = next(n for n in mesh if n.name in first - {"attic"})
    gone.kill9_all()
    until(lambda: not mesh[0].peers()[gone.name]["reachable"], "its absence is seen")
    mesh.start_all()
    assert mesh[0].holders("staying.bin") == first


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
