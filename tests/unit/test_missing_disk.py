"""An empty mount point is no place to begin a new node on."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd import files
from meshd.errors import Code, MeshError

MOUNTED = Path("/proc")  # on every Linux


@pytest.fixture
def fstab(tmp_path: Path) -> Path:
    made = tmp_path / "fstab"
    made.write_text(
        "# <file system> <mount point>\n\nUUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\n"
        f"UUID=3 {tmp_path}/disk ext4 nofail 0 2\n#UUID=4 {tmp_path}/old ext4 nofail 0 2\n"
        f"UUID=5 {tmp_path}/a\\040disk ext4 nofail 0 2\nproc {MOUNTED} proc defaults 0 0\nbroken\n"
    )
    return made


@pytest.mark.parametrize("below", ["disk", "disk/meshd", "a disk/deep/down"])
def test_no_node_is_begun_where_a_disk_of_fstab_is_missing(below: str, fstab: Path, tmp_path: Path) -> None:
    with pytest.raises(MeshError) as caught:
        files.check_disk(tmp_path / below, fstab=fstab)
    place = tmp_path / below.split("/")[0]
    assert caught.value.code is Code.BAD_STATE
    assert caught.value.detail == f"/etc/fstab has a disk at {place}, and it is not mounted"
    assert f"sudo mount {str(place)!r}" in caught.value.hint or f"sudo mount {place};" in caught.value.hint
    assert not (tmp_path / below).exists()


@pytest.mark.parametrize("beside", ["old", "diskette", "elsewhere"])
def test_what_fstab_does_not_have_is_nobodys_business(beside: str, fstab: Path, tmp_path: Path) -> None:
    files.check_disk(tmp_path / beside, fstab=fstab)


def test_a_disk_that_is_mounted_is_used(fstab: Path) -> None:
    files.check_disk(MOUNTED / "meshd", fstab=fstab)
    files.check_disk(MOUNTED / "meshd", MOUNTED, fstab=fstab)


def test_a_node_that_is_there_already_runs_whatever_fstab_says(fstab: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "node.key").touch()
    files.check_disk(tmp_path / "disk", fstab=fstab)


def test_a_disk_that_the_configuration_names_must_be_there(fstab: Path, tmp_path: Path) -> None:
    with pytest.raises(MeshError) as caught:
        files.check_disk(tmp_path / "usb" / "meshd", tmp_path / "usb", fstab=fstab)
    assert (
        caught.value.detail
        == f"[paths] disk says that a disk is mounted at {tmp_path}/usb, and there is none"
    )


def test_a_machine_without_fstab_has_no_disks_to_wait_for(tmp_path: Path) -> None:
    files.check_disk(tmp_path, fstab=tmp_path / "none")
