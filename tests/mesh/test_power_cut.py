"""A machine loses power: what `meshctl pin` acknowledged is whole afterwards."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mesh.asking import random_file, sha256
from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import ENGINES, Node, run

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN: _IOR('X', 125, __u32), linux/fs/ext4/ext4.h
NOLOGFLUSH = 2  # what is not on the disk yet is lost, as when the power goes
MISSING = next((tool for tool in ("mkfs.ext4", "mount", "umount") if shutil.which(tool) is None), "")

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.geteuid() != 0, reason="a filesystem to cut off is mounted by root only"),
    pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} is not installed"),
]


class Disk:
    """An ext4 filesystem in a file that writes back nothing by itself for ten minutes."""

    def __init__(self, image: Path, mount_point: Path) -> None:
        self._image = image
        self._mount_point = mount_point
        mount_point.mkdir(parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(400 * 1024 * 1024)
        _do("mkfs.ext4", "-q", image)
        self.mount()

    def mount(self) -> None:
        _do("mount", "-o", "loop,commit=600", self._image, self._mount_point)

    def cut(self) -> None:
        """The power goes: from now on nothing reaches the disk any more."""
        fd = os.open(self._mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        _do("umount", self._mount_point)

    def power_returns(self) -> None:
        self.unmount()
        self.mount()


def _do(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[Path], Disk]]:
    disks: list[Disk] = []

    def make(mount_point: Path) -> Disk:
        disk = Disk(tmp_path / f"disk{len(disks)}", mount_point)
        disks.append(disk)
        return disk

    yield make
    for disk in disks:
        disk.unmount()


def plain_kubo_adds(repo: Path, file: Path) -> str:
    """What a person does without meshd; the CID that kubo answered."""
    where = {"IPFS_PATH": str(repo)}
    assert (
        run([ENGINES / "ipfs", "init", "--profile=autoconf-off,unixfs-v1-2025"], timeout=60, **where).code
        == 0
    )
    added = run([ENGINES / "ipfs", "add", "--quieter", file], timeout=60, **where)
    assert added.code == 0, added.err
    return added.out.strip()


def test_what_was_acknowledged_survives_a_power_cut_and_plain_kubo_loses_it(
    make_node: MakeNode, make_disk: Callable[[Path], Disk], tmp_path: Path
) -> None:
    file = random_file(tmp_path / "minutes-1974.pdf", 20_000_000)
    node: Node = make_node("attic")
    disk = make_disk(node.state)
    other = make_disk(tmp_path / "plain")
    node.start().do("init")
    node.pin(file)
    cid = plain_kubo_adds(tmp_path / "plain" / "repo", file)

    disk.cut()
    other.cut()
    node.kill9_all()
    disk.power_returns()
    other.power_returns()

    node.start().wait_ready()
    node.do("get", file.name, "-o", tmp_path / "back")
    assert sha256(tmp_path / "back") == sha256(file)
    assert [e["name"] for e in node.entries()] == [file.name]
    plain = run(
        [ENGINES / "ipfs", "cat", "--offline", cid], timeout=60, IPFS_PATH=str(tmp_path / "plain" / "repo")
    )
    assert plain.out.encode(errors="replace") != file.read_bytes(), (
        "this cut was too gentle to prove anything"
    )
    node.close()
