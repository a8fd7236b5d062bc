"""A file that is larger than what anybody would hold in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mesh.nodes import Mesh
from tests.mesh.pairing import random_file, sha256

pytestmark = pytest.mark.mesh


@pytest.mark.timeout(240)
def test_300_mb_pinned_on_the_first_node_come_back_whole_on_the_third(mesh: Mesh, tmp_path: Path) -> None:
    file = random_file(tmp_path / "film.mkv", 300_000_000)
    events = mesh[0].do("pin", file, "--json", timeout=150).events()
    entry = events[-1]["entry"]
    far = {
        node: [e["bytes"] for e in events if (e["event"], e.get("node")) == ("fetching", node)]
        for node in ("barn", "cellar")
    }
    assert any(far.values()), "a copy of so much takes seconds, and how far it is was told"
    assert all(0 < n <= entry["size"] for said in far.values() for n in said), far
    assert entry["size"] == 300_000_000
    listed = mesh[2].do("ls", "--name", "film.mkv").out
    assert "3/3" in listed
    mesh[2].until_held_by("film.mkv", {"attic", "barn", "cellar"})
    for node in mesh:
        assert entry["cid"] in node.pinned()
    mesh[2].do("get", "film.mkv", "-o", tmp_path / "back", timeout=90)
    assert sha256(tmp_path / "back") == sha256(file)
    (tmp_path / "back").unlink()
    file.unlink()
    mesh[0].do("rm", "film.mkv", "--now", "--force")
