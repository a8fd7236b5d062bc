"""The key and certificate of a node: made once, never replaced."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import pytest

from meshd import files
from meshd.errors import Code, MeshError
from meshd.mesh import certificate
from meshd.mesh.identity import Identity, discard, fingerprint_of, grouped, verify


def _der(pem: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem)


def test_is_made_once_and_found_again(tmp_path: Path) -> None:
    first = Identity.load_or_create(tmp_path)
    again = Identity.load_or_create(tmp_path)
    assert again.fingerprint == first.fingerprint == hashlib.sha256(_der(first.certificate)).hexdigest()
    assert fingerprint_of(_der(first.certificate)) == fingerprint_of(first.certificate) == first.fingerprint
    for name in ("node.key", "node.crt"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_valid_from_1970_to_9999(tmp_path: Path) -> None:
    from cryptography import x509

    loaded = x509.load_pem_x509_certificate(Identity.load_or_create(tmp_path).certificate.encode())
    assert loaded.not_valid_before_utc.year == 1970
    assert loaded.not_valid_after_utc.year == 9999


def test_signs_and_verifies(tmp_path: Path) -> None:
    mine = Identity.load_or_create(tmp_path / "a")
    other = Identity.load_or_create(tmp_path / "b")
    signature = mine.sign(b"words")
    assert verify(mine.certificate, signature, b"words")
    assert not verify(mine.certificate, signature, b"other words")
    assert not verify(other.certificate, signature, b"words")


def test_the_key_does_not_show(tmp_path: Path) -> None:
    mine = Identity.load_or_create(tmp_path)
    assert repr(mine) == str(mine) == f"Identity({mine.fingerprint})"


@pytest.mark.parametrize("name", ["node.key", "node.crt"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "foreign"])
def test_a_damaged_identity_is_never_replaced(tmp_path: Path, name: str, damage: str) -> None:
    mine = Identity.load_or_create(tmp_path)
    (tmp_path / "mesh.json").write_text("{}")
    path = tmp_path / name
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        Identity.load_or_create(tmp_path / "other")
        path.write_bytes((tmp_path / "other" / name).read_bytes())
    else:
        path.write_bytes(b"" if damage == "empty" else b"\xff not a key")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    with pytest.raises(MeshError) as caught:
        Identity.load_or_create(tmp_path)
    assert caught.value.code is Code.BAD_STATE
    named = tmp_path / "node.crt" if damage == "foreign" else path
    assert str(named) in caught.value.title
    assert caught.value.hint
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert mine.fingerprint not in {"", None}


@pytest.mark.parametrize(
    "rest",
    [
        "mesh.json",
        "secrets/swarm.key",
        "secrets/cluster.secret",
        "secrets/swarm.key.encrypted",
        "kubo/swarm.key",
        "cluster/identity.json",
        "node.crt",
    ],
)
def test_no_new_identity_over_an_old_mesh(tmp_path: Path, rest: str) -> None:
    (tmp_path / rest).parent.mkdir(exist_ok=True)
    (tmp_path / rest).write_text("{}")
    with pytest.raises(MeshError) as caught:
        Identity.load_or_create(tmp_path)
    assert caught.value.code is Code.BAD_STATE
    assert not (tmp_path / "node.key").exists()


def test_a_link_that_leads_nowhere_says_that_there_was_a_mesh_too(tmp_path: Path) -> None:
    """As kubo's swarm.key does, where the secrets are in a unit's memory and the unit does not have them."""
    (tmp_path / "kubo").mkdir()
    (tmp_path / "kubo" / "swarm.key").symlink_to("/nowhere/swarm.key")
    with pytest.raises(MeshError):
        Identity.load_or_create(tmp_path)
    assert not (tmp_path / "node.key").exists()


def test_the_key_is_private_from_its_first_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    written = files.write_durably

    def looks(path: Path, data: bytes | str, **options: int) -> None:
        written(path, data, **options)
        modes.append(path.stat().st_mode & 0o777)

    monkeypatch.setattr(files, "write_durably", looks)
    Identity.load_or_create(tmp_path)
    assert modes == [0o600, 0o600]


def test_a_first_start_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    mine = Identity.load_or_create(tmp_path)
    (tmp_path / "node.crt").unlink()
    assert Identity.load_or_create(tmp_path).fingerprint == mine.fingerprint


def test_discard_makes_room_for_a_new_one(tmp_path: Path) -> None:
    mine = Identity.load_or_create(tmp_path)
    discard(tmp_path)
    assert Identity.load_or_create(tmp_path).fingerprint != mine.fingerprint


def test_the_files_are_closed_to_others(tmp_path: Path) -> None:
    Identity.load_or_create(tmp_path)
    (tmp_path / "node.key").chmod(0o644)
    Identity.load_or_create(tmp_path)
    assert (tmp_path / "node.key").stat().st_mode & 0o777 == 0o600


def test_groups_of_four() -> None:
    assert grouped("0123456789abcdef") == "0123 4567 89ab cdef"


def test_a_certificate_with_a_borrowed_name_is_refused(tmp_path: Path) -> None:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    victim = x509.load_pem_x509_certificate(Identity.load_or_create(tmp_path).certificate.encode())
    key = Ed25519PrivateKey.generate()
    borrowed = (
        x509.CertificateBuilder()
        .subject_name(victim.subject)
        .issuer_name(victim.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(9999, 1, 1, tzinfo=datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, None)
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    with pytest.raises(ValueError, match="name does not follow"):
        certificate.check(borrowed)
    whole = certificate.make(key)
    assert certificate.check(whole)
    for wrong in ("", "x", whole + whole, whole.replace("\n", "\r\n"), " " + whole, whole * 10):
        with pytest.raises(ValueError, match=r"certificate|PEM"):
            certificate.check(wrong)
