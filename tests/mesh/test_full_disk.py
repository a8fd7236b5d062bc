"""One of three machines has no room left: pins go elsewhere or are refused with the reason, and the rest works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mesh.asking import random_file, sha256, until
from tests.mesh.conftest import MakeNode
from tests.mesh.disks import NEEDS_DISKS, MakeDisk, make_disk
from tests.mesh.nodes import Mesh, Node

__all__ = ["make_disk"]  # a fixture is known where it is imported
pytestmark = [*NEEDS_DISKS, pytest.mark.timeout(300)]

MIB = 1024 * 1024


def fill(node: Node, leave: int) -> Path:
    """Put a file on the node's disk so that `leave` bytes stay free."""
    stat = os.statvfs(node.state)
    filler = node.state / "somebody-elses-files"
    with filler.open("wb") as file:
        for _ in range((stat.f_bavail * stat.f_frsize - leave) // MIB):
            file.write(b"x" * MIB)
    return filler


def test_a_full_disk_on_one_node_refuses_with_the_reason_and_the_others_go_on(
    make_disk: MakeDisk, make_node: MakeNode, tmp_path: Path
) -> None:
    attic, barn = make_node("attic"), make_node("barn")
    cellar = make_node("cellar", reserve="60MiB")
    make_disk(cellar.state, 200 * MIB)
    mesh = Mesh([attic, barn, cellar]).build()
    kept = random_file(tmp_path / "kept.bin", 300_000)
    cellar.pin(kept)

    filler = fill(cellar, leave=40 * MIB)
    until(lambda: "disk-floor" in cellar.conditions(), "its status says that it takes no more", 30)
    condition = cellar.conditions()["disk-floor"]
    assert "reserve" in condition["cause"]
    assert condition["hint"]

    refused = cellar.meshctl("pin", random_file(tmp_path / "more.bin", 200_000))
    assert refused.code == 1, refused
    assert "cannot" in refused.err
    assert "reserve" in refused.err

    until(lambda: not attic.peers()["cellar"]["accepts"], "the others know", 30)
    elsewhere = attic.meshctl("pin", random_file(tmp_path / "elsewhere.bin", 200_000))
    assert elsewhere.code == 6, elsewhere  # done, with fewer copies than asked
    assert "cellar" in elsewhere.err
    assert "room" in elsewhere.err
    assert attic.holders("elsewhere.bin") == {"attic", "barn"}

    cellar.do("get", "kept.bin", "-o", tmp_path / "back")
    assert sha256(tmp_path / "back") == sha256(kept)
    cellar.do("rm", "kept.bin")
    assert not attic.entries("kept.bin")

    filler.unlink()
    until(lambda: "disk-floor" not in cellar.conditions(), "the condition goes with its cause", 30)
    until(lambda: attic.holders("elsewhere.bin") == {"attic", "barn", "cellar"}, "it gets its copies now", 90)
    mesh.close()


def test_a_disk_without_inodes_refuses_with_the_reason(
    make_disk: MakeDisk, make_node: MakeNode, tmp_path: Path
) -> None:
    attic = make_node("attic", reserve="1MiB")
    make_disk(
        attic.state, 100 * MIB, inodes=4096
    )  # fewer than a node keeps for kubo and its garbage collection
    attic.start().do("init")
    refused = attic.meshctl("pin", random_file(tmp_path / "a.bin", 1000))
    assert refused.code == 1, refused
    assert "inodes" in refused.err
    assert "disk-floor" in attic.conditions()
    attic.close()
