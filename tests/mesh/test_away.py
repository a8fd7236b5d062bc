"""Nodes that are away for a while, that are forgotten, that leave and come back."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.mesh.conftest import MakeMesh, MakeNode
from tests.mesh.nodes import Mesh, Subnet
from tests.mesh.pairing import holds_for, random_file, sha256, until
from tests.mesh.rogue import Rogue

pytestmark = pytest.mark.mesh


@pytest.mark.timeout(180)
def test_a_node_that_was_down_learns_of_all_that_happened(
    make_mesh: MakeMesh, make_node: MakeNode, tmp_path: Path
) -> None:
    mesh = make_mesh(3)
    attic, barn, cellar = mesh
    attic.pin(random_file(tmp_path / "old.bin", 50_000))
    dairy = make_node("dairy").start()
    mesh.admit(dairy, attic)
    mesh.wait_whole()
    cellar.stop()

    # What happens meanwhile: one entry comes, one goes, one node joins, one is forgotten.
    file = random_file(tmp_path / "new.bin", 2_000_000)
    barn.do("pin", file, "--replicas", "all", "--detach")
    barn.do("rm", "old.bin")
    eaves = make_node("eaves").start()
    eaves.do("join", barn.do("invite").out.strip())
    dairy.stop()
    attic.do("forget", "dairy", "--yes")

    cellar.start().wait_ready()
    until(
        lambda: set(cellar.peers()) == {"attic", "barn", "cellar", "eaves"},
        "it knows who belongs to the mesh",
    )
    until(lambda: not cellar.entries("old.bin"), "it has heard of the removal")
    until(lambda: "old.bin" in cellar.trash(), "what was removed is in its trash")
    everyone = {"attic", "barn", "cellar", "eaves"}
    until(lambda: attic.holders("new.bin") == everyone, "it holds what came meanwhile", 60)
    cellar.do("get", "new.bin", "-o", tmp_path / "back")
    assert sha256(tmp_path / "back") == sha256(file)


@pytest.mark.timeout(180)
def test_a_forgotten_node_can_change_nothing_says_so_and_can_be_admitted_again(
    make_mesh: MakeMesh, subnet: Subnet, tmp_path: Path
) -> None:
    mesh = make_mesh(3)
    attic, barn, cellar = mesh
    cids = {attic.pin(random_file(tmp_path / f"ours-{n}.bin", 20_000))["cid"] for n in range(3)}
    assert cids <= cellar.pinned()
    cellar.kill9_all()
    barn.do("forget", "cellar", "--yes")
    for node in (attic, barn):
        until(lambda node=node: set(node.peers()) == {"attic", "barn"}, f"{node} knows")
        node.wait_ready()

    with closing(Rogue(mesh, subnet.address(), identity_of=cellar)) as itself:
        itself.start()
        until(lambda: cids <= itself.pinset(), "it has its copy of the catalogue")
        itself.remove(cids)
        until(lambda: not itself.pinset() & cids, "its own catalogue is empty")

        def unmoved() -> bool:
            return all(cids <= {e["cid"] for e in n.get("/v1/pins")["entries"]} for n in (attic, barn))

        holds_for(unmoved, "the members list what they listed", 7.0)  # it tells the others again each 5 s

    cellar.start()
    until(lambda: "forgotten" in cellar.conditions(), "its status says so", 60)
    assert "forgotten this node" in cellar.do("status").out
    until(lambda: cellar.pid_of("kubo") is None and cellar.pid_of("cluster") is None, "nothing runs there")
    refused = cellar.meshctl("pin", tmp_path / "ours-0.bin")
    assert refused.code == 5
    assert "meshctl leave" in refused.err
    assert unmoved()

    cellar.do("leave", "--yes")
    cellar.do("join", attic.do("invite").out.strip())
    mesh.wait_whole()
    until(lambda: cellar.holders("ours-0.bin") == {"attic", "barn", "cellar"}, "it takes copies again", 60)
    entry = cellar.pin(random_file(tmp_path / "mine.bin", 1000))
    assert entry["held"] == 3


@pytest.mark.timeout(180)
def test_who_leaves_hands_over_what_only_it_holds_and_may_come_back(
    make_mesh: MakeMesh, tmp_path: Path
) -> None:
    mesh = make_mesh(2)
    attic, barn = mesh
    file = random_file(tmp_path / "single.bin", 3_000_000)
    assert barn.pin(file, "--replicas", "1")["held"] == 1
    answer = barn.do("leave", "--yes")
    assert "single.bin" in answer.out + answer.err, "it says what it hands over"
    assert barn.status()["mesh"] is None
    assert barn.pid_of("kubo") is None
    assert not (barn.state / "kubo" / "blocks").exists()
    until(lambda: set(attic.peers()) == {"attic"}, "attic knows")
    until(lambda: attic.holders("single.bin") == {"attic"}, "attic holds it")
    attic.do("get", "single.bin", "-o", tmp_path / "back")
    assert sha256(tmp_path / "back") == sha256(file)

    barn.do("join", attic.do("invite").out.strip())
    mesh.wait_whole()
    until(lambda: barn.entries("single.bin"), "the catalogue is there")
    barn.do("get", "single.bin", "-o", tmp_path / "again")
    assert sha256(tmp_path / "again") == sha256(file)


def test_the_only_holder_does_not_leave_unless_forced(make_node: MakeNode) -> None:
    alone = Mesh([make_node("hermit")]).build()[0]
    alone.do("pin", "-", "--name", "diary.txt", stdin=b"dear diary")
    answer = alone.meshctl("leave", "--yes")
    assert answer.code == 1
    assert "diary.txt" in answer.err
    assert "--force" in answer.err
    assert alone.content("diary.txt") == b"dear diary"
    alone.do("leave", "--yes", "--force")
    assert alone.status()["mesh"] is None
    alone.do("init", "--name", "anew")
    assert alone.entries() == []


def test_whoever_would_be_the_last_holder_is_not_forgotten_unless_forced(make_mesh: MakeMesh) -> None:
    attic, barn = make_mesh(2)
    barn.do("pin", "-", "--name", "only-here.txt", "--replicas", "1", stdin=b"only here")
    barn.stop()
    answer = attic.meshctl("forget", "barn", "--yes")
    assert answer.code == 1
    assert "only-here.txt" in answer.err
    assert "--force" in answer.err
    assert "barn" in attic.peers()
    assert attic.meshctl("forget", "nobody", "--yes").code == 4
    attic.do("forget", "barn", "--yes", "--force")
    assert set(attic.peers()) == {"attic"}
