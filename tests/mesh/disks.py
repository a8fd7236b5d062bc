"""Real small filesystems, in a file each: to lose power, and to be full. Only root may mount them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.mesh.asking import until

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN: _IOR('X', 125, __u32), linux/fs/ext4/ext4.h
NOLOGFLUSH = 2  # what is not on the disk yet is lost, as when the power goes
_MISSING = next((tool for tool in ("mkfs.ext4", "mount", "umount") if shutil.which(tool) is None), "")

NEEDS_DISKS = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a filesystem"),
    pytest.mark.skipif(bool(_MISSING), reason=f"{_MISSING} is not installed"),
]


class Disk:
    """An ext4 filesystem in a file that writes back nothing by itself for ten minutes."""

    def __init__(self, image: Path, mount_point: Path, size: int, inodes: int | None) -> None:
        self._image = image
        self._mount_point = mount_point
        mount_point.mkdir(parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(size)
        _do("mkfs.ext4", "-q", *(("-N", str(inodes)) if inodes else ()), image)
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
        """Return when nobody holds it: a mount namespace that somebody made meanwhile keeps a copy of every mount, and
        the next mount would be the same filesystem, without power still."""
        device = self._mount_point.stat().st_dev
        alive = (
            Path("/sys/fs/ext4")
            / Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        )
        _do("umount", self._mount_point)
        until(lambda: not alive.exists(), f"nobody holds {self._image} any more", 60)

    def remove(self) -> None:
        self.unmount()
        self._mount_point.rmdir()
        with contextlib.suppress(OSError):  # a node's folder, which could not go while this was mounted in it
            self._mount_point.parent.rmdir()

    def power_returns(self) -> None:
        self.unmount()
        self.mount()


def _do(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)


class MakeDisk(Protocol):
    def __call__(self, mount_point: Path, size: int = ..., *, inodes: int | None = ...) -> Disk: ...


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """Makes filesystems of `size` bytes, unmounted after the test. Name it before `make_node`: what is set up first is
    torn down last, and a disk in use cannot be unmounted."""
    disks: list[Disk] = []

    def make(mount_point: Path, size: int = 400 * 1024 * 1024, *, inodes: int | None = None) -> Disk:
        disk = Disk(tmp_path / f"disk{len(disks)}", mount_point, size, inodes)
        disks.append(disk)
        return disk

    yield make
    for disk in disks:
        disk.remove()
