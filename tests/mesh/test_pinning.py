"""Files go in on one node and come out on another."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from tests.mesh.nodes import Mesh, Node
from tests.mesh.pairing import holds_for, random_file, sha256, until

pytestmark = pytest.mark.mesh


def test_a_pinned_file_is_listed_by_name_with_three_copies_on_another_node(
    mesh: Mesh, tmp_path: Path
) -> None:
    file = random_file(tmp_path / "minutes-1974.pdf", 50_000)
    answer = mesh[0].do("pin", file)
    assert "3 copies: " in answer.out
    assert set(answer.out.partition("copies: ")[2].strip().split(", ")) == {"attic", "barn", "cellar"}
    listed = mesh[2].do("ls", "--name", "minutes-1974.pdf").out
    assert "3/3" in listed
    assert "minutes-1974.pdf" in listed
    assert "attic" in mesh[2].do("ls", "minutes-1974.pdf").out


def test_get_on_another_node_gives_the_same_bytes(mesh: Mesh, tmp_path: Path) -> None:
    file = random_file(tmp_path / "letter.pdf", 3_000_000)
    mesh[0].do("pin", file)
    mesh[2].do("get", "letter.pdf", "-o", tmp_path / "back.pdf")
    assert sha256(tmp_path / "back.pdf") == sha256(file)


def test_each_copy_that_was_acknowledged_is_in_that_nodes_own_kubo(mesh: Mesh, tmp_path: Path) -> None:
    entry = mesh[1].pin(random_file(tmp_path / "ledger.ods", 2_500_000))
    assert {c["node"] for c in entry["copies"]} == {"attic", "barn", "cellar"}
    for node in mesh:
        assert entry["cid"] in node.pinned()
        assert node.has_block(entry["root"])


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A directory with one below it, an empty file and a symlink."""
    (tmp_path / "album" / "1974").mkdir(parents=True)
    random_file(tmp_path / "album" / "1974" / "may.jpg", 200_000)
    random_file(tmp_path / "album" / "1974" / "june.jpg", 10)
    (tmp_path / "album" / "empty.txt").touch()
    (tmp_path / "album" / "favourite").symlink_to("1974/may.jpg")
    return tmp_path / "album"


def test_a_directory_comes_back_as_it_was(mesh: Mesh, tmp_path: Path, album: Path) -> None:
    mesh[0].do("pin", album, "--name", "whole-album")
    mesh[1].do("get", "whole-album", "-o", tmp_path / "back")
    assert sha256(tmp_path / "back/1974/may.jpg") == sha256(album / "1974/may.jpg")
    assert sha256(tmp_path / "back/1974/june.jpg") == sha256(album / "1974/june.jpg")
    assert (tmp_path / "back/empty.txt").read_bytes() == b""
    assert (tmp_path / "back/favourite").readlink() == Path("1974/may.jpg")


def test_ls_and_get_reach_inside_a_directory(mesh: Mesh, tmp_path: Path, album: Path) -> None:
    mesh[0].do("pin", album, "--name", "inside-album")
    listed = mesh[2].do("ls", "inside-album/1974").out
    assert "may.jpg" in listed
    assert "june.jpg" in listed
    mesh[2].do("get", "inside-album/1974/may.jpg", "-o", tmp_path / "one.jpg")
    assert sha256(tmp_path / "one.jpg") == sha256(album / "1974/may.jpg")
    missing = mesh[2].meshctl("get", "inside-album/1975", "-o", tmp_path / "none")
    assert missing.code == 4
    assert not (tmp_path / "none").exists()


def test_standard_input_is_pinned_under_the_name_that_was_given(mesh: Mesh) -> None:
    mesh[0].do("pin", "-", "--name", "club.sql", stdin=b"select 1;\n" * 1000)
    answer = mesh[1].do("get", "club.sql", "-o", "-")
    assert answer.out == "select 1;\n" * 1000


def test_an_empty_file_is_kept_as_well(mesh: Mesh, tmp_path: Path) -> None:
    (tmp_path / "nothing.txt").touch()
    entry = mesh[0].pin(tmp_path / "nothing.txt")
    assert (entry["held"], entry["size"]) == (3, 0)
    mesh[1].do("get", "nothing.txt", "-o", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


@pytest.mark.parametrize(("asked", "copies"), [("1", 1), ("2", 2), ("all", 3)])
def test_as_many_nodes_hold_it_as_were_asked_for(mesh: Mesh, tmp_path: Path, asked: str, copies: int) -> None:
    name = f"copies-{asked}.bin"
    entry = mesh[1].pin(random_file(tmp_path / name, 5_000), "--replicas", asked)
    assert entry["held"] == copies
    holders = {n.name for n in mesh if entry["cid"] in n.pinned()}
    assert len(holders) == copies
    assert "barn" in holders, "the node it was pinned on comes first"
    assert {e["node"] for e in entry["copies"]} == holders == mesh[0].holders(name)


def test_more_copies_than_there_are_nodes_are_degraded_and_kept(mesh: Mesh, tmp_path: Path) -> None:
    answer = mesh[0].meshctl("pin", random_file(tmp_path / "seven.bin", 100), "--replicas", "7")
    assert answer.code == 6
    assert "3 of 7 copies" in answer.out
    assert mesh[1].holders("seven.bin") == {"attic", "barn", "cellar"}


def test_a_detached_pin_is_made_whole_in_the_background(mesh: Mesh, tmp_path: Path) -> None:
    answer = mesh[0].do("pin", random_file(tmp_path / "later.bin", 4_000_000), "--detach")
    assert "in the background" in answer.err
    until(lambda: len(mesh[2].holders("later.bin")) == 3, "three nodes hold it")


def test_what_the_mesh_has_already_is_pinned_by_its_cid(mesh: Mesh, tmp_path: Path, album: Path) -> None:
    root = mesh[0].pin(album, "--name", "source-album")["root"]
    mesh[2].do("pin", "--cid", root, "--name", "cid-album")
    assert mesh[0].holders("cid-album") == {"attic", "barn", "cellar"}
    mesh[1].do("get", "cid-album/1974/may.jpg", "-o", tmp_path / "one.jpg")
    assert sha256(tmp_path / "one.jpg") == sha256(album / "1974/may.jpg")


def test_the_same_name_again_is_a_newer_version(mesh: Mesh) -> None:
    for text in (b"old", b"new"):
        mesh[0].do("pin", "-", "--name", "draft.txt", stdin=text)
    assert mesh[1].do("get", "draft.txt", "-o", "-").out == "new"
    assert mesh[1].do("get", "draft.txt@2", "-o", "-").out == "old"


@pytest.mark.parametrize("words", [("get", "no-such-entry"), ("ls", "no-such-entry")])
def test_what_is_not_there_is_said_with_what_to_type(mesh: Mesh, words: tuple[str, ...]) -> None:
    answer = mesh[0].meshctl(*words)
    assert answer.code == 4
    assert "cannot" in answer.err
    assert "Traceback" not in answer.err


def test_a_pin_with_fewer_copies_is_nobody_s_removal(mesh: Mesh, tmp_path: Path) -> None:
    """The cluster of a node that gets no copy asks for it to be unpinned there, which is no removal."""
    entries = [mesh[0].pin(random_file(tmp_path / f"one-{n}.bin", 300), "--replicas", "1") for n in range(5)]
    cids = {e["cid"] for e in entries}
    holds_for(
        lambda: not any(cids & _removed(n) for n in mesh), "no node has recorded a removal", 2.0
    )  # twice the time after which one would be recorded


def _removed(node: Node) -> set[str]:
    """What its journal has, also what `trash` does not list because it is kept. Read from a copy: meshd has it alone."""
    if not (node.state / "trash.db").exists():
        return set()
    with tempfile.TemporaryDirectory() as folder:
        for file in node.state.glob("trash.db*"):
            shutil.copy(file, folder)
        with contextlib.closing(sqlite3.connect(Path(folder, "trash.db"))) as opened:
            return {cid for (cid,) in opened.execute("SELECT cid FROM removals")}
