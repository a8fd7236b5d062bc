"""The engines' programs: found, of the right version, and run to their end."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.errors import Code, MeshError
from meshd.supervise.engine import check_version, find_engine, run_once


def program(folder: Path, text: str, name: str = "ipfs") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_program_in_the_named_folder_is_found(tmp_path: Path) -> None:
    assert find_engine("ipfs", tmp_path / ".." / program(tmp_path, ":").parent.name) == tmp_path / "ipfs"


def test_without_a_folder_it_is_looked_for_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, ":")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_engine("ipfs", None) == tmp_path / "ipfs"


@pytest.mark.parametrize("folder", [True, False])
def test_one_that_is_not_installed_is_told_with_where_it_was_looked_for(
    folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeshError) as caught:
        find_engine("ipfs", tmp_path if folder else None)
    assert caught.value.code is Code.ENGINE_MISSING
    assert (str(tmp_path) if folder else "PATH") in caught.value.detail
    assert "make setup" in caught.value.hint


def test_one_that_is_there_and_may_not_be_run_is_not_called_missing(tmp_path: Path) -> None:
    """A link into a folder that is closed to the user looks the same as one that leads nowhere."""
    (tmp_path / "ipfs").symlink_to(tmp_path / "closed" / "ipfs")
    with pytest.raises(MeshError) as caught:
        find_engine("ipfs", tmp_path)
    assert caught.value.code is Code.ENGINE_MISSING
    assert caught.value.title == "cannot run ipfs"
    assert str(tmp_path / "ipfs") in caught.value.detail
    assert caught.value.hint.endswith(f"namei -l {tmp_path / 'closed' / 'ipfs'}")


@pytest.mark.parametrize("found", ["0.43.0", "0.43.17"])
def test_a_supported_version_is_taken(found: str) -> None:
    check_version("kubo", found, ("0.43.",))


@pytest.mark.parametrize("found", ["0.42.0", "0.430.0", "1.0.43.0", ""])
def test_another_version_is_refused_with_the_one_that_is_meant(found: str) -> None:
    with pytest.raises(MeshError) as caught:
        check_version("kubo", found, ("0.43.",))
    assert caught.value.code is Code.ENGINE_MISSING
    assert caught.value.title == f"cannot use kubo {found}"
    assert "0.43.x" in caught.value.detail


async def test_what_a_command_prints_is_its_answer() -> None:
    assert await run_once(["/bin/sh", "-c", "echo one; echo two >&2"], {}) == "one\ntwo"


async def test_a_command_sees_only_the_given_environment() -> None:
    assert await run_once(["/usr/bin/env"], {"A": "b"}) == "A=b"


async def test_a_command_that_fails_is_told_with_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(MeshError) as caught:
        await run_once([str(program(tmp_path, "echo no such thing >&2; exit 1")), "init"], {})
    assert caught.value.code is Code.ENGINE_FAILED
    assert caught.value.title == "cannot run ipfs init"
    assert caught.value.detail == "no such thing"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["read -r _ < {pipe}", "exec cat /dev/zero"], ids=["silent", "talking"])
async def test_a_command_that_takes_for_ever_is_ended(text: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    await run_once(["/usr/bin/mkfifo", str(pipe)], {})
    with pytest.raises(TimeoutError):
        await run_once(["/bin/sh", "-c", text.format(pipe=pipe)], {"PATH": "/usr/bin:/bin"}, timeout=0.1)
