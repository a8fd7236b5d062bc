"""A program that is there and answers nothing: in a mesh in use it is reported, replaced, and costs nothing."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import NAMES, Mesh, Node
from tests.mesh.pairing import until
from tests.mesh.pinning import Pinning, check_kept

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def used(make_nodes: MakeNode) -> Mesh:
    """A mesh of its own, which each of these tests leaves whole."""
    return Mesh([make_nodes(name) for name in NAMES[:3]]).build()


def _frozen(node: Node) -> set[str]:
    return {c["subject"] for c in node.status()["conditions"] if c["code"] == "service-frozen"}


@pytest.mark.parametrize("service", ["kubo", "cluster"])
@pytest.mark.parametrize("where", ["attic", "cellar"])
def test_a_frozen_program_is_reported_and_replaced_while_files_are_pinned_and_nothing_is_lost(
    used: Mesh, tmp_path: Path, service: str, where: str
) -> None:
    """attic: where the files are pinned; cellar: where a copy of each goes."""
    node = next(n for n in used if n.name == where)
    blamed: set[str] = set()
    before, restarts = node.pid_of(service), node.service(service)["restarts"]
    assert before is not None
    with closing(Pinning(used[0], tmp_path, f"frozen-{service}-{where}")) as pinning:
        pinning.wait_for_the_middle()
        os.kill(before, signal.SIGSTOP)
        until(lambda: service in _frozen(node), "its status reports it", 45)
        assert f"{service} runs but does not answer" in node.do("status").out

        def replaced() -> bool:
            blamed.update(_frozen(node))
            return node.pid_of(service) not in (None, before)

        until(replaced, "another one is started", 60)
        assert blamed <= {service}, "one that only waits for the other is not blamed"
        check_kept(used, pinning, tmp_path)
    assert node.service(service)["restarts"] == restarts + 1
    until(lambda: not _frozen(node), "the condition goes with its cause")
    entry = node.do("pin", "-", "--name", f"thawed-{service}-{where}", "--json", stdin=b"thawed").document()[
        "entry"
    ]
    assert {c["node"] for c in entry["copies"]} == {n.name for n in used}
