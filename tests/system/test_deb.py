"""The package's file, before anybody installs it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from scripts import deb
from scripts.parts import architecture
from tests.system.conftest import QUICKLY, VERSION


def _file(packages: Path) -> Path:
    return packages / f"meshd_{VERSION}_{architecture()}.deb"


@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed")
def test_lintian_finds_no_error(packages: Path) -> None:
    command = ["lintian", "--allow-root", "--fail-on", "error", "--tag-display-limit=0", str(_file(packages))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_same_sources_give_the_same_bytes(packages: Path, tmp_path: Path) -> None:
    again = deb.build(architecture(), VERSION, tmp_path, compression=QUICKLY)
    assert again.read_bytes() == _file(packages).read_bytes()


def test_nothing_in_it_belongs_to_a_user_or_may_be_written_by_one(packages: Path) -> None:
    listed = subprocess.run(["dpkg-deb", "-c", _file(packages)], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        mode, owner = line.split()[:2]
        assert owner == "root/root", line
        assert mode.startswith("l") or "w" not in mode[5:], line
        assert "s" not in mode, line
