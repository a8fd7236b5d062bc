"""`make demo` does what the README says: three copies, nothing left behind; or nodes that stay, and a command that ends them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import demo
from scripts import nodes as three
from tests.docs.following import indented
from tests.docs.pages import ROOT
from tests.mesh.nodes import Subnet

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]

Make = dict[str, str]


@pytest.fixture
def make_environment(environment: dict[str, str], subnet: Subnet) -> Iterator[Make]:
    """What `make` gets: other addresses than a person's. Ends what a demo that failed has left."""
    if any(three.left_behind(demo.PREFIX)):
        pytest.skip("a demo is kept on this machine, and `make demo-stop` would end it")
    yield {**environment, three.BASE: f"{subnet.prefix}.1", "PATH": os.environ["PATH"]}
    folders, daemons = three.left_behind(demo.PREFIX)
    three.end(daemons)
    for folder in folders:
        three.remove(folder)


def _type(command: str, env: Make) -> str:
    """A command line of the README, as a shell in the checkout runs it; what it printed."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def _lines() -> list[str]:
    shown = [typed.text.partition("  #")[0].strip() for typed in indented(ROOT / "README.md")]
    return [line for line in shown if line.startswith("make demo")]


def test_the_demo_makes_three_copies_and_leaves_nothing(make_environment: Make) -> None:
    plain = _lines()[0]
    assert plain == "make demo"
    printed = _type(plain, make_environment)
    assert "minutes-1974.txt  3 copies: attic, cellar, desk" in printed
    assert printed.count("SHA-256") == 4, "what was kept and what came back, of a file and a directory"
    assert not any(three.left_behind(demo.PREFIX))


def test_a_demo_of_your_own_file_can_be_kept_and_stopped(make_environment: Make, home: Path) -> None:
    with_file, kept = _lines()[1:]
    (home / "it's mine.txt").write_text("mine\n")
    own = with_file.replace("path/to/your.file", f'"{home}/it\'s mine.txt"')
    options = kept.removeprefix("make demo ")
    printed = _type(f"{own} {options}", make_environment)
    assert "it's mine.txt  3 copies: attic, cellar, desk" in printed
    assert len(three.left_behind(demo.PREFIX)[1]) == 3
    assert "stopped the nodes" in _type("make demo-stop", make_environment)
    assert not any(three.left_behind(demo.PREFIX))
