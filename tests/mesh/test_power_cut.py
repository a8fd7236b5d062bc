"""A machine loses power: what `meshctl pin` acknowledged is whole afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mesh.asking import random_file, sha256
from tests.mesh.conftest import MakeNode
from tests.mesh.disks import NEEDS_DISKS, MakeDisk, make_disk
from tests.mesh.nodes import ENGINES, Node, run

__all__ = ["make_disk"]  # a fixture is known where it is imported
pytestmark = [*NEEDS_DISKS, pytest.mark.timeout(240)]


def plain_kubo_adds(repo: Path, file: Path) -> str:
    """What a person does without meshd; the CID that kubo answered."""
    where = {"IPFS_PATH": str(repo)}
    assert (
        run([ENGINES / "ipfs", "init", "--profile=autoconf-off,unixfs-v1-2025"], timeout=60, **where).code
        == 0
    )
    added = run([ENGINES / "ipfs", "add", "--quieter", file], timeout=60, **where)
    assert added.code == 0, added.err
    return added.out.strip()


def test_what_was_acknowledged_survives_a_power_cut_and_plain_kubo_loses_it(
    make_disk: MakeDisk, make_node: MakeNode, tmp_path: Path
) -> None:
    file = random_file(tmp_path / "minutes-1974.pdf", 20_000_000)
    node: Node = make_node("attic")
    disk = make_disk(node.state)
    other = make_disk(tmp_path / "plain")
    node.start().do("init")
    node.pin(file)
    cid = plain_kubo_adds(tmp_path / "plain" / "repo", file)

    disk.cut()
    other.cut()
    node.kill9_all()
    disk.power_returns()
    other.power_returns()

    node.start().wait_ready()
    node.do("get", file.name, "-o", tmp_path / "back")
    assert sha256(tmp_path / "back") == sha256(file)
    assert [e["name"] for e in node.entries()] == [file.name]
    plain = run(
        [ENGINES / "ipfs", "cat", "--offline", cid], timeout=60, IPFS_PATH=str(tmp_path / "plain" / "repo")
    )
    assert plain.out.encode(errors="replace") != file.read_bytes(), (
        "this cut was too gentle to prove anything"
    )
    node.close()
