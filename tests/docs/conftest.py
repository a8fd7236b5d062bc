"""Fixtures of the pages' tests: a stranger's home and shell, the sources to clone, and the nodes of a page."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.console import Shell
from tests.docs.pages import ROOT
from tests.mesh.nodes import ENGINES, Mesh, Node, Subnet

MakeArchive = Callable[..., Mesh]


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty home with a short name: a socket's path may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="t"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """A stranger's environment, with this user's downloads, builds and package index."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("MESH", "IPFS_", "GIT_", "MAKE", "VIRTUAL_ENV"))
    }
    cache, settings = Path("~/.cache").expanduser(), Path("~/.config").expanduser()
    return {
        "XDG_CACHE_HOME": str(cache),
        "XDG_CONFIG_HOME": str(settings),
        **{k: v for k, v in kept.items() if k != "XDG_RUNTIME_DIR"},
        "HOME": str(home),
        "COLUMNS": "200",
        "LC_ALL": "C.UTF-8",
    }


@pytest.fixture
def sources(home: Path, environment: dict[str, str]) -> Path:
    """A repository with this checkout as it is, uncommitted changes included."""
    folder = home / "sources"
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    for words in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "-m", "as it stands"]):
        subprocess.run(["git", *words], cwd=folder, env=environment, check=True)
    return folder


@pytest.fixture
def shell(home: Path, environment: dict[str, str]) -> Iterator[Shell]:
    shell = Shell(home, environment)
    yield shell
    shell.close()


@pytest.fixture
def subnet() -> Iterator[Subnet]:
    """Addresses that no other test uses now."""
    assert (ENGINES / "ipfs").exists(), f"there is no {ENGINES / 'ipfs'}; type: make setup"
    found = Subnet()
    yield found
    found.close()


@pytest.fixture
def make_archive(subnet: Subnet) -> Iterator[MakeArchive]:
    """Build the mesh of the pages: attic, cellar and desk. options: of every node."""
    made: list[Mesh] = []

    def make(**options: Any) -> Mesh:
        names = ("attic", "cellar", "desk")
        made.append(Mesh([Node(name, subnet.address(), **options) for name in names]))
        return made[-1].build()

    yield make
    for nodes in made:
        nodes.close()


@pytest.fixture
def archive(make_archive: MakeArchive) -> Mesh:
    return make_archive()
