"""Which of the places that the secrets can be in is used, and what of them stays on the disk."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from meshd.errors import Code, MeshError
from meshd.mesh.secret_store import SecretStore, encrypted_file, key_of
from meshd.mesh.secrets import NAMES, Secrets

# The first bytes of what systemd-creds 252 made: with a key on the disk, and with swtpm's TPM.
HOST = bytes.fromhex("5a1c6a86df9d4096b1d5a65e0862f19a")
TPM2 = bytes.fromhex("0c7cc07b117645919c4b0bea08bc20fe")
BOTH = bytes.fromhex("93a894094874449090caf2fc93cab553")
NO_ENVIRONMENT: dict[str, str] = {}
EMPTY = bytes.fromhex("058469daf6f54324800549da0f8ea2fb")


def blob(key: bytes) -> bytes:
    return base64.b64encode(key + bytes(100))


@pytest.fixture
def secrets() -> Secrets:
    return Secrets.generate()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state" / "secrets").mkdir(parents=True)
    return tmp_path / "state"


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
        return SecretStore(state, {"CREDENTIALS_DIRECTORY": str(folder)}.get)

    return hand


def encrypt(state: Path, key: bytes = HOST) -> None:
    for name in NAMES:
        encrypted_file(state, name).write_bytes(blob(key))


def test_without_credentials_they_are_in_files(state: Path, secrets: Secrets) -> None:
    store = SecretStore(state, NO_ENVIRONMENT.get)
    store.save(secrets)
    assert Secrets.load(state) == store.load() == secrets
    assert not store.in_memory()
    assert store.swarm_key() == secrets.swarm_key
    assert store.at_rest().kept == "files"


def test_an_empty_credential_is_none(state: Path, secrets: Secrets, hand_over: HandOver) -> None:
    store = hand_over(None)
    store.save(secrets)
    store.settle(secrets.digest())
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
        another.settle(secrets.digest())
    assert caught.value.code is Code.BAD_STATE
    assert Secrets.load(state) == secrets
    hand_over(secrets).settle(secrets.digest())
    assert list((state / "secrets").iterdir()) == []


def test_a_removal_of_the_plain_files_that_was_cut_off_is_finished(
    state: Path, secrets: Secrets, hand_over: HandOver
) -> None:
    secrets.save(state)
    (state / "secrets" / "swarm.key").unlink()
    store = hand_over(secrets)
    store.settle(secrets.digest())
    assert store.load() == secrets
    assert list((state / "secrets").iterdir()) == []


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
        SecretStore(state, NO_ENVIRONMENT.get).load()
    assert caught.value.title == f"cannot use {state}/secrets/swarm.key.encrypted"
    assert caught.value.hint.startswith("sudo meshd encrypt-secrets")


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


def test_two_files_under_two_keys_count_for_nothing(
    state: Path, secrets: Secrets, hand_over: HandOver
) -> None:
    encrypt(state, TPM2)
    encrypted_file(state, NAMES[1]).write_bytes(blob(HOST))
    assert not hand_over(secrets, "encrypted.").at_rest().encrypted
