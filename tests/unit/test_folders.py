"""The daemon's folders: who may enter them, from their first moment, and whose they must be."""

from __future__ import annotations

import os
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
