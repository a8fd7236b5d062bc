"""Which of the places that the secrets can be in is used, and what of them stays on the disk."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from meshd import files
from meshd.errors import Code, MeshError
from meshd.mesh import secret_store
from meshd.mesh.secret_store import SecretStore, encrypted_file, key_of
from meshd.mesh.secrets import NAMES, Secrets

# The first bytes of what systemd-creds 252 made: with a key on the disk, and with swtpm's TPM.
HOST = bytes.fromhex("5a1c6a86df9d4096b1d5a65e0862f19a")
TPM2 = bytes.fromhex("0c7cc07b117645919c4b0bea08bc20fe")
BOTH = bytes.fromhex("93a894094874449090caf2fc93cab553")
NO_ENVIRONMENT: dict[str, str] = {}
EMPTY = bytes.fromhex("058469daf6f54324800549da0f8ea2fb")


def nothing_else() -> None:
    """No engine has a copy."""


def blob(key: bytes) -> bytes:
    return base64.b64encode(key + bytes(100))


@pytest.fixture
def secrets() -> Secrets:
    return Secrets.generate()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state" / "secrets").mkdir(parents=True)
    return tmp_path / "state"


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run folder of a unit is; that of a test is where pytest makes it."""
    monkeypatch.setattr(files, "in_memory", lambda path: True)


HandOver = Callable[..., SecretStore]


@pytest.fixture
def hand_over(state: Path, tmp_path: Path) -> HandOver:
    """hand_over(secrets, prefix): the store of a unit that is handed them; None: empty ones."""

    def hand(secrets: Secrets | None, prefix: str = "") -> SecretStore:
        folder = tmp_path / "credentials"
        folder.mkdir(exist_ok=True)
        texts = ("\n", "\n") if secrets is None else (secrets.swarm_key, secrets.cluster_secret)
        for name, text in zip(NAMES, texts, strict=True):
            (folder / f"{prefix}{name}").write_text(text)
        return SecretStore(state, state.parent / "run", {"CREDENTIALS_DIRECTORY": str(folder)}.get)

    return hand


def encrypt(state: Path, key: bytes = HOST) -> None:
    for name in NAMES:
        encrypted_file(state, name).write_bytes(blob(key))


def test_without_credentials_they_are_in_files(state: Path, secrets: Secrets) -> None:
    store = SecretStore(state, state.parent / "run", NO_ENVIRONMENT.get)
    store.save(secrets)
    assert Secrets.load(state) == store.load() == secrets
    assert not store.in_memory()
    assert store.swarm_key() == secrets.swarm_key
    assert store.at_rest().kept == "files"


def test_an_empty_credential_is_none(state: Path, secrets: Secrets, hand_over: HandOver) -> None:
    store = hand_over(None)
    store.save(secrets)
    store.settle(secrets.digest(), nothing_else)
    assert Secrets.load(state) == secrets
    assert not hand_over(None, "encrypted.").in_memory()


def test_what_the_owner_hands_over_is_used_and_never_written(
    state: Path, secrets: Secrets, hand_over: HandOver
) -> None:
    store = hand_over(secrets)
    assert store.founding() == secrets
    store.save(secrets)
    assert list((state / "secrets").iterdir()) == []
    assert store.load() == secrets
    link = store.swarm_key()
    assert isinstance(link, Path)
    assert link.read_text() == secrets.swarm_key


def test_the_plain_files_go_only_when_the_same_is_handed_over(
    state: Path, secrets: Secrets, hand_over: HandOver
) -> None:
    secrets.save(state)
    another = hand_over(Secrets.generate())
    with pytest.raises(MeshError) as caught:
        another.settle(secrets.digest(), nothing_else)
    assert caught.value.code is Code.BAD_STATE
    assert Secrets.load(state) == secrets
    hand_over(secrets).settle(secrets.digest(), nothing_else)
    assert list((state / "secrets").iterdir()) == []


def test_a_removal_of_the_plain_files_that_was_cut_off_is_finished(
    state: Path, secrets: Secrets, hand_over: HandOver
) -> None:
    secrets.save(state)
    (state / "secrets" / "swarm.key").unlink()
    store = hand_over(secrets)
    store.settle(secrets.digest(), nothing_else)
    assert store.load() == secrets
    assert list((state / "secrets").iterdir()) == []


def test_where_nothing_is_known_of_the_mesh_the_plain_files_say_which_it_is(
    state: Path, secrets: Secrets, hand_over: HandOver
) -> None:
    """An older meshd wrote no digest of them."""
    secrets.save(state)
    with pytest.raises(MeshError, match="another mesh's"):
        hand_over(Secrets.generate()).settle("", nothing_else)
    assert Secrets.load(state) == secrets
    hand_over(secrets).settle("", nothing_else)
    assert list((state / "secrets").iterdir()) == []


def test_the_engines_copies_go_before_the_plain_files(
    state: Path, secrets: Secrets, hand_over: HandOver
) -> None:
    """So that what was cut off between is done again."""
    secrets.save(state)

    def cut_off() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        hand_over(secrets).settle(secrets.digest(), cut_off)
    assert Secrets.load(state) == secrets


def test_what_a_write_that_was_cut_off_has_left_goes_too(state: Path, secrets: Secrets) -> None:
    (state / "secrets" / ".swarm.key.4711.tmp").write_text(secrets.swarm_key)
    SecretStore(state, state.parent / "run", NO_ENVIRONMENT.get).erase()
    assert list((state / "secrets").iterdir()) == []


def test_one_plain_file_of_two_hides_nothing(state: Path, secrets: Secrets, hand_over: HandOver) -> None:
    encrypt(state)
    secrets.save(state)
    (state / "secrets" / "cluster.secret").unlink()
    assert hand_over(secrets, "encrypted.").load() == secrets
    with pytest.raises(MeshError) as caught:
        SecretStore(state, state.parent / "run", NO_ENVIRONMENT.get).load()
    assert "sudo meshd decrypt-secrets" in caught.value.hint


def test_a_mesh_after_one_whose_leaving_was_cut_off_is_not_handed_the_old_ones(
    state: Path, secrets: Secrets, hand_over: HandOver
) -> None:
    encrypt(state)
    store = hand_over(Secrets.generate(), "encrypted.")
    store.save(secrets)
    assert store.load() == secrets
    assert not store.in_memory()
    store.settle(secrets.digest(), nothing_else)


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    ("folder", "more", "by"),
    [
        ("run/credentials/meshd.service", {"INVOCATION_ID": "1f"}, "systemd"),
        ("user/credentials/meshd.service", {"INVOCATION_ID": "1f", "XDG_RUNTIME_DIR": "user"}, "systemd"),
        ("run/secrets/meshd", {}, "environment"),
        ("run/credentials/meshd", {}, "environment"),
        ("run/secrets/meshd", {"INVOCATION_ID": "1f", "NOTIFY_SOCKET": "/run/notify"}, "environment"),
        ("run/credentials/a/b", {"INVOCATION_ID": "1f"}, "environment"),
    ],
    ids=("a unit", "a user's unit", "a container", "so called", "started by a unit", "deeper"),
)
def test_who_hands_them_over_is_said(
    folder: str, more: dict[str, str], by: str, secrets: Secrets, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may be told of systemd's NOTIFY_SOCKET, and a shell that a unit has started has its INVOCATION_ID."""
    place = state.parent / folder
    place.mkdir(parents=True)
    for name, text in zip(NAMES, (secrets.swarm_key, secrets.cluster_secret), strict=True):
        (place / name).write_text(text)
    monkeypatch.setattr(secret_store, "_RUN", str(state.parent / "run"))
    environment = {"CREDENTIALS_DIRECTORY": str(place), **more}
    if "XDG_RUNTIME_DIR" in more:
        environment["XDG_RUNTIME_DIR"] = str(state.parent / more["XDG_RUNTIME_DIR"])
    store = SecretStore(state, state.parent / "run", environment.get)
    assert (store.at_rest().kept, store.at_rest().by) == ("credentials", by)
    with pytest.raises(MeshError) as caught:
        store.settle(Secrets.generate().digest(), nothing_else)
    assert ("systemctl" in caught.value.hint, str(place) in caught.value.hint) == (
        by == "systemd",
        by != "systemd",
    )


def test_on_a_disk_the_run_folder_is_no_better_than_a_file(
    state: Path, secrets: Secrets, hand_over: HandOver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "in_memory", lambda path: False)
    assert hand_over(secrets).at_rest().kept == "files"


@pytest.mark.usefixtures("in_memory")
def test_a_plain_key_of_kubos_is_one_in_a_file(state: Path, secrets: Secrets, hand_over: HandOver) -> None:
    (state / "kubo").mkdir()
    (state / "kubo" / "swarm.key").write_text(secrets.swarm_key)
    assert hand_over(secrets).at_rest().kept == "files"


def test_encrypted_ones_count_while_their_files_are_there(
    state: Path, secrets: Secrets, hand_over: HandOver
) -> None:
    encrypt(state)
    store = hand_over(secrets, "encrypted.")
    assert store.load() == secrets
    store.erase()  # as `leave` does; the unit goes on having what it was handed
    assert list((state / "secrets").iterdir()) == []
    assert not store.in_memory()
    assert store.founding() != secrets
    joined = Secrets.generate()
    store.save(joined)
    assert store.load() == joined


def test_encrypted_ones_that_nobody_decrypts_are_said(state: Path) -> None:
    encrypt(state)
    with pytest.raises(MeshError) as caught:
        SecretStore(state, state.parent / "run", NO_ENVIRONMENT.get).load()
    assert caught.value.title == f"cannot use {state}/secrets/swarm.key.encrypted"
    assert caught.value.hint.startswith("sudo meshd encrypt-secrets")


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    ("key", "named", "counts"), [(HOST, "host", False), (TPM2, "tpm2", True), (BOTH, "host+tpm2", True)]
)
def test_only_a_key_in_a_tpm_counts_as_encrypted(
    state: Path, secrets: Secrets, hand_over: HandOver, key: bytes, named: str, counts: bool
) -> None:
    encrypt(state, key)
    said = hand_over(secrets, "encrypted.").at_rest()
    assert (said.kept, said.key, said.encrypted) == ("encrypted", named, counts)


@pytest.mark.parametrize("raw", [b"", b"rubbish", blob(EMPTY), b"\xff\xfe"])
def test_a_key_that_is_not_known_counts_for_nothing(raw: bytes) -> None:
    assert key_of(raw) == ""


@pytest.mark.usefixtures("in_memory")
def test_two_files_under_two_keys_count_for_nothing(
    state: Path, secrets: Secrets, hand_over: HandOver
) -> None:
    encrypt(state, TPM2)
    encrypted_file(state, NAMES[1]).write_bytes(blob(HOST))
    assert not hand_over(secrets, "encrypted.").at_rest().encrypted


def test_what_a_leave_that_was_cut_off_has_left_is_not_taken_for_what_is_handed_over(
    state: Path, secrets: Secrets, hand_over: HandOver
) -> None:
    Secrets.generate().save(state)
    encrypt(state)
    store = hand_over(secrets)
    store.save(store.founding())
    assert store.load() == secrets
    assert store.in_memory()
    assert list((state / "secrets").iterdir()) == []


def test_another_mesh_s_secrets_are_told_by_where_they_are(
    state: Path, secrets: Secrets, hand_over: HandOver
) -> None:
    handed = hand_over(secrets).another_mesh()
    assert handed.title.startswith("cannot use ")
    assert handed.title.endswith("/credentials/swarm.key")
    assert handed.hint.startswith("see who fills that folder")
    secrets.save(state)
    assert hand_over(secrets).another_mesh().title == f"cannot use {state}/secrets/swarm.key"
