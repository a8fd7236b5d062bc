"""kubo or the cluster that cannot be used: what `meshctl init` prints, the exit code, and that nothing is half done."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import ENGINES, Node
from tests.mesh.pairing import until
from tests.refusals.daemon import contents

pytestmark = pytest.mark.mesh

KUBO, CLUSTER = "ipfs", "ipfs-cluster-service"
INSTALL = "or name its folder in [paths] engines of the configuration; from a checkout: make setup"


class Engines:
    """A folder with the real programs, in which one can be replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in (KUBO, CLUSTER):
            self.put_back(name)

    def put_back(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        (self.folder / name).symlink_to(ENGINES / name)

    def replace(self, name: str, script: str | None) -> None:
        """By a shell script, or by nothing."""
        path = self.folder / name
        path.unlink()
        if script is not None:
            path.write_text(script)
            path.chmod(0o755)


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    return Engines(tmp_path / "engines")


def _init_is_refused(node: Node, said: str, *, begun: str = "") -> None:
    """With exit code 1 and those words; nothing is left of it, and once it is mended `init` works. begun: what was told
    before."""
    node.start()
    before = contents(node.state)
    answer = node.meshctl("init")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == f"{begun}meshctl: {said}"
    assert contents(node.state) == before
    assert node.status()["mesh"] is None


@pytest.mark.parametrize("name", [KUBO, CLUSTER])
def test_a_program_that_is_missing(make_node: MakeNode, engines: Engines, name: str) -> None:
    engines.replace(name, None)
    node = make_node(engines=engines.folder)
    _init_is_refused(
        node, f"cannot find {name}: it is not in {engines.folder}\n  try: install it, {INSTALL}\n"
    )
    engines.put_back(name)
    assert node.do("init").code == 0


@pytest.mark.parametrize(
    ("name", "script", "said"),
    [
        (KUBO, "echo 0.30.0", "cannot use kubo 0.30.0: meshd is made for 0.43.x\n"),
        (CLUSTER, "echo ipfs-cluster-service version 1.0.2", "cannot use ipfs-cluster-service 1.0.2: meshd is made for 1.1.6"),
    ],
)  # fmt: skip
def test_a_program_that_is_too_old(
    make_node: MakeNode, engines: Engines, name: str, script: str, said: str
) -> None:
    engines.replace(name, f"#!/bin/sh\n{script}\n")
    node = make_node(engines=engines.folder).start()
    answer = node.meshctl("init")
    assert answer.code == 1
    assert f"meshctl: {said}" in answer.err
    assert answer.err.endswith(f"\n  try: install that version, {INSTALL}\n")
    assert node.status()["mesh"] is None


def test_a_program_for_another_machine(make_node: MakeNode, engines: Engines) -> None:
    engines.replace(CLUSTER, "no program at all")
    node = make_node(engines=engines.folder).start()
    answer = node.meshctl("init")
    assert answer.code == 1
    path = engines.folder / CLUSTER
    assert (
        f"meshctl: cannot found a mesh: Exec format error: {path}\n  try: put a program for this machine there"
        in answer.err
    )
    assert node.status()["mesh"] is None


def test_a_program_that_cannot_make_its_folder(make_node: MakeNode, engines: Engines) -> None:
    """kubo's folder was made by then, and goes again."""
    engines.replace(
        CLUSTER,
        f'#!/bin/sh\n[ "$1" = init ] && echo the disk is on fire && exit 1\nexec {ENGINES / CLUSTER} "$@"\n',
    )
    _init_is_refused(
        make_node(engines=engines.folder),
        "cannot found a mesh: cannot run ipfs-cluster-service init: the disk is on fire\n"
        "  try: mend that, then try again; what this machine has is shown by: meshctl status\n",
        begun="  preparing kubo and the cluster\n",
    )


@pytest.mark.parametrize(("name", "service"), [(KUBO, "kubo"), (CLUSTER, "cluster")])
def test_a_program_that_dies_at_its_start(
    make_node: MakeNode, engines: Engines, name: str, service: str
) -> None:
    """Its own last lines are shown, and it goes on by itself once it is mended."""
    dies = '[ "$1" = daemon ] && echo first words && echo the disk is on fire && exit 3'
    engines.replace(name, f'#!/bin/sh\n{dies}\nexec {ENGINES / name} "$@"\n')
    node = make_node(engines=engines.folder).start()
    beginning = node.popen("init")
    try:
        cause = f"{service} ended by itself: exit 3; its last lines: first words | the disk is on fire"
        until(lambda: node.service(service)["last_exit"] == cause, "its last words are kept")
        until(lambda: "service-down" in node.conditions(), "it is a condition")
        assert cause in node.do("status").out
        assert "the disk is on fire" in node.do("logs", service).out
        engines.put_back(name)
        out, err = beginning.communicate(timeout=60)
    finally:
        beginning.kill()
        beginning.communicate()
    assert beginning.returncode == 0, err
    assert f"  waiting for {service}: {cause}; meshctl logs {service}\n" in err.decode()
    assert b"is the first of the mesh" in out


def test_what_to_do_about_a_port_is_said_while_one_waits(make_node: MakeNode) -> None:
    node = make_node().start()
    with socket.socket() as other:
        other.bind((node.address, 4001))
        other.listen(1)
        beginning = node.popen("init")
        try:
            until(lambda: "4001" in node.service("kubo")["last_exit"], "it is said")
            other.close()
            _, err = beginning.communicate(timeout=60)
        finally:
            beginning.kill()
            beginning.communicate()
    assert (
        f"(pid {os.getpid()}) listens there; stop that program, or choose another port in [ports]"
        in err.decode()
    )


def test_a_first_beginning_that_the_power_cut_off_is_finished(make_node: MakeNode) -> None:
    """kubo's folder half made is no folder to go on with."""
    node = make_node().start()
    node.stop()
    (node.state / "kubo" / "config").write_text('{"Identity": {')
    (node.state / "cluster" / "identity.json").write_text('{"id": "12D3')
    node.start()
    assert node.do("init").code == 0


def test_a_folder_of_kubo_that_was_there_before_is_not_emptied(make_node: MakeNode, engines: Engines) -> None:
    """Somebody's repository, moved there: a beginning that fails takes nothing away that it did not make."""
    node = make_node(engines=engines.folder).start()
    node.do("init")
    node.stop()
    for name in ("mesh.json", "kubo/swarm.key"):
        (node.state / name).unlink()
    shutil.rmtree(node.state / "cluster")
    engines.replace(CLUSTER, None)
    before = contents(node.state / "kubo")
    node.start()
    assert node.meshctl("init").code == 1
    assert contents(node.state / "kubo") == before
