"""No member, by mistake or in anger, destroys what another one keeps; and a stranger changes nothing."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from tests.mesh.conftest import MakeMesh, MakeNode
from tests.mesh.nodes import NAMES, Mesh, Subnet
from tests.mesh.pairing import holds_for, random_file, sha256, unix_request, until
from tests.mesh.rogue import Rogue

pytestmark = pytest.mark.mesh
_ALL = {"attic", "barn", "cellar"}


@pytest.fixture(scope="module")
def attacked(make_nodes: MakeNode) -> Mesh:
    """A mesh of its own: were an attack to succeed, no other test would suffer."""
    return Mesh([make_nodes(name) for name in NAMES[:3]]).build()


def test_a_member_that_drives_its_own_cluster_destroys_nothing(attacked: Mesh, tmp_path: Path) -> None:
    file = random_file(tmp_path / "heirloom.bin", 2_500_000)
    entry = attacked[0].pin(file)
    answer = attacked[2].cluster_ctl("pin", "rm", "--no-status", entry["cid"])
    assert answer.code == 0, answer
    for node in attacked:
        until(lambda node=node: not node.entries("heirloom.bin"), f"{node} has heard of it")
        until(lambda node=node: "heirloom.bin" in node.trash(), f"it is in {node}'s trash")
        node.collect_garbage()
        assert entry["cid"] in node.pinned()
        assert node.has_block(entry["root"])
    attacked[1].do("restore", "heirloom.bin")
    for node in attacked:
        until(lambda node=node: node.holders("heirloom.bin") == _ALL, f"{node} lists it again")
    attacked[0].do("get", "heirloom.bin", "-o", tmp_path / "back")
    assert sha256(tmp_path / "back") == sha256(file)


def test_a_member_that_says_that_one_copy_is_enough_takes_none_away(
    make_mesh: MakeMesh, tmp_path: Path
) -> None:
    """The list is anybody's to write; how many copies its owner asked for stands in the entry, which nobody can change."""
    mesh = make_mesh(3, trash="5s")  # so each sweeps once a second
    attic, barn, cellar = mesh
    file = random_file(tmp_path / "heirloom.bin", 300_000)
    entry = attic.pin(file)
    only = json.loads(cellar.cluster_ctl("--enc=json", "id").out)["id"]
    meta = {"name": "heirloom.bin", "root": entry["root"], "size": 300_000, "files": 1, "wanted": 1}
    answer = cellar.cluster_ctl(
        "pin", "add", "--no-status", "--name", "heirloom.bin", "--replication", "1", "--allocations", only,
        *(f"--metadata={key}={value}" for key, value in meta.items()), entry["cid"],
    )  # fmt: skip
    assert answer.code == 0, answer
    for node in mesh:
        until(lambda node=node: node.entries("heirloom.bin")[0]["wanted"] == 1, f"{node} has heard of it")
    holds_for(lambda: all(entry["cid"] in n.pinned() for n in mesh), "each keeps its copy", 4.0)
    for node in (attic, barn):
        node.collect_garbage()
        assert node.has_block(entry["root"])


def test_the_cluster_cannot_ask_kubo_for_anything_else(attacked: Mesh) -> None:
    gate = attacked[0].run_folder / "private" / "gate.sock"
    entry = attacked[0].do("pin", "-", "--name", "gated", "--json", stdin=b"gated").document()["entry"]
    for command in ("repo/gc", "block/rm?arg=" + entry["root"], "config/show", "key/gen?arg=x", "add", "cat"):
        assert unix_request(gate, "POST", f"/api/v0/{command}").status == 403, command
    assert unix_request(gate, "POST", f"/api/v0/pin/rm?arg={entry['cid']}").status == 200
    assert entry["cid"] in attacked[0].pinned()
    assert "gated" not in attacked[0].trash(), "the pinset has it still"
    attacked[0].until_held_by("gated", _ALL)


def test_a_node_with_the_secret_that_is_not_in_the_roster_changes_nothing(
    attacked: Mesh, subnet: Subnet, tmp_path: Path
) -> None:
    names = [f"treasure-{n}.bin" for n in range(3)]
    cids = {attacked[0].pin(random_file(tmp_path / name, 20_000))["cid"] for name in names}
    before = {e["cid"] for e in attacked[1].entries()}
    with closing(Rogue(attacked, subnet.address())) as rogue:
        rogue.start()
        until(lambda: rogue.peers() > 0, f"it is connected to members:\n{rogue.tail()}")
        until(lambda: before <= rogue.pinset(), f"it has read the catalogue:\n{rogue.tail()}", 40)
        rogue.remove(before)
        until(lambda: not rogue.pinset() & before, "its own catalogue is empty")

        def unmoved() -> bool:
            return all({e["cid"] for e in n.get("/v1/pins")["entries"]} == before for n in attacked)

        holds_for(unmoved, "every member lists what it listed", 7.0)  # it tells the others again each 5 s
    for node in attacked:
        assert cids <= node.pinned()
        assert not set(names) & set(node.trash())
    for name in names:
        attacked[2].until_held_by(name, _ALL)
