"""What a node takes: the disk floor, and how much it offers to others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import NAMES, Mesh
from tests.mesh.pairing import random_file

pytestmark = pytest.mark.mesh


@pytest.fixture(scope="module")
def uneven(make_nodes: MakeNode) -> Mesh:
    """attic has room, barn gives others 2 MB, cellar's disk is as good as full."""
    options: tuple[dict[str, str], ...] = ({}, {"offer": "2MB"}, {"reserve": "900TiB"})
    mesh = Mesh([make_nodes(name, **more) for name, more in zip(NAMES, options, strict=False)])
    return mesh.build(full={"cellar"})


def test_below_the_disk_floor_a_pin_is_refused_with_the_reason(uneven: Mesh, tmp_path: Path) -> None:
    cellar = uneven[2]
    answer = cellar.meshctl("pin", random_file(tmp_path / "refused.bin", 100_000))
    assert answer.code == 1
    assert "reserve" in answer.err
    assert "try: " in answer.err
    assert "on a node with more room" in answer.err
    assert not uneven[0].entries("refused.bin")


def test_the_status_says_that_a_full_node_takes_nothing_more(uneven: Mesh) -> None:
    assert "reserve" in uneven[2].conditions()["disk-floor"]["cause"]
    assert "takes no more content" in uneven[2].do("status").out
    assert uneven[2].status()["storage"]["accepts"] is False
    assert uneven[0].peers()["cellar"]["accepts"] is False


def test_copies_go_where_there_is_room(uneven: Mesh, tmp_path: Path) -> None:
    entry = uneven[0].pin(random_file(tmp_path / "two.bin", 100_000), "--replicas", "2")
    assert {c["node"] for c in entry["copies"]} == {"attic", "barn"}
    assert entry["cid"] not in uneven[2].pinned()


def test_a_copy_that_nobody_has_room_for_is_said_to_be_missing(uneven: Mesh, tmp_path: Path) -> None:
    answer = uneven[0].meshctl("pin", random_file(tmp_path / "three.bin", 100_000), "--replicas", "all")
    assert answer.code == 6
    assert "cellar" in answer.err
    assert uneven[1].holders("three.bin") == {"attic", "barn"}


def test_what_is_more_than_a_node_offers_is_kept_elsewhere(uneven: Mesh, tmp_path: Path) -> None:
    answer = uneven[0].meshctl("pin", random_file(tmp_path / "large.bin", 3_000_000), "--replicas", "2")
    assert answer.code == 6
    assert uneven[0].holders("large.bin") == {"attic"}
    own = uneven[1].pin(random_file(tmp_path / "own.bin", 3_000_000), "--replicas", "1")
    assert own["held"] == 1, "the offer limits others, not the node itself"


def test_an_offer_that_is_used_up_takes_nothing_more(uneven: Mesh, tmp_path: Path) -> None:
    for number in range(4):
        name = f"piece-{number}.bin"
        uneven[0].meshctl("pin", random_file(tmp_path / name, 900_000), "--replicas", "2")
    placed = [n for n in range(4) if "barn" in uneven[0].holders(f"piece-{n}.bin")]
    assert len(placed) <= 2, "no more than 2 MB of others' content"
