"""A node whose disk has no room left starts all the same, and says so: only then can a person see what is wrong."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.pins.trash import Journal
from meshd.wire import Removal
from tests.mesh.conftest import MakeNode
from tests.mesh.disks import NEEDS_DISKS
from tests.mesh.nodes import Node
from tests.mesh.pairing import until
from tests.refusals.daemon import fill, meshd_run, tmpfs

pytestmark = [*NEEDS_DISKS, pytest.mark.mesh, pytest.mark.timeout(300)]


def removal(cid: str) -> Removal:
    return Removal(cid=cid, time=100.0, by="f1", name="minutes-1974.pdf", owner="f1", root=cid, size=5)


CID = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"


@pytest.fixture
def node(make_node: MakeNode) -> Iterator[Node]:
    """A member that is switched off, on a small disk of its own."""
    node = make_node("attic")
    node.start().do("init")
    node.stop()
    kept = node.folder / "kept"
    node.state.rename(kept)
    used = sum(file.lstat().st_size for file in kept.rglob("*"))
    with tmpfs(node.state, f"size={used + 16 * 1024 * 1024},mode=700"):
        shutil.copytree(kept, node.state, symlinks=True, dirs_exist_ok=True)
        yield node
        if node.alive:
            node.stop()


def _told(node: Node) -> None:
    """It started, says what is wrong, and knows what was removed."""
    until(lambda: "disk-floor" in node.conditions(), "its status says that there is no room", 30)
    assert "1 removed entry can still be restored here" in node.conditions()["trash-early"]["cause"]


async def _removed(path: Path) -> None:
    journal = Journal(path)
    await journal.record([removal(CID)])
    journal.close()


def test_a_node_with_a_full_disk_starts_and_says_so(node: Node) -> None:
    asyncio.run(_removed(node.state / "trash.db"))
    fill(node.state, leave=0)
    node.start()
    _told(node)
    assert node.process is not None
    second = meshd_run(node.config)
    assert second.code == 1
    assert f"another meshd (pid {node.process.pid}) is running on this folder" in second.err


def test_a_node_of_an_older_meshd_is_upgraded_on_a_full_disk(node: Node) -> None:
    """Its journal stays as it is until there is room."""
    old = node.state / "trash.json"
    numbered = {"number": 1, "removal": removal(CID).model_dump(), "at": 0.0, "gone": False}
    old.write_text(json.dumps({"version": 1, "last": 1, "removals": [numbered]}))
    before = old.read_bytes()
    filler = fill(node.state, leave=0)
    node.start()
    _told(node)
    assert old.read_bytes() == before
    node.kill9_all()
    node.start()
    _told(node)
    filler.unlink()
    until(lambda: not old.exists(), "it is taken over once there is room", 120)
    node.stop()
    journal = Journal(node.state / "trash.db")
    journal.close()
    assert journal.knows(CID)
