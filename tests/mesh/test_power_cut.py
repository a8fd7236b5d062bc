"""Machines lose power: what `meshctl pin` acknowledged is whole afterwards."""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.disks import NEEDS_DISKS, MakeDisk, make_disk
from tests.mesh.nodes import ENGINES, NAMES, Mesh, Node, environment, run
from tests.mesh.pairing import random_file, sha256, until
from tests.mesh.pinning import Pinning

__all__ = ["make_disk"]  # a fixture is known where it is imported
pytestmark = [*NEEDS_DISKS, pytest.mark.timeout(300)]

MIB = 1024 * 1024


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


def digest_in(repo: Path, cid: str) -> str:
    """The digest of what that repository itself has of `cid`, while no kubo runs on it; "" where it is not whole."""
    done = subprocess.run(
        [ENGINES / "ipfs", "cat", "--offline", cid],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        env=environment(IPFS_PATH=str(repo)),
    )
    return hashlib.sha256(done.stdout).hexdigest() if done.returncode == 0 else ""


def _is_there(file: Path) -> bool:
    try:
        return bool(file.read_bytes())
    except OSError:  # also where its name is there and its blocks are not
        return False


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
    assert digest_in(tmp_path / "plain" / "repo", cid) != sha256(file), (
        "this cut was too gentle to prove anything"
    )
    node.close()


def test_all_that_was_acknowledged_is_whole_on_each_holder_after_a_whole_mesh_lost_power_at_once(
    make_disk: MakeDisk, make_node: MakeNode, tmp_path: Path
) -> None:
    nodes = [make_node(name) for name in NAMES[:3]]
    disks = [make_disk(node.state, 800 * MIB) for node in nodes]
    mesh = Mesh(nodes).build()
    with ExitStack() as stack:
        at_work = [stack.enter_context(closing(Pinning(n, tmp_path, f"of-{n.name}"))) for n in mesh]
        for pinning in at_work:
            pinning.wait_for_the_middle()
        entries = {name: entry for pinning in at_work for name, entry in pinning.entries().items()}
        for node, disk in zip(mesh, disks, strict=True):
            (node.state / "not-synced").write_bytes(b"x" * MIB)
            disk.cut()
        for pinning in at_work:
            pinning.begin_no_more()
        for node in mesh:
            node.kill9_all()
    for disk in disks:
        disk.power_returns()

    # A pin under way may have synced one in the moment between; not all three.
    assert not all(_is_there(n.state / "not-synced") for n in mesh), (
        "this cut was too gentle to prove anything"
    )
    digests = {name: sha256(tmp_path / name) for name in entries}
    for node in mesh:  # each by itself, while nobody is there from whom it could fetch what it lost
        told = [
            e
            for e in entries.values()
            if node.name in {c["node"] for c in e["copies"] if c["state"] == "held"}
        ]
        assert told
        whole = {e["name"]: digest_in(node.state / "kubo", e["root"]) for e in told}
        assert whole == {e["name"]: digests[e["name"]] for e in told}, f"on {node}"

    mesh.start_all()
    for node in mesh:
        listed = {e["name"]: e["cid"] for e in node.entries()}
        for name, entry in entries.items():
            assert listed.get(name) == entry["cid"], f"{node} lists {name}"
    for name, entry in entries.items():
        holders = {c["node"] for c in entry["copies"] if c["state"] == "held"}
        until(lambda name=name, holders=holders: holders <= mesh[1].holders(name), f"{name} is on {holders}")
        mesh[2].do("get", name, "-o", tmp_path / "back")
        assert sha256(tmp_path / "back") == digests[name]
        (tmp_path / "back").unlink()
    mesh.close()
