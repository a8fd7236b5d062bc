"""Where something that is fetched lands: never over anything, also not over what came up meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshctl import atomic_output
from meshctl.errors import MeshctlError


def fill(directory: int) -> None:
    """Something is fetched into it."""
    with open(os.open("minutes", os.O_WRONLY | os.O_CREAT, dir_fd=directory), "w") as file:  # noqa: PTH123 - by descriptor
        file.write("what was fetched")


def comes_up(target: Path, what: str) -> None:
    """Somebody else makes something of that name."""
    if what == "a link to nowhere":
        target.symlink_to("nowhere")
    elif what == "a file":
        target.write_text("mine")
    else:
        target.mkdir()
        if what == "a folder":
            (target / "mine").touch()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("what", ["an empty folder", "a folder", "a file", "a link to nowhere"])
def test_a_directory_takes_the_place_of_nothing_that_came_up_meanwhile(tmp_path: Path, what: str) -> None:
    """An empty folder too: a rename would take its place in silence, and with it its owner and mode."""
    target = tmp_path / "album"

    def fetch() -> None:
        with atomic_output.new_directory(str(target), "album") as directory:
            fill(directory)
            comes_up(target, what)

    with pytest.raises(MeshctlError) as caught:
        fetch()
    assert caught.value.detail == "it exists already"
    assert left(tmp_path) == ["album"], "nothing of what was fetched"
    if what == "an empty folder":
        assert left(target) == []


@pytest.mark.parametrize("what", ["a folder", "a file", "a link to nowhere"])
@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_file_takes_the_place_of_nothing_that_came_up_meanwhile(
    tmp_path: Path, what: str, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "minutes"
    if not links:
        monkeypatch.setattr(os, "link", _no_links)

    def fetch() -> None:
        with atomic_output.new_file(str(target), "minutes") as file:
            os.write(file, b"what was fetched")
            comes_up(target, what)

    with pytest.raises(MeshctlError) as caught:
        fetch()
    assert caught.value.detail == "it exists already"
    assert left(tmp_path) == ["minutes"]
    if what == "a file":
        assert target.read_text() == "mine"


def _no_links(*_: object, **__: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_without_hard_links_a_file_lands_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    with atomic_output.new_file(str(tmp_path / "minutes"), "minutes") as file:
        os.write(file, b"what was fetched")
    assert (tmp_path / "minutes").read_text() == "what was fetched"
    assert left(tmp_path) == ["minutes"]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_breaks_off_leaves_nothing(tmp_path: Path, kind: str) -> None:
    making = atomic_output.new_file if kind == "file" else atomic_output.new_directory
    with pytest.raises(KeyboardInterrupt), making(str(tmp_path / "x"), "x"):
        raise KeyboardInterrupt
    assert left(tmp_path) == []


def test_nobody_looks_into_a_directory_before_it_is_whole(tmp_path: Path) -> None:
    with atomic_output.new_directory(str(tmp_path / "album"), "album") as directory:
        fill(directory)
        assert os.fstat(directory).st_mode & 0o777 == 0o700
        (unfinished,) = tmp_path.iterdir()
        assert unfinished.name.startswith(".album.meshctl-")
    assert left(tmp_path) == ["album"]


def test_nobody_else_s_file_is_written_into_under_the_temporary_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / ".x.meshctl-1"
    mine.write_text("mine")
    monkeypatch.setattr(atomic_output, "sibling", lambda _: str(mine))
    with pytest.raises(MeshctlError), atomic_output.new_file(str(tmp_path / "x"), "x"):
        pytest.fail("it may not begin")


def test_the_content_is_durable_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    target = tmp_path / "x"

    def noted(what: str, call: Callable[..., None]) -> Callable[..., None]:
        def made(*arguments: Any) -> None:
            seen.append(f"{what}, {'named' if os.path.lexists(target) else 'not named'}")
            call(*arguments)

        return made

    monkeypatch.setattr(os, "fsync", noted("fsync", os.fsync))
    monkeypatch.setattr(atomic_output, "_sync_file_system", noted("syncfs", atomic_output._sync_file_system))
    monkeypatch.setattr(atomic_output, "sync_parent", noted("folder", atomic_output.sync_parent))
    with atomic_output.new_file(str(target), "x") as file:
        os.write(file, b"x")
    assert seen == ["fsync, not named", "folder, named", "fsync, named"]
    seen.clear()
    target.unlink()
    with atomic_output.new_directory(str(target), "x") as directory:
        fill(directory)
    assert seen == ["syncfs, not named", "folder, named", "fsync, named"]
