"""One of three machines has no room left: pins go elsewhere or are refused with the reason, and the rest works."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.disks import NEEDS_DISKS, MakeDisk, make_disk
from tests.mesh.nodes import Mesh, Node
from tests.mesh.pairing import random_file, sha256, until

__all__ = ["make_disk"]  # a fixture is known where it is imported
pytestmark = [*NEEDS_DISKS, pytest.mark.timeout(300)]

MIB = 1024 * 1024


def fill(node: Node, leave: int) -> Path:
    """Put a file on the node's disk so that `leave` bytes stay free."""
    stat = os.statvfs(node.state)
    filler = node.state / "somebody-elses-files"
    with filler.open("wb") as file:
        for _ in range((stat.f_bavail * stat.f_frsize - leave) // MIB):
            file.write(b"x" * MIB)
    return filler


def fill_inodes(node: Node, leave: int) -> Path:
    """Make empty files on the node's disk so that `leave` inodes stay free."""
    filler = node.state / "somebody-elses-files"
    filler.mkdir()
    for number in range(os.statvfs(node.state).f_favail - leave):
        (filler / str(number)).touch()
    return filler


@dataclass(frozen=True)
class Shortage:
    """What there is too little of. word: how the reason names it."""

    word: str
    fill: Callable[[Node], Path]
    reserve: str = "1MiB"
    inodes: int | None = None


SHORTAGES = [
    Shortage("reserve", lambda node: fill(node, leave=40 * MIB), reserve="60MiB"),
    Shortage(
        "inodes", lambda node: fill_inodes(node, leave=8_000), inodes=16_384
    ),  # 10,000 are kept for kubo
]


@pytest.mark.parametrize("shortage", SHORTAGES, ids=lambda shortage: shortage.word)
def test_a_full_disk_on_one_node_refuses_with_the_reason_and_the_others_go_on(
    make_disk: MakeDisk, make_node: MakeNode, tmp_path: Path, shortage: Shortage
) -> None:
    attic, barn = make_node("attic"), make_node("barn")
    cellar = make_node("cellar", reserve=shortage.reserve)
    make_disk(cellar.state, 200 * MIB, inodes=shortage.inodes)
    mesh = Mesh([attic, barn, cellar]).build()
    kept = random_file(tmp_path / "kept.bin", 300_000)
    cellar.pin(kept)

    filler = shortage.fill(cellar)
    until(lambda: "disk-floor" in cellar.conditions(), "its status says that it takes no more", 30)
    condition = cellar.conditions()["disk-floor"]
    assert shortage.word in condition["cause"]
    assert condition["hint"]
    assert "takes no more content" in cellar.do("status").out

    refused = cellar.meshctl("pin", random_file(tmp_path / "more.bin", 200_000))
    assert refused.code == 1, refused
    assert "cannot" in refused.err
    assert shortage.word in refused.err

    until(lambda: not attic.peers()["cellar"]["accepts"], "the others know", 30)
    elsewhere = attic.meshctl("pin", random_file(tmp_path / "elsewhere.bin", 200_000))
    assert elsewhere.code == 6, elsewhere  # done, with fewer copies than asked
    assert "cellar" in elsewhere.err
    assert "room" in elsewhere.err
    assert attic.holders("elsewhere.bin") == {"attic", "barn"}

    cellar.do("get", "kept.bin", "-o", tmp_path / "back")
    assert sha256(tmp_path / "back") == sha256(kept)
    cellar.do("rm", "kept.bin")
    assert not attic.entries("kept.bin")

    shutil.rmtree(filler) if filler.is_dir() else filler.unlink()
    until(lambda: "disk-floor" not in cellar.conditions(), "the condition goes with its cause", 30)
    until(lambda: attic.holders("elsewhere.bin") == {"attic", "barn", "cellar"}, "it gets its copies now", 90)
    mesh.close()


@contextlib.contextmanager
def without_a_free_byte(node: Node) -> Iterator[Callable[[], None]]:
    """Somebody else writes on until nothing is left, so that meshd and its programs cannot write either. Gives what takes the
    room that they have made since."""
    filler = node.state / "somebody-elses-files"

    def fill() -> None:
        with filler.open("ab", buffering=0) as file:
            for size in (MIB, 4096, 512):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    fill()
    until(lambda: "disk-floor" in node.conditions(), "its status reports it", 30)
    yield fill
    filler.unlink()
    until(lambda: "disk-floor" not in node.conditions(), "the condition goes with its cause", 30)


def test_a_node_without_one_free_byte_gives_what_it_has_and_refuses_with_the_reason(
    make_disk: MakeDisk, make_node: MakeNode, tmp_path: Path
) -> None:
    attic, barn = make_node("attic"), make_node("barn")
    make_disk(barn.state, 200 * MIB)
    mesh = Mesh([attic, barn]).build()
    kept, also = (random_file(tmp_path / name, 300_000) for name in ("kept.bin", "also.bin"))
    barn.pin(kept)
    barn.pin(also)
    with without_a_free_byte(barn):
        assert "takes no more content" in barn.do("status").out
        barn.do("get", "kept.bin", "-o", tmp_path / "back")
        assert sha256(tmp_path / "back") == sha256(kept)
        refused = barn.meshctl("pin", random_file(tmp_path / "more.bin", 200_000))
        assert refused.code == 1, refused
        assert "reserve" in refused.err
        attic.do("rm", "also.bin")
        assert not attic.entries("also.bin")
        assert barn.has_block(barn.entries("kept.bin")[0]["root"])
    mesh.close()


def test_a_removal_that_a_full_disk_cannot_record_is_refused_with_the_reason(
    make_disk: MakeDisk, make_node: MakeNode, tmp_path: Path
) -> None:
    attic, barn = make_node("attic"), make_node("barn")
    make_disk(barn.state, 200 * MIB)
    mesh = Mesh([attic, barn]).build()
    barn.pin(random_file(tmp_path / "kept.bin", 300_000))
    barn.pin(random_file(tmp_path / "first.bin", 300_000))
    with without_a_free_byte(barn) as fill:
        barn.meshctl("rm", "first.bin")  # there is room for it where the index of the list gives up its file
        fill()
        refused = barn.meshctl("rm", "kept.bin")
        assert refused.code == 1, refused
        assert "cannot" in refused.err
        assert "there is no room for" in refused.err
        assert attic.holders("kept.bin") == {"attic", "barn"}, "nothing is half done"
    mesh.close()


def test_a_node_whose_disk_had_not_one_free_byte_takes_part_again_once_it_has_room(
    make_disk: MakeDisk, make_node: MakeNode, tmp_path: Path
) -> None:
    attic, barn = make_node("attic"), make_node("barn")
    make_disk(barn.state, 200 * MIB)
    mesh = Mesh([attic, barn]).build()
    barn.pin(random_file(tmp_path / "kept.bin", 300_000))
    with without_a_free_byte(barn):
        attic.do("rm", "kept.bin")
        until(lambda: not attic.peers()["barn"]["accepts"], "attic knows", 30)
        assert attic.meshctl("pin", "-", "--name", "meanwhile.txt", stdin=b"meanwhile").code == 6
    until(lambda: "kept.bin" in barn.trash(), "it has heard of what was removed meanwhile", 60)
    until(lambda: barn.holders("meanwhile.txt") == {"attic", "barn"}, "and holds what came meanwhile", 60)
    assert barn.pin(random_file(tmp_path / "after.bin", 200_000))["held"] == 2
    mesh.close()
