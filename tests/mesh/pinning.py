"""A workload of pins during a fault, and the invariants to check afterwards."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.mesh.nodes import Answer, Mesh, Node, marked
from tests.mesh.pairing import random_file, sha256, until

_SIZE = 6 * 1024 * 1024
_ONE_OF_EACH = {"ipfs": 1, "ipfs-cluster-service": 1}


class Pinning:
    """Pins one file after the other on a node, two at a time, until it is stopped."""

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
            self._answers[name] = self._node.meshctl("pin", file, "--json", timeout=110)

    @property
    def under_way(self) -> set[str]:
        return self._started - self._answers.keys()

    @property
    def acknowledged(self) -> set[str]:
        """The names that were acknowledged, with all copies or fewer."""
        return {name for name, answer in dict(self._answers).items() if answer.code in (0, 6)}

    def entries(self) -> dict[str, dict[str, Any]]:
        """Those that were acknowledged so far, by name, as they were told: with who holds them."""
        return {name: self._answers[name].document()["entry"] for name in self.acknowledged}

    def wait_for_the_middle(self) -> None:
        """Return when some pins are done and another one is under way."""
        until(
            lambda: len(self.acknowledged) >= 2 and self.under_way,
            "pins are done, and others under way",
            every=0.02,
        )

    def begin_no_more(self) -> None:
        """Begin no more pins; those under way go on."""
        self._over.set()

    def finish(self) -> dict[str, Answer]:
        """Begin no more pins; all answers, once the last one is there."""
        self.begin_no_more()
        for worker in self._workers:
            worker.result(115)
        return self._answers

    def close(self) -> None:
        self.begin_no_more()
        self._pool.shutdown()


def check_kept(mesh: Mesh, pinning: Pinning, folder: Path) -> None:
    """Check that each acknowledged entry is on every node, with its bytes, and that the rest was reported as failed."""
    answers = pinning.finish()
    for name, answer in answers.items():
        if name not in pinning.acknowledged:
            assert answer.code in {1, 3}, answer
            assert "cannot" in answer.err
    mesh.wait_whole()
    for name in sorted(pinning.acknowledged):
        until(lambda name=name: mesh[1].holders(name) == {n.name for n in mesh}, f"{name} is on all", 40)
        back = folder / f"back-{name}"
        mesh[2].do("get", name, "-o", back)
        assert sha256(back) == sha256(folder / name)
        back.unlink()
    for node in mesh:
        cids = {e["cid"] for e in node.entries() if e["name"] in pinning.acknowledged}
        assert cids <= node.pinned()
    check_one_of_each(mesh)


def check_one_of_each(mesh: Mesh) -> None:
    """Check that no service runs twice on any node."""

    def programs(node: Node) -> Counter[str]:
        found: Counter[str] = Counter()
        for pid in marked(node.state):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
                found[Path(f"/proc/{pid}/exe").readlink().name] += 1
        assert max(found.values(), default=0) <= 1, (node, found)
        return found

    for node in mesh:
        until(lambda node=node: programs(node) == _ONE_OF_EACH, f"{node} runs one of each")
