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

from tests.mesh.pairing import until

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN: _IOR('X', 125, __u32), linux/fs/ext4/ext4.h
NOLOGFLUSH = 2  # what is not on the disk yet is lost, as when the power goes
_OPTIONS = {"ext4": "loop,commit=600", "xfs": "loop"}
_MISSING = next((tool for tool in ("mkfs.ext4", "mount", "umount") if shutil.which(tool) is None), "")

NEEDS_DISKS = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a filesystem"),
    pytest.mark.skipif(bool(_MISSING), reason=f"{_MISSING} is not installed"),
]


class Disk:
    """A filesystem in a file: ext4, which writes back nothing by itself for ten minutes, or xfs, of which nothing can be read
    either once it is cut."""

    def __init__(
        self, image: Path, mount_point: Path, size: int, inodes: int | None, kind: str = "ext4"
    ) -> None:
        self._kind = kind
        self._image = image
        self._mount_point = mount_point
        mount_point.mkdir(parents=True, exist_ok=True)
        self._shared = _share(mount_point.parent)
        with image.open("wb") as file:
            file.truncate(size)
        _do(f"mkfs.{kind}", "-q", *(("-N", str(inodes)) if inodes else ()), image)
        self.mount()

    def mount(self) -> None:
        _do("mount", "-o", _OPTIONS[self._kind], self._image, self._mount_point)
        device = self._mount_point.stat().st_dev  # asked now: once it is cut it answers nothing
        number = f"{os.major(device)}:{os.minor(device)}"
        self._alive = Path("/sys/fs", self._kind) / Path("/sys/dev/block", number).resolve().name

    def cut(self) -> None:
        """Cut the power: nothing reaches the disk from now on."""
        fd = os.open(self._mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Return when nobody holds it: else the next mount would be the same filesystem, without power still."""
        _do("umount", self._mount_point)
        until(lambda: not self._alive.exists(), f"nobody holds {self._image} any more", 60)

    def remove(self) -> None:
        self.unmount()
        self._mount_point.rmdir()
        if self._shared:
            _do("umount", "--lazy", self._mount_point.parent)
        with contextlib.suppress(OSError):  # a node's folder, which could not go while this was mounted in it
            self._mount_point.parent.rmdir()

    def power_returns(self) -> None:
        self.unmount()
        self.mount()


def _share(folder: Path) -> bool:
    """Have what is unmounted in that folder be unmounted everywhere; whether it was not so before.

    `ip netns exec` and systemd-nspawn, which other tests run, make mount namespaces, and each has a copy of every mount. Where
    the folder is no shared mount they would hold a disk for as long as they live.
    """
    if folder.is_mount():
        return False
    _do("mount", "--bind", folder, folder)
    _do("mount", "--make-shared", folder)
    return True


def _do(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)


class MakeDisk(Protocol):
    def __call__(
        self, mount_point: Path, size: int = ..., *, inodes: int | None = ..., kind: str = ...
    ) -> Disk: ...


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """Makes filesystems of `size` bytes, unmounted after the test. Name it before `make_node`: what is set up first is
    torn down last, and a disk in use cannot be unmounted."""
    disks: list[Disk] = []

    def make(
        mount_point: Path, size: int = 400 * 1024 * 1024, *, inodes: int | None = None, kind: str = "ext4"
    ) -> Disk:
        disk = Disk(tmp_path / f"disk{len(disks)}", mount_point, size, inodes, kind)
        disks.append(disk)
        return disk

    yield make
    for disk in disks:
        disk.remove()
