"""Each file of the state folder damaged: the daemon says which and what can be done, and changes nothing.

Above all it never begins with a fresh identity over an old one: the mesh would not know it.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import Node
from tests.refusals.daemon import contents, meshd_run, refused

pytestmark = pytest.mark.mesh

REQUIRED = (
    "mesh.json",
    "node.key",
    "node.crt",
    "secrets/swarm.key",
    "secrets/cluster.secret",
    "kubo/config",
    "cluster/identity.json",
)
JOIN_ANEW = (
    "join as a new node: on another member type meshctl forget NODE, then meshctl invite; here meshctl join"
)


@pytest.fixture(scope="module")
def pair(make_nodes: MakeNode) -> tuple[Node, Node]:
    """Two machines, each in a mesh of its own, that are switched off."""
    attic, barn = make_nodes("attic"), make_nodes("barn")
    for node in (attic, barn):
        node.start().do("init", "--name", f"of-{node.name}")
        node.stop()
    return attic, barn


@pytest.fixture
def attic(pair: tuple[Node, Node]) -> Iterator[Node]:
    """One of them, whose state is put back afterwards."""
    node = pair[0]
    kept = node.folder / "kept"
    shutil.copytree(node.state, kept, symlinks=True)
    yield node
    shutil.rmtree(node.state)
    kept.rename(node.state)


def _refuses(node: Node, *words: str) -> str:
    """It does not start, says all those words, and has changed nothing."""
    before = contents(node.state)
    code, out, said = meshd_run(node.config)
    assert (code, out) == (1, "")
    assert said.startswith("meshd: cannot use ")
    for word in words:
        assert word in said
    assert contents(node.state) == before
    return said


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated"])
@pytest.mark.parametrize("name", REQUIRED)
def test_a_damaged_file(attic: Node, name: str, damage: str) -> None:
    path = attic.state / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:40])
    cause = {
        "missing": "the file is missing",
        "empty": "the file is empty",
        "truncated": "the file is damaged",
    }
    _refuses(attic, f"cannot use {path}\n  {cause[damage]}", "\n  try: ", f"{attic.state} ", JOIN_ANEW)


@pytest.mark.parametrize(
    ("name", "named", "cause"),
    [
        (
            "mesh.json",
            "mesh.json",
            "the file is another node's: this node's key is not among the members in it",
        ),
        ("node.key", "node.crt", "the file belongs to another key than {state}/node.key"),
        ("node.crt", "node.crt", "the file belongs to another key than {state}/node.key"),
        ("secrets/swarm.key", "secrets/swarm.key", "it, or cluster.secret beside it, is another mesh's"),
        ("secrets/cluster.secret", "secrets/swarm.key", "it, or cluster.secret beside it, is another mesh's"),
        ("kubo/config", "kubo/config", "it is another node's: it says 12D3KooW"),
        ("cluster/identity.json", "cluster/identity.json", "it is another node's: it says 12D3KooW"),
    ],
)
def test_a_file_of_another_node_of_another_mesh(
    attic: Node, pair: tuple[Node, Node], name: str, named: str, cause: str
) -> None:
    shutil.copy(pair[1].state / name, attic.state / name)
    _refuses(attic, f"cannot use {attic.state / named}\n  {cause.format(state=attic.state)}", JOIN_ANEW)


def test_the_key_and_the_certificate_of_another_node(attic: Node, pair: tuple[Node, Node]) -> None:
    for name in ("node.key", "node.crt"):
        shutil.copy(pair[1].state / name, attic.state / name)
    _refuses(
        attic,
        f"cannot use {attic.state}/mesh.json\n  the file is another node's: this node's key is not among",
    )


def test_a_missing_mesh_file_is_not_a_new_beginning(attic: Node) -> None:
    (attic.state / "mesh.json").unlink()
    cause = f"the file is missing, and {attic.state}/kubo/swarm.key says that this node is in a mesh"
    hint = f"restore {attic.state} as a whole from a backup; or move it away and {JOIN_ANEW}"
    assert _refuses(attic) == refused(f"cannot use {attic.state}/mesh.json", cause, hint)


@pytest.mark.parametrize(("folder", "file"), [("kubo", "config"), ("cluster", "identity.json")])
def test_a_whole_folder_is_missing(attic: Node, folder: str, file: str) -> None:
    shutil.rmtree(attic.state / folder)
    cause = "the file is missing, and a new one would be a stranger to the mesh"
    _refuses(attic, f"cannot use {attic.state}/{folder}/{file}\n  {cause}\n", JOIN_ANEW)
    assert not (attic.state / folder).exists()


@pytest.mark.parametrize("left", ["kubo", "cluster"])
def test_only_an_engine_is_left(attic: Node, left: str) -> None:
    """A key made anew beside it would be the fresh identity over the old one."""
    for path in attic.state.iterdir():
        if path.name not in (left, "lock"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _refuses(attic, f"cannot use {attic.state}/node.key\n  the file is missing")


def test_a_damaged_configuration_of_the_cluster_can_be_made_anew(attic: Node) -> None:
    path = attic.state / "cluster" / "service.json"
    path.write_text("")
    hint = f"move {path} away: it is made anew at the next start"
    assert _refuses(attic) == refused(f"cannot use {path}", "the file is empty", hint)
    path.unlink()
    identity = contents(attic.state)["cluster/identity.json"]
    attic.start().wait_ready().stop()
    assert contents(attic.state)["cluster/identity.json"] == identity


@pytest.mark.parametrize("damage", ["empty", "truncated", "foreign"])
def test_a_damaged_journal_of_removals(attic: Node, damage: str) -> None:
    """Moved away alone, it costs nothing but the memory of what was removed."""
    path = attic.state / "trash.db"
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE notes (text)")
    if damage != "foreign":
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:40])
    cause = {
        "empty": "the file is empty",
        "truncated": "the file is damaged",
        "foreign": "it is not a journal of removals",
    }
    _refuses(attic, f"cannot use {path}\n  {cause[damage]}", f"\n  try: move {path} away")
    path.unlink()
    attic.start().wait_ready().stop()


@pytest.mark.parametrize("text", ["", '{"version": 1, "removals": [', "[1, 2]"])
def test_a_damaged_journal_of_an_older_meshd(attic: Node, text: str) -> None:
    path = attic.state / "trash.json"
    path.write_text(text)
    _refuses(attic, f"cannot use {path}\n", "\n  try: ")
    path.unlink()
    attic.start().wait_ready().stop()


@pytest.mark.parametrize("name", ["pending.json", "notices.json"])
def test_a_damaged_note_that_nothing_depends_on(attic: Node, name: str) -> None:
    """It starts: at worst content stays that nobody asked for, or a person reads news a second time."""
    (attic.state / name).write_text('["bafy')
    identity = contents(attic.state)["node.key"]
    attic.start().wait_ready().stop()
    assert contents(attic.state)["node.key"] == identity


def test_a_state_folder_that_a_newer_meshd_wrote(attic: Node) -> None:
    path = attic.state / "mesh.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    cause = "a newer meshd wrote it (format 2; this one reads 1)"
    hint = "install the meshd that this machine had before, or a newer one"
    assert _refuses(attic) == refused(f"cannot use {path}", cause, hint)


def test_the_state_put_back_is_the_node_again(attic: Node) -> None:
    """What the refusals ask for works: nothing above has harmed it."""
    away = Path(f"{attic.state}.away")
    attic.state.rename(away)
    away.rename(attic.state)
    attic.start().wait_ready()
    assert attic.status()["mesh"]["name"] == "of-attic"
    attic.stop()
