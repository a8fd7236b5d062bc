"""The daemon's folders: who may enter them, from their first moment, and whose they must be."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from meshd import files
from meshd.errors import Code, MeshError
from meshd.supervise import sockets


def modes(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mode & 0o777 for name in ("state", "run", "run/private")}


def prepare(folder: Path) -> None:
    files.prepare_folders(folder / "state", folder / "run", folder / "run" / "private")


def test_all_may_enter_the_one_with_the_control_socket_and_its_user_alone_the_others(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert modes(tmp_path) == {"state": 0o700, "run": 0o755, "run/private": 0o700}
    for name in ("state", "run/private"):
        (tmp_path / name).chmod(0o777)
    prepare(tmp_path)
    assert modes(tmp_path) == {"state": 0o700, "run": 0o755, "run/private": 0o700}


def test_a_private_folder_is_never_open_not_even_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chmod(path: Path, mode: int) -> None:
        pytest.fail(f"{path} was made open, and then closed")

    monkeypatch.setattr(Path, "chmod", chmod)
    files.private_directory(tmp_path / "secrets")
    prepare(tmp_path)


@pytest.mark.parametrize("whose", ["state", "run/private"])
def test_a_folder_of_another_user_is_refused_whatever_root_may(
    tmp_path: Path, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What root wrote there its owner could not read afterwards; and what is in it, its owner could change."""
    prepare(tmp_path)
    stat = Path.stat

    def others(path: Path, **options: bool) -> os.stat_result:
        found = stat(path, **options)
        if path != tmp_path / whose:
            return found
        return os.stat_result([*found[:4], os.geteuid() + 1, *found[5:10]])

    monkeypatch.setattr(Path, "stat", others)
    with pytest.raises(MeshError) as caught:
        prepare(tmp_path)
    assert caught.value.code is Code.BAD_STATE
    assert f"cannot use {tmp_path / whose}" in caught.value.title
    assert "it belongs to" in caught.value.detail


def test_two_daemons_do_not_hold_one_folder(tmp_path: Path) -> None:
    with files.only_daemon(tmp_path):
        with pytest.raises(MeshError) as caught, files.only_daemon(tmp_path):
            pytest.fail("there are two")
        assert caught.value.code is Code.BUSY
    with files.only_daemon(tmp_path):
        """It is free again."""


def test_a_folder_is_emptied_and_what_a_link_in_it_leads_to_is_not(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "below").mkdir(parents=True)
    folder = tmp_path / "kubo"
    (folder / "blocks").mkdir(parents=True)
    (folder / "link").symlink_to(kept)
    files.empty(folder)
    assert list(folder.iterdir()) == []
    assert (kept / "below").is_dir()


def test_where_the_sockets_of_a_program_may_not_be_seen_it_is_not_called_clean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise psutil.AccessDenied(1)

    monkeypatch.setattr(psutil.Process, "net_connections", denied)
    with pytest.raises(MeshError) as caught:
        sockets.of_process(os.getpid())
    assert caught.value.code is Code.DENIED


# -- what the kernel refuses -------------------------------------------------------------------------------------------------------


def test_a_private_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    made = files.private_directory(tmp_path / "a" / "b")
    assert made.is_dir()
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_enter_is_closed(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    assert files.private_directory(tmp_path / "open").stat().st_mode & 0o777 == 0o700


REFUSALS = [
    (errno.ENOSPC, "make room, then try again: df -h {folder}; df -i {folder}"),
    (errno.EDQUOT, "make room, then try again: df -h {folder}; df -i {folder}"),
    (errno.EROFS, "findmnt -T {folder}"),
    (errno.EACCES, "chmod u+rwx {folder}; or name another folder in [paths] state of the configuration"),
    (errno.EPERM, "chmod u+rwx {folder}; or name another folder in [paths] state of the configuration"),
    (errno.ENOTDIR, "move that file away, or name another folder in [paths] state of the configuration"),
    (errno.ENOEXEC, "put a program for this machine there"),
    (errno.EIO, "see what is wrong with it, then try again: ls -la {folder}"),
]


@pytest.mark.parametrize(("number", "hint"), REFUSALS, ids=[errno.errorcode[r[0]] for r in REFUSALS])
def test_what_the_kernel_refuses_is_told_with_what_to_type(number: int, hint: str, tmp_path: Path) -> None:
    """Of a path that is not there, what is there of it is looked at."""
    path = tmp_path / "gone" / "lock"
    error = files.unusable(OSError(number, os.strerror(number), str(path)), "cannot start", "[paths] state")
    assert (error.title, error.detail) == ("cannot start", f"{os.strerror(number)}: {path}")
    assert hint.format(folder=tmp_path) in error.hint
    assert error.code is (Code.DISK_FLOOR if number in (errno.ENOSPC, errno.EDQUOT) else Code.BAD_STATE)


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    state, run = tmp_path / "state", tmp_path / "run"
    run.write_text("x")
    with pytest.raises(MeshError) as caught:
        files.prepare_folders(state, run, run / "private")
    assert caught.value.title == f"cannot use {run}"
    assert caught.value.detail == "Not a directory"
    assert "[paths] run" in caught.value.hint


# As meshd runs in a container: no root, and one group. argv: the state folder.
AS_NOBODY = """
import os, sys
from pathlib import Path
from meshd import files
from meshd.errors import MeshError
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
state = Path(sys.argv[1])
try:
    files.prepare_folders(state, state.parent / "run", state.parent / "run/private")
except MeshError as exc:
    print(f"{exc.title}\\n{exc.detail}\\n{exc.hint}")
"""
as_another = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run a program as another user")


def as_nobody(state: Path) -> list[str]:
    """Title, cause and hint of what `prepare_folders` says; nothing where it is content."""
    argv = [sys.executable, "-c", AS_NOBODY, str(state)]
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout.splitlines()


@pytest.fixture
def volume() -> Iterator[Path]:
    """A volume of root's that is open for a group: what Kubernetes makes of one by `fsGroup`."""
    above = Path(tempfile.mkdtemp(prefix="meshd-", dir="/tmp"))  # pytest's own folders are closed to others
    above.chmod(0o777)
    folder = above / "volume"
    folder.mkdir()
    os.chown(folder, 0, 65534)
    folder.chmod(0o2775)
    yield folder
    shutil.rmtree(above)


@as_another
def test_a_volume_that_is_somebody_elses_is_told_with_the_folder_inside_it_that_works(volume: Path) -> None:
    title, cause, hint = as_nobody(volume)
    assert title == f"cannot use {volume}"
    assert cause == "it belongs to root, and this meshd runs as nobody"
    inside = volume / "state"
    assert hint == f'use a folder inside it: [paths] state = "{inside}"; or run meshd as root'
    assert list(volume.iterdir()) == []
    assert as_nobody(inside) == []
    made = inside.stat()
    assert (made.st_uid, stat.S_IMODE(made.st_mode) & 0o777) == (65534, 0o700)


@as_another
def test_a_folder_inside_a_volume_that_was_opened_again_is_closed(volume: Path) -> None:
    """Kubernetes opens all that is in a volume for the group, each time that a pod starts."""
    assert as_nobody(volume / "state") == []
    (volume / "state").chmod(0o2770)
    assert as_nobody(volume / "state") == []
    assert stat.S_IMODE((volume / "state").stat().st_mode) & 0o777 == 0o700


@as_another
@pytest.mark.parametrize("why", ["it cannot be written", "it is another node's"])
def test_where_no_folder_inside_it_would_do_none_is_named(why: str, volume: Path) -> None:
    if why == "it cannot be written":
        volume.chmod(0o755)
    else:
        (volume / "node.key").write_text("x")
    assert (
        as_nobody(volume)[2]
        == "run meshd as root, or name another folder in [paths] state of the configuration"
    )
