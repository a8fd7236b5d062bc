"""Nodes that leave at the same moment: nothing goes with them, and who cannot go is told why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.mesh.conftest import MakeMesh
from tests.mesh.nodes import Mesh, Node
from tests.mesh.pairing import random_file, sha256, until

LEAVE_S = 150.0


def pinned(mesh: Mesh, tmp_path: Path, count: int = 6) -> dict[str, str]:
    """Entries of two copies each, from each node in turn: name and SHA-256."""
    sums = {}
    for number in range(count):
        file = random_file(tmp_path / f"f{number}.bin", 40_000)
        assert mesh[number % len(mesh.nodes)].pin(file, "--replicas", "2")["held"] == 2
        sums[file.name] = sha256(file)
    for node in mesh:
        until(lambda node=node: len(node.entries()) == count, f"{node} knows them all")
    return sums


def leave_at_once(*nodes: Node) -> list[tuple[int, list[dict[str, Any]]]]:
    """`meshctl leave` typed on each at the same moment: exit codes, and what was said."""
    typed = [node.popen("leave", "--yes", "--json") for node in nodes]
    ended = []
    for process in typed:
        out, _ = process.communicate(timeout=LEAVE_S)
        ended.append((process.returncode, [json.loads(line) for line in out.decode().splitlines()]))
    return ended


def whole(node: Node, sums: dict[str, str], tmp_path: Path) -> None:
    for name, digest in sums.items():
        back = tmp_path / f"back-{name}"
        node.do("get", name, "-o", back)
        assert sha256(back) == digest, name


@pytest.mark.timeout(300)
def test_two_of_three_leave_at_the_same_moment_and_the_third_has_everything(
    make_mesh: MakeMesh, tmp_path: Path
) -> None:
    mesh = make_mesh(3, replicas=2)
    attic, barn, cellar = mesh
    sums = pinned(mesh, tmp_path)
    assert [code for code, _ in leave_at_once(barn, cellar)] == [0, 0]
    until(lambda: set(attic.peers()) == {"attic"}, "attic is alone")
    assert {e["name"] for e in attic.entries() if e["held"] == 1} == set(sums)
    whole(attic, sums, tmp_path)


@pytest.mark.timeout(300)
def test_where_all_leave_at_the_same_moment_one_stays_and_says_why(
    make_mesh: MakeMesh, tmp_path: Path
) -> None:
    mesh = make_mesh(3, replicas=2)
    sums = pinned(mesh, tmp_path)
    ended = leave_at_once(*mesh)
    stayed = [node for node, (code, _) in zip(mesh, ended, strict=True) if code != 0]
    assert stayed, "somebody must stay"
    for code, said in ended:
        if code != 0:
            problem = said[-1].get("problem", said[-1])
            assert problem["code"] in ("last-copy", "fewer-copies"), problem
            assert "--force" in problem["hint"]
    for node in stayed:
        node.wait_ready()
    names = {node.name for node in stayed}
    until(lambda: set(stayed[0].peers()) == names, f"{stayed[0]} knows who is left")
    whole(stayed[0], sums, tmp_path)
    assert stayed[0].pin(random_file(tmp_path / "more.bin", 1000))["held"] == len(stayed), "it takes content"


@pytest.mark.timeout(240)
def test_a_leave_that_is_cut_off_by_kill_9_can_be_typed_again(make_mesh: MakeMesh, tmp_path: Path) -> None:
    mesh = make_mesh(3, replicas=2)
    attic, barn, cellar = mesh
    sums = pinned(mesh, tmp_path)
    leaving = barn.popen("leave", "--yes")
    until(lambda: _says_so(barn, attic) or leaving.poll() is not None, "attic knows that barn leaves")
    barn.kill9_all()
    leaving.communicate(timeout=60)
    barn.start()
    if barn.status()["mesh"] is not None and "forgotten" not in barn.conditions():
        barn.wait_ready()
        until(lambda: not _says_so(barn, attic), "it is a member like any other")
        mesh.wait_whole()
    barn.do("leave", "--yes", timeout=LEAVE_S)
    until(lambda: set(attic.peers()) == {"attic", "cellar"}, "attic knows")
    whole(attic, sums, tmp_path)
    for name in sums:
        cellar.until_held_by(name, {"attic", "cellar"})


def _says_so(who: Node, to: Node) -> bool:
    return bool(to.peers().get(who.name, {}).get("leaving"))
