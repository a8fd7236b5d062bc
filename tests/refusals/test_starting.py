"""What keeps `meshd run` from starting: what was typed, what is printed, the exit code."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import METRICS_PORT, Subnet
from tests.refusals.daemon import (
    OTHER,
    contents,
    fill,
    meshd_run,
    needs_another_user,
    put_config,
    refused,
    tmpfs,
)

NEEDS_ROOT = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a filesystem"),
]
pytestmark = pytest.mark.mesh

# -- the configuration ---------------------------------------------------------------------------------------------

CONFIGS = [
    ("an unknown key", "[ports]\nswram = 4001\n", "ports.swram: unknown key; expected one of swarm, cluster, peer"),
    ("a wrong type", '[ports]\nswarm = "many"\n', "ports.swarm: expected a whole number (got 'many')"),
    ("no TOML", "[ports\n", "it is not TOML: Expected ']' at the end of a table declaration (at line 1, column 7)"),
    ("an escape in the name", '[node]\nname = "a\\u001b[31m"\n', "node.name: expected 1 to 63 of the letters a-z, A-Z,"
     " digits, '.', '_' and '-', a letter or digit at either end (got 'a\\x1b[31m')"),
    ("an escape in a key", '[node]\n"a\\u001b[31m" = 1\n', "node.a\\x1b[31m: unknown key; expected one of name, site"),
    ("a long run folder", f'[paths]\nrun = "/{"r" * 100}"\n', "paths.run: the sockets' paths would be 122 bytes and the"
     " kernel takes 107; expected a folder whose path is 15 bytes shorter"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "cause"), [c[1:] for c in CONFIGS], ids=[c[0] for c in CONFIGS])
def test_a_wrong_configuration(text: str, cause: str, tmp_path: Path) -> None:
    config = tmp_path / "meshd.toml"
    config.write_text(text)
    hint = f"mend it, then: meshd check --config {config}"
    assert meshd_run(config) == (2, "", refused(f"cannot use {config}", cause, hint))


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    config = tmp_path / "gone.toml"
    hint = f"see what is there: ls -l {tmp_path}; or leave --config out, for every key has a default"
    assert meshd_run(config) == (2, "", refused(f"cannot read {config}", "there is no such file", hint))


# -- the folders ---------------------------------------------------------------------------------------------------


def test_a_state_folder_of_another_owner(make_node: MakeNode) -> None:
    needs_another_user()
    node = make_node()
    node.folder.chmod(0o755)
    node.state.mkdir(mode=0o777)
    node.state.chmod(0o777)
    cause = "it belongs to root, and this meshd runs as nobody"
    hint = f'use a folder inside it: [paths] state = "{node.state}/state"; or run meshd as root'
    assert meshd_run(node.config, user=OTHER) == (1, "", refused(f"cannot use {node.state}", cause, hint))
    assert list(node.state.iterdir()) == []


def test_a_state_folder_of_another_owner_when_root_starts_it(make_node: MakeNode) -> None:
    """What root wrote there the owner's own meshd could not read afterwards."""
    needs_another_user()
    node = make_node()
    node.state.mkdir()
    os.chown(node.state, OTHER, OTHER)
    answer = meshd_run(node.config)
    assert answer.code == 1
    assert (
        f"cannot use {node.state}\n  it belongs to nobody, and this meshd runs as root\n  try: " in answer.err
    )
    assert list(node.state.iterdir()) == []


def test_a_state_folder_that_is_not_writable(make_node: MakeNode) -> None:
    needs_another_user()
    node = make_node()
    node.folder.chmod(0o777)
    node.state.mkdir()
    os.chown(node.state, OTHER, OTHER)
    node.state.chmod(0o500)
    cause = f"Permission denied: {node.state}/lock"
    hint = f"chmod u+rwx {node.state}; or name another folder in [paths] state of the configuration"
    assert meshd_run(node.config, user=OTHER) == (
        1,
        "",
        refused(f"cannot write in {node.state}", cause, hint),
    )


def test_a_run_folder_that_is_not_writable(make_node: MakeNode) -> None:
    needs_another_user()
    node = make_node()
    node.folder.chmod(0o777)
    private = node.run_folder / "private"
    private.mkdir(parents=True)
    os.chown(private, OTHER, OTHER)
    cause = f"Permission denied: {node.run_folder}/lock"
    hint = (
        "run meshd as root, or name another folder in [paths] run of the configuration;"
        f" see ls -ld {node.run_folder}"
    )
    title = f"cannot write in {node.run_folder}"
    assert meshd_run(node.config, user=OTHER) == (1, "", refused(title, cause, hint))


def test_a_state_folder_that_is_a_file(make_node: MakeNode) -> None:
    node = make_node()
    node.state.write_text("minutes of 1974")
    hint = "move that file away, or name another folder in [paths] state of the configuration"
    assert meshd_run(node.config) == (1, "", refused(f"cannot use {node.state}", "Not a directory", hint))
    assert node.state.read_text() == "minutes of 1974"


class TestDisks:
    pytestmark = NEEDS_ROOT

    def test_a_read_only_disk(self, make_node: MakeNode) -> None:
        node = make_node()
        with tmpfs(node.state, "ro,size=1m,mode=700"):
            answer = meshd_run(node.config)
        hint = f"mount it for writing (a faulty disk becomes read-only by itself: dmesg): findmnt -T {node.state}"
        cause = f"Read-only file system: {node.state}/lock"
        assert answer == (1, "", refused(f"cannot write in {node.state}", cause, hint))

    def test_a_full_disk(self, make_node: MakeNode) -> None:
        node = make_node()
        with tmpfs(node.state, "size=64k,mode=700"):
            fill(node.state, leave=0)
            answer = meshd_run(node.config)
        hint = f"make room, then try again: df -h {node.state}; df -i {node.state}"
        cause = f"No space left on device: {node.state}/lock"
        assert answer == (1, "", refused(f"cannot write in {node.state}", cause, hint))

    def test_a_disk_that_gets_full_while_the_first_key_is_made(self, make_node: MakeNode) -> None:
        """What is there is whole, and the next start goes on with it."""
        node = make_node()
        with tmpfs(node.state, "size=64k,mode=700"):
            filled = fill(node.state, leave=2)
            code, _, said = meshd_run(node.config)
            assert (code, "meshd: cannot run\n  No space left on device: " in said) == (1, True), said
            before = contents(node.state)
            filled.unlink()
            node.start().stop()
            after = contents(node.state)
            assert after["node.key"] == before["node.key"]
            assert "node.crt" in after


def test_a_second_daemon_with_its_sockets_in_the_same_folder(make_node: MakeNode) -> None:
    first, second = make_node("attic").start(), make_node("barn")
    put_config(second, second.run_folder, first.run_folder)
    assert first.process is not None
    cause = f"another meshd (pid {first.process.pid}) is running on this folder"
    hint = "stop it first (systemctl stop meshd), or name another folder in [paths] run"
    title = f"cannot start on {first.run_folder}"
    assert meshd_run(second.config) == (1, "", refused(title, cause, hint))
    assert first.status()["node"]["name"] == "attic"


# -- the network ---------------------------------------------------------------------------------------------------


def test_a_metrics_port_that_another_program_has(make_node: MakeNode, subnet: Subnet) -> None:
    node = make_node()
    with socket.socket() as other:
        other.bind((node.address, METRICS_PORT))
        other.listen(1)
        code, _, said = meshd_run(node.config)
    assert code == 1
    assert said.startswith(f"meshd: cannot serve metrics on {node.address}:{METRICS_PORT}\n  ")
    assert f"(pid {os.getpid()}) listens there\n  try: choose another port in [metrics] listen" in said


def test_an_address_that_is_not_on_this_machine(make_node: MakeNode) -> None:
    """It is said to whoever begins, and nothing is made; the daemon waits for the network."""
    node = make_node("attic", address="10.255.254.253", metrics="127.0.0.1")
    put_config(node, f"127.0.0.1:{METRICS_PORT}", "")
    node.start()
    before = contents(node.state)
    answer = node.meshctl("init")
    assert answer.code == 1
    assert answer.err == (
        "meshctl: cannot begin: address 10.255.254.253 is not on this machine: the private network is down, or the"
        " address has changed\n"
        "  try: bring the network up (ip addr shows what is there); meshd goes on by itself\n"
    )
    assert contents(node.state) == before


# -- the environment -----------------------------------------------------------------------------------------------


def test_no_home_is_needed(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    assert make_node("attic").start().do("init").code == 0
