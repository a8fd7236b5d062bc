"""encrypt-secrets and decrypt-secrets, and each way in which they are cut off: the secrets are always somewhere."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd import encrypt_secrets, files
from meshd.errors import MeshError
from meshd.mesh.secret_store import encrypted_file
from meshd.mesh.secrets import NAMES, Secrets
from tests.unit import systemd_stand_in

OWNER = 12345  # nobody's uid
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the state folder must be another user's"),
]


class Machine:
    """One on which a meshd runs that is in a mesh. said: what was told to the person who typed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.said: list[str] = []
        self.secrets = Secrets.generate()
        self.secrets.save(self.state)
        (folder / "digest").write_text(self.secrets.digest())
        (folder / "active").touch()
        for path in (self.state, *self.state.rglob("*")):
            os.chown(path, OWNER, OWNER)

    def encrypt(self, key: str = "auto") -> None:
        encrypt_secrets.encrypt(self.state, key, self.said.append)

    def decrypt(self) -> None:
        encrypt_secrets.decrypt(self.state, self.said.append)

    def kept(self) -> list[str]:
        """The files of its secrets; they are their owner's, and nobody else's to read."""
        found = list((self.state / "secrets").iterdir())
        for path in found:
            assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (OWNER, 0o600)
        return sorted(path.name for path in found)

    def starts(self) -> None:
        """After whatever happened: it has its secrets, or they can be had."""
        systemd_stand_in.start(self.folder)


PLAIN = sorted(NAMES)
ENCRYPTED = sorted(f"{name}.encrypted" for name in NAMES)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    folder = Path("/tmp") / f"m{os.getpid()}"  # pytest's own folders are closed to other users
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    for name in ("systemctl", "systemd-creds"):
        script = tmp_path / name
        script.write_text(
            f'#!/bin/sh\nexec {sys.executable} {systemd_stand_in.__file__} {name} {folder} "$@"\n'
        )
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(encrypt_secrets, "BOOTED", folder)
    monkeypatch.setattr(encrypt_secrets, "DROP_IN", folder / "drop-in")
    try:
        yield Machine(folder)
    finally:
        shutil.rmtree(folder)
        assert (os.geteuid(), os.getegid()) == (0, 0)


def test_there_and_back(machine: Machine) -> None:
    machine.encrypt()
    assert machine.kept() == ENCRYPTED
    assert machine.said[-1].startswith("the secrets are locked by a key in /var/lib/systemd")
    machine.encrypt()
    assert machine.said[-1].startswith("nothing was changed: ")
    machine.starts()
    machine.decrypt()
    assert machine.kept() == PLAIN
    assert Secrets.load(machine.state) == machine.secrets
    assert not encrypt_secrets.DROP_IN.exists()
    machine.decrypt()
    assert "not encrypted by meshd; nothing was changed" in machine.said[-1]


def test_where_meshd_does_not_run_the_plain_files_stay_until_it_starts(machine: Machine) -> None:
    (machine.folder / "active").unlink()
    machine.encrypt()
    assert machine.kept() == sorted(PLAIN + ENCRYPTED)
    assert "restart" not in (machine.folder / "calls").read_text()
    machine.starts()
    assert machine.kept() == ENCRYPTED


def test_where_meshd_does_not_start_with_them_all_is_as_it_was(machine: Machine) -> None:
    """Though it may have got so far that it removed the plain files."""
    (machine.folder / "broken").touch()
    with pytest.raises(MeshError) as caught:
        machine.encrypt()
    assert caught.value.title == "cannot encrypt the secrets"
    assert caught.value.hint == "see what it says: journalctl -u meshd -n 30"
    assert machine.kept() == PLAIN
    assert Secrets.load(machine.state) == machine.secrets
    assert not encrypt_secrets.DROP_IN.exists()


def test_a_meshd_that_begins_late_takes_nothing_with_it(machine: Machine) -> None:
    """It was handed them, and removes the plain files that were just put back; it is stopped before the others go."""
    (machine.folder / "broken").touch()
    (machine.folder / "late").touch()
    with pytest.raises(MeshError):
        machine.encrypt()
    assert not (machine.folder / "late").exists(), "it was stopped"
    assert machine.kept() == PLAIN
    assert Secrets.load(machine.state) == machine.secrets


def test_a_drop_in_that_was_there_before_stays_where_the_start_fails(machine: Machine) -> None:
    machine.encrypt()
    told = encrypt_secrets.DROP_IN.read_text()
    encrypt_secrets.DROP_IN.write_text(f"# mine\n{told}")
    (machine.folder / "broken").touch()
    with pytest.raises(MeshError):
        machine.encrypt()
    assert encrypt_secrets.DROP_IN.read_text() == f"# mine\n{told}"
    assert machine.kept() == ENCRYPTED


def test_another_key_than_they_are_under_is_refused(machine: Machine) -> None:
    machine.encrypt()
    with pytest.raises(MeshError) as caught:
        machine.encrypt("tpm2")
    assert caught.value.title == "cannot encrypt the secrets with the key tpm2"
    assert caught.value.detail == "they are encrypted already, and with the key host"
    assert caught.value.hint == "sudo meshd decrypt-secrets, then: sudo meshd encrypt-secrets --with-key tpm2"


@pytest.mark.parametrize("written", [[], ["swarm.key"], ["swarm.key", "cluster.secret"]])
def test_a_decrypting_that_was_cut_off_is_done_again(machine: Machine, written: list[str]) -> None:
    machine.encrypt()
    encrypt_secrets.DROP_IN.unlink()
    for name, text in (
        ("swarm.key", machine.secrets.swarm_key),
        ("cluster.secret", machine.secrets.cluster_secret),
    ):
        if name in written:
            (machine.state / "secrets" / name).write_text(text)
            os.chown(machine.state / "secrets" / name, OWNER, OWNER)
            (machine.state / "secrets" / name).chmod(0o600)
    machine.decrypt()
    assert machine.kept() == PLAIN
    assert Secrets.load(machine.state) == machine.secrets


@pytest.mark.parametrize("removed", [1, 2])
def test_an_encrypting_that_was_cut_off_is_done_again(machine: Machine, removed: int) -> None:
    """While meshd removed the plain files."""
    machine.encrypt()
    machine.secrets.save(machine.state)
    for path in machine.state.rglob("*"):
        os.chown(path, OWNER, OWNER)
    for name in NAMES[:removed]:
        (machine.state / "secrets" / name).unlink()
    machine.starts()
    assert machine.kept() == ENCRYPTED
    machine.decrypt()
    assert Secrets.load(machine.state) == machine.secrets


def test_a_full_disk_leaves_what_was_encrypted_in_use(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.encrypt()

    def full(path: Path, data: bytes | str, *, mode: int = 0o600) -> None:
        if path.name == "cluster.secret":
            raise OSError(28, "No space left on device", str(path))
        write(path, data, mode=mode)

    write = files.write_durably
    monkeypatch.setattr(files, "write_durably", full)
    with pytest.raises(MeshError) as caught:
        machine.decrypt()
    assert caught.value.title == "cannot decrypt the secrets"
    assert "No space left on device" in caught.value.detail
    assert encrypt_secrets.DROP_IN.exists()
    monkeypatch.undo()
    assert set(ENCRYPTED) <= set(machine.kept())


def test_a_meshd_that_does_not_start_afterwards_either_is_said(machine: Machine) -> None:
    (machine.folder / "dead").touch()
    with pytest.raises(MeshError) as caught:
        machine.encrypt()
    assert "its files are as they were, and it does not run now" in caught.value.detail
    assert machine.kept() == PLAIN


def test_a_decrypting_after_which_meshd_does_not_start_says_what_is_there_and_is_done_again(
    machine: Machine,
) -> None:
    machine.encrypt()
    (machine.folder / "dead").touch()
    with pytest.raises(MeshError) as caught:
        machine.decrypt()
    assert caught.value.title == "cannot decrypt the secrets"
    assert "plain files are there now, beside the encrypted ones" in caught.value.detail
    assert caught.value.hint.endswith("sudo meshd decrypt-secrets, once more")
    assert machine.kept() == sorted(PLAIN + ENCRYPTED)
    (machine.folder / "dead").unlink()
    machine.decrypt()
    assert machine.kept() == PLAIN


@pytest.mark.parametrize("verb", ["encrypt", "decrypt"])
def test_nothing_is_given_up_for_plain_files_of_another_mesh(machine: Machine, verb: str) -> None:
    """Whoever brings them back from another member may take the wrong one's."""
    machine.encrypt()
    (machine.folder / "active").unlink()
    (machine.state / "mesh.json").write_text(json.dumps({"secrets": machine.secrets.digest()}))
    Secrets.generate().save(machine.state)
    for path in machine.state.rglob("*"):
        os.chown(path, OWNER, OWNER)
    before = {name: encrypted_file(machine.state, name).read_bytes() for name in NAMES}
    with pytest.raises(MeshError) as caught:
        getattr(machine, verb)()
    assert caught.value.title == f"cannot {verb} the secrets"
    assert "are another mesh's than the one that this node is in" in caught.value.detail
    assert {name: encrypted_file(machine.state, name).read_bytes() for name in NAMES} == before


def test_what_was_encrypted_before_comes_back_where_meshd_does_not_start(machine: Machine) -> None:
    machine.encrypt()
    before = {name: encrypted_file(machine.state, name).read_bytes() for name in NAMES}
    machine.secrets.save(machine.state)
    for path in machine.state.rglob("*"):
        os.chown(path, OWNER, OWNER)
    (machine.folder / "broken").touch()
    with pytest.raises(MeshError):
        machine.encrypt()
    assert {name: encrypted_file(machine.state, name).read_bytes() for name in NAMES} == before


def test_the_folder_of_a_user_s_own_meshd_is_refused(machine: Machine) -> None:
    (machine.folder / "user").write_text("meshd\n")
    with pytest.raises(MeshError) as caught:
        machine.encrypt()
    assert caught.value.detail == (
        f"{machine.state} belongs to {OWNER}, and meshd.service runs as meshd: it is not the folder of that service"
    )
    assert machine.kept() == PLAIN


def test_a_lost_key_is_said_with_where_the_secrets_can_be_had(machine: Machine) -> None:
    machine.encrypt()
    (machine.folder / "no-key").touch()
    with pytest.raises(MeshError) as caught:
        machine.decrypt()
    assert caught.value.detail == "systemd-creds: Failed to determine local credential key: No such file"
    assert (
        f"copy swarm.key and cluster.secret from {machine.state}/secrets of another member"
        in caught.value.hint
    )
    assert machine.kept() == ENCRYPTED
    machine.starts()


def test_a_link_that_a_user_planted_is_followed_as_that_user(machine: Machine, tmp_path: Path) -> None:
    roots = machine.folder / "roots"
    roots.mkdir(mode=0o700)
    shutil.rmtree(machine.state / "secrets")
    (machine.state / "secrets").symlink_to(roots)
    with pytest.raises(MeshError) as caught:
        machine.encrypt()
    assert caught.value.title == "cannot encrypt the secrets"
    assert list(roots.iterdir()) == []


def test_two_at_once_are_refused(machine: Machine) -> None:
    owner = machine.state.stat()
    with (
        encrypt_secrets._one_at_a_time("cannot encrypt the secrets", owner, machine.state),
        pytest.raises(MeshError, match="runs already"),
    ):
        machine.decrypt()
    assert encrypted_file(machine.state, "swarm.key").exists() is False
