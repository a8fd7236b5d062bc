"""`meshctl init` where it cannot: what is printed, the exit code, and that nothing is half done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import ENGINES
from tests.mesh.pairing import until
from tests.refusals.daemon import contents, fill, tmpfs

pytestmark = pytest.mark.mesh


def test_two_inits_at_once(make_node: MakeNode) -> None:
    """One founds its mesh, the other one is told to wait; never is one made of both."""
    node = make_node("attic").start()
    both = [node.popen("init", "--name", name) for name in ("one", "two")]
    ends = []
    try:
        for beginning in both:
            out, err = beginning.communicate(timeout=90)
            ends.append((beginning.returncode, out.decode(), err.decode()))
    finally:
        for beginning in both:
            beginning.kill()
            beginning.communicate()
    (won, lost) = sorted(ends)
    name = node.status()["mesh"]["name"]
    assert won[:2] == (0, f"This node, attic, is the first of the mesh {name}.\n")
    assert lost == (
        1,
        "",
        "meshctl: cannot begin now: another init or join is under way on this node\n"
        "  try: wait for it to end; see how it went: meshctl status\n",
    )


def test_an_init_that_its_caller_gives_up(make_node: MakeNode, tmp_path: Path) -> None:
    """Ctrl-C while the folders are made: they go again, and the next one works."""
    engines = tmp_path / "engines"
    engines.mkdir()
    (engines / "ipfs").symlink_to(ENGINES / "ipfs")
    slow = engines / "ipfs-cluster-service"
    slow.write_text(f'#!/bin/sh\n[ "$1" = init ] && exec sleep 100\nexec {ENGINES / slow.name} "$@"\n')
    slow.chmod(0o755)
    node = make_node("attic", engines=engines).start()
    before = contents(node.state)
    beginning = node.popen("init")
    try:
        until(lambda: (node.state / "kubo" / "version").exists(), "kubo's folder is made")
    finally:
        beginning.kill()
        beginning.communicate()

    def is_as_before() -> bool:
        try:
            return contents(node.state) == before
        except FileNotFoundError:  # meshd is taking it away
            return False

    until(is_as_before, "it is as before")
    assert node.status()["mesh"] is None
    slow.unlink()
    slow.symlink_to(ENGINES / slow.name)
    node.do("init")


def test_a_second_init(make_node: MakeNode) -> None:
    node = make_node("attic").start()
    node.do("init", "--name", "archive")
    before = contents(node.state)["mesh.json"]
    assert node.do("init").out == "This node, attic, is in the mesh archive already; nothing was changed.\n"
    again = node.meshctl("init", "--name", "other")
    assert (again.code, again.err) == (
        1,
        "meshctl: cannot begin other: this node is in the mesh archive\n  try: meshctl leave, then try again\n",
    )
    assert contents(node.state)["mesh.json"] == before


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a filesystem")
def test_a_disk_that_is_full_at_init(make_node: MakeNode) -> None:
    """Nothing of it stays, and with room it works."""
    node = make_node("attic")
    with tmpfs(node.state, "size=400k,mode=700"):
        try:
            node.start()
            filled = fill(node.state, leave=6)
            before = contents(node.state)
            answer = node.meshctl("init")
            assert (answer.code, answer.out) == (1, "")
            assert "meshctl: cannot found a mesh: cannot run ipfs init: " in answer.err
            assert "no space left on device" in answer.err
            assert answer.err.endswith(
                f"\n  try: make room, then try again: df -h {node.state}; df -i {node.state}\n"
            )
            assert contents(node.state) == before
            filled.unlink()
            node.do("init")
        finally:
            node.stop()
