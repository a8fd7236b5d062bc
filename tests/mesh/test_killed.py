"""kill -9 of anything at any moment: what was acknowledged is kept, what was not is reported as not done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import NAMES, Mesh, Node, end, marked
from tests.mesh.pairing import let_pass, random_file, sha256, until
from tests.mesh.pinning import Pinning, check_kept, check_one_of_each

pytestmark = pytest.mark.mesh


@pytest.fixture(scope="module")
def shaken(make_nodes: MakeNode) -> Mesh:
    """A mesh of its own, which each of these tests leaves whole."""
    return Mesh([make_nodes(name) for name in NAMES[:3]]).build()


def _kill_service(name: str) -> Callable[[Node], None]:
    def kill(node: Node) -> None:
        before = node.pid_of(name)
        assert before is not None
        end(before)
        until(lambda: node.pid_of(name) not in (None, before), f"{name} is started again")

    return kill


def _kill_meshd(node: Node) -> None:
    node.kill9()
    until(lambda: not marked(node.state), "its children ended with it", 10)
    node.start()


@pytest.mark.parametrize(
    ("what", "kill"),
    [("kubo", _kill_service("kubo")), ("cluster", _kill_service("cluster")), ("meshd", _kill_meshd)],
)
def test_kill_9_during_a_pin_loses_nothing_that_was_acknowledged(
    shaken: Mesh, tmp_path: Path, what: str, kill: Callable[[Node], None]
) -> None:
    with closing(Pinning(shaken[0], tmp_path, f"kill-{what}")) as pinning:
        pinning.wait_for_the_middle()
        kill(shaken[0])
        until(lambda: shaken[0].ready(), f"{shaken[0]} serves again", 60)
        check_kept(shaken, pinning, tmp_path)
    until(lambda: not _adding(shaken[0]), "no upload is left pinned for itself")


def _adding(node: Node) -> set[str]:
    """Pins that an upload made for itself and that are no entries."""
    out = node.kubo("pin", "ls", "--type=recursive", "--names").out
    entries = {e["cid"] for e in node.get("/v1/pins")["entries"]}
    return {line for line in out.splitlines() if "meshd:adding" in line and line.split()[0] not in entries}


def test_kill_9_of_another_nodes_kubo_during_a_pin_is_mended(shaken: Mesh, tmp_path: Path) -> None:
    with closing(Pinning(shaken[0], tmp_path, "kill-other")) as pinning:
        pinning.wait_for_the_middle()
        _kill_service("kubo")(shaken[2])
        check_kept(shaken, pinning, tmp_path)


@pytest.fixture
def alone(make_node: MakeNode) -> Mesh:
    return Mesh([make_node("hermit")]).build()


@pytest.mark.timeout(180)
def test_after_kill_9_of_everything_at_once_all_is_whole_on_three_nodes_and_on_one(
    shaken: Mesh, alone: Mesh, tmp_path: Path
) -> None:
    kept: dict[str, tuple[Mesh, str]] = {}
    for mesh, label in ((shaken, "three"), (alone, "one")):
        for number in range(5):
            file = random_file(tmp_path / f"power-{label}-{number}.bin", 500_000)
            mesh.nodes[number % len(mesh.nodes)].do("pin", file, "--replicas", str(len(mesh.nodes)))
            kept[file.name] = (mesh, sha256(file))
    let_pass(10.0)
    for node in [*shaken, *alone]:
        node.kill9_all()
    for mesh in (shaken, alone):
        mesh.start_all()
    for name, (mesh, digest) in kept.items():
        for node in mesh:
            assert [e["name"] for e in node.get("/v1/pins")["entries"]].count(name) == 1, (
                f"{node} lists {name}"
            )
        holders = {n.name for n in mesh}
        until(
            lambda name=name, mesh=mesh, want=holders: mesh[0].holders(name) == want,
            f"{name} is on {holders}",
        )
        back = tmp_path / f"back-{name}"
        mesh.nodes[-1].do("get", name, "-o", back)
        assert sha256(back) == digest
    check_one_of_each(shaken)
    check_one_of_each(alone)
