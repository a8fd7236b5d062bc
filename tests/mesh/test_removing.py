"""What is removed can come back, and only its owner can make it go for good."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.mesh.conftest import MakeMesh, MakeNode
from tests.mesh.nodes import Mesh
from tests.mesh.pairing import random_file, sha256, until

pytestmark = pytest.mark.mesh
_ALL = {"attic", "barn", "cellar"}


def test_what_is_removed_leaves_every_list_and_is_in_every_trash_until_it_is_restored(
    mesh: Mesh, tmp_path: Path
) -> None:
    file = random_file(tmp_path / "removed.bin", 2_000_000)
    cid = mesh[0].pin(file)["cid"]
    answer = mesh[1].do("rm", "removed.bin")
    assert "meshctl restore removed.bin" in answer.out + answer.err
    for node in mesh:
        until(lambda node=node: not node.entries("removed.bin"), f"it is gone from {node}'s list")
        until(lambda node=node: "removed.bin" in node.trash(), f"it is in {node}'s trash")
        shown = node.trash()["removed.bin"]
        assert (shown["owner"], shown["removed_by"]) == ("attic", "barn")
        assert "removed.bin" in node.do("trash").out
        assert cid in node.pinned(), "it is kept until its time is over"
    assert mesh[0].meshctl("get", "removed.bin", "-o", tmp_path / "none").code == 4

    assert "3 copies" in mesh[2].do("restore", "removed.bin").out
    for node in mesh:
        until(lambda node=node: node.holders("removed.bin") == _ALL, f"{node} lists it with its copies")
        until(lambda node=node: "removed.bin" not in node.trash(), f"it left {node}'s trash", 45)
    mesh[1].do("get", "removed.bin", "-o", tmp_path / "back")
    assert sha256(tmp_path / "back") == sha256(file)


def test_removed_at_once_by_its_owner_it_is_in_no_kubo(mesh: Mesh, tmp_path: Path) -> None:
    entry = mesh[1].pin(random_file(tmp_path / "secret.bin", 3_000_000))
    assert all(node.has_block(entry["root"]) for node in mesh)
    mesh[1].do("rm", "secret.bin", "--now", "--force")
    for node in mesh:
        until(lambda node=node: entry["cid"] not in node.pinned(), f"{node}'s kubo does not pin it")
        until(lambda node=node: not node.has_block(entry["root"]), f"{node}'s kubo has no block of it")
        assert not node.entries("secret.bin")
        assert "secret.bin" not in node.trash()
    assert mesh[1].meshctl("restore", "secret.bin").code == 4


def test_the_last_copies_go_at_once_only_by_force(mesh: Mesh, tmp_path: Path) -> None:
    file = random_file(tmp_path / "only.bin", 10_000)
    entry = mesh[0].pin(file)
    answer = mesh[0].meshctl("rm", "only.bin", "--now")
    assert answer.code == 1
    assert answer.err.startswith("meshctl: cannot let only.bin go at once")
    assert "meshctl rm only.bin" in answer.err
    assert "meshctl rm --now --force only.bin" in answer.err
    for node in mesh:
        assert node.holders("only.bin") == _ALL
        assert entry["cid"] in node.pinned()
        assert "only.bin" not in node.trash()
    mesh[0].pin(file, "--name", "again.bin")
    mesh[0].do("rm", "only.bin", "--now")  # the other entry keeps the same bytes
    assert mesh[1].content("again.bin") == file.read_bytes()


def test_what_is_in_the_trash_its_owner_can_still_make_go_at_once(mesh: Mesh, tmp_path: Path) -> None:
    entry = mesh[0].pin(random_file(tmp_path / "regretted.bin", 50_000))
    mesh[2].do("rm", "regretted.bin")
    until(lambda: all("regretted.bin" in node.trash() for node in mesh), "it is in every trash")
    mesh[0].do("rm", "regretted.bin", "--now", "--force")
    for node in mesh:
        until(lambda node=node: entry["cid"] not in node.pinned(), f"{node}'s kubo does not pin it")
        until(lambda node=node: "regretted.bin" not in node.trash(), f"{node} shows it in no trash")


def test_another_node_cannot_remove_it_at_once(mesh: Mesh, tmp_path: Path) -> None:
    entry = mesh[0].pin(random_file(tmp_path / "mine.bin", 100_000))
    answer = mesh[2].meshctl("rm", "mine.bin", "--now")
    assert answer.code == 5
    assert "attic" in answer.err
    assert "meshctl rm mine.bin" in answer.err
    for node in mesh:
        assert node.holders("mine.bin") == _ALL
        assert entry["cid"] in node.pinned()
        assert "mine.bin" not in node.trash()


def test_what_is_not_there_cannot_be_removed_nor_restored(mesh: Mesh) -> None:
    for words in (("rm", "never-was"), ("rm", "never-was", "--now"), ("restore", "never-was")):
        answer = mesh[0].meshctl(*words)
        assert answer.code == 4
        assert "never-was" in answer.err


def test_of_two_versions_the_older_one_can_be_removed(mesh: Mesh) -> None:
    for text in (b"first", b"second"):
        mesh[0].do("pin", "-", "--name", "letter.txt", stdin=text)
    mesh[1].do("rm", "letter.txt@2")
    until(lambda: len(mesh[2].entries("letter.txt")) == 1, "one version is left")
    assert mesh[2].content("letter.txt") == b"second"


def test_the_trash_is_emptied_when_its_time_is_over_and_by_nobodys_hand(make_node: MakeNode) -> None:
    alone = make_node("attic", trash="8s").start()
    alone.do("init")
    entry = alone.do("pin", "-", "--name", "old.txt", "--json", stdin=b"old news").document()["entry"]
    alone.do("pin", "-", "--name", "kept.txt", stdin=b"still news")
    alone.do("rm", "old.txt")
    assert "old.txt" in alone.trash()
    assert entry["cid"] in alone.pinned()
    until(lambda: "old.txt" not in alone.trash(), "its time is over")
    until(lambda: entry["cid"] not in alone.pinned(), "kubo lets go")
    until(lambda: not alone.has_block(entry["root"]), "its blocks go")
    assert hashlib.sha256(alone.content("kept.txt")).digest() == hashlib.sha256(b"still news").digest()


def test_a_node_that_was_away_lets_go_when_it_returns(make_mesh: MakeMesh, tmp_path: Path) -> None:
    attic, barn = make_mesh(2)
    held = attic.pin(random_file(tmp_path / "held.bin", 50_000))
    assert barn.has_block(held["root"])
    barn.stop()
    answer = attic.meshctl("rm", "--now", "--force", "held.bin")
    assert answer.code == 6
    assert "barn" in answer.err
    barn.start().wait_ready()
    until(lambda: held["cid"] not in barn.pinned(), "barn's kubo does not pin it", 60)
    until(lambda: not barn.has_block(held["root"]), "barn's kubo has no block of it", 30)
    assert "held.bin" not in barn.trash()
    assert barn.meshctl("restore", "held.bin").code == 4
