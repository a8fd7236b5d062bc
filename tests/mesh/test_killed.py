"""kill -9 of anything at any moment: what was acknowledged is kept, what was not is reported as not done."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.mesh.asking import let_pass, random_file, sha256, until
from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import NAMES, Answer, Mesh, Node, end, marked

pytestmark = pytest.mark.mesh
_ALL = {"attic", "barn", "cellar"}
_SIZE = 6 * 1024 * 1024


@pytest.fixture(scope="module")
def shaken(make_nodes: MakeNode) -> Mesh:
    """A mesh of its own, which each of these tests leaves whole."""
    return Mesh([make_nodes(name) for name in NAMES[:3]]).build()


class Pinning:
    """Pins one file after the other on a node, two at a time, until it is told to stop."""

    def __init__(self, node: Node, folder: Path, label: str) -> None:
        self._node = node
        self._folder = folder
        self._label = label
        self._over = threading.Event()
        self._answers: dict[str, Answer] = {}
        self._started: set[str] = set()
        self._pool = ThreadPoolExecutor(2)
        self._workers: list[Future[None]] = [self._pool.submit(self._work, n) for n in range(2)]

    def _work(self, worker: int) -> None:
        for number in range(200):
            if self._over.is_set():
                return
            name = f"{self._label}-{worker}-{number}.bin"
            file = random_file(self._folder / name, _SIZE)
            self._started.add(name)
            self._answers[name] = self._node.meshctl("pin", file, timeout=110)

    @property
    def under_way(self) -> set[str]:
        return self._started - self._answers.keys()

    @property
    def acknowledged(self) -> set[str]:
        """Those that were said to be kept, with every copy or with fewer."""
        return {name for name, answer in self._answers.items() if answer.code in (0, 6)}

    def wait_for_the_middle(self) -> None:
        """Return when some are done and another one is being made."""
        until(
            lambda: len(self.acknowledged) >= 2 and self.under_way,
            "pins are done, and others under way",
            every=0.02,
        )

    def finish(self) -> dict[str, Answer]:
        """No new ones; every answer, once the last one is there."""
        self._over.set()
        for worker in self._workers:
            worker.result(115)
        return self._answers

    def close(self) -> None:
        self._over.set()
        self._pool.shutdown()


def _check_kept(mesh: Mesh, pinning: Pinning, folder: Path) -> None:
    """All that was acknowledged is there, three times, with its bytes; the rest was reported as not done."""
    answers = pinning.finish()
    for name, answer in answers.items():
        if name not in pinning.acknowledged:
            assert answer.code in {1, 3}, answer
            assert "cannot" in answer.err
    mesh.wait_whole()
    for name in sorted(pinning.acknowledged):
        until(lambda name=name: mesh[1].holders(name) == _ALL, f"{name} is on all three", 40)
        back = folder / f"back-{name}"
        mesh[2].do("get", name, "-o", back)
        assert sha256(back) == sha256(folder / name)
        back.unlink()
    for node in mesh:
        cids = {e["cid"] for e in node.entries() if e["name"] in pinning.acknowledged}
        assert cids <= node.pinned()
    _check_one_of_each(mesh)


def _check_one_of_each(mesh: Mesh) -> None:
    """No service runs twice, on any node."""
    for node in mesh:
        programs = Counter(Path(f"/proc/{pid}/exe").readlink().name for pid in marked(node.state))
        assert programs == {"ipfs": 1, "ipfs-cluster-service": 1}, node


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
        _check_kept(shaken, pinning, tmp_path)
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
        _check_kept(shaken, pinning, tmp_path)


def test_a_frozen_kubo_counts_as_down_and_is_started_again(shaken: Mesh) -> None:
    node = shaken[1]
    before = node.pid_of("kubo")
    assert before is not None
    os.kill(before, signal.SIGSTOP)
    until(lambda: not node.ready(), "it counts as down", 45)
    until(lambda: node.pid_of("kubo") not in (None, before), "another one is started", 60)
    node.wait_ready()
    assert node.service("kubo")["restarts"] >= 1
    shaken.wait_whole()
    entry = node.do("pin", "-", "--name", "thawed", "--json", stdin=b"thawed").document()["entry"]
    assert {c["node"] for c in entry["copies"]} == _ALL
    _check_one_of_each(shaken)


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
    _check_one_of_each(shaken)
    _check_one_of_each(alone)
