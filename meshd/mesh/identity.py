"""This node's identity: an Ed25519 key and the certificate made from it, in `node.key` and `node.crt`."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshd import files
from meshd.errors import Code, MeshError
from meshd.mesh import certificate
from meshd.mesh.certificate import fingerprint_of, grouped, verify
from meshd.mesh.state_files import OF_A_MESH

__all__ = ["Identity", "discard", "fingerprint_of", "grouped", "verify"]

_KEY = "node.key"
_CERTIFICATE = "node.crt"


class Identity:
    """certificate: PEM. fingerprint: sha256 hex of its DER. key_file, certificate_file: for TLS. The key is private."""

    def __init__(self, key: Ed25519PrivateKey, pem: str, state: Path) -> None:
        self._key = key
        self.certificate = pem
        self.fingerprint = fingerprint_of(pem)
        self.key_file = state / _KEY
        self.certificate_file = state / _CERTIFICATE

    def __repr__(self) -> str:
        return f"Identity({self.fingerprint})"

    def sign(self, message: bytes) -> bytes:
        """Sign with Ed25519: 64 bytes."""
        return self._key.sign(message)

    @classmethod
    def load_or_create(cls, state: Path) -> Identity:
        """Load the identity in the folder `state`; make a new one only where there is neither an old one nor a mesh.

        A lost or damaged identity is never replaced, as the mesh knows this node by it: raises MeshError BAD_STATE
        that names the file. Raises OSError where the folder cannot be read or written. Blocks (fsync).
        """
        key_file, certificate_file = state / _KEY, state / _CERTIFICATE
        has_mesh = any(os.path.lexists(state / name) for name in OF_A_MESH)
        if not key_file.exists():
            if has_mesh or certificate_file.exists():
                raise _unusable(
                    key_file, "the file is missing, and a new key would be a stranger to the mesh"
                )
            _write_key(key_file, Ed25519PrivateKey.generate())
        key = _read_key(key_file)
        if not certificate_file.exists():
            if has_mesh:
                raise _unusable(certificate_file, "the file is missing")
            files.write_durably(
                certificate_file, certificate.make(key)
            )  # also where a first start was interrupted here
        _close_to_others(key_file, certificate_file)
        return cls(key, _read_certificate(certificate_file, key), state)


def discard(state: Path) -> None:
    """Remove the identity of a node that has left its mesh, which has forgotten it for good. Blocks.

    Call it after mesh.json and the secrets are gone. Raises OSError.
    """
    for name in (_CERTIFICATE, _KEY):  # interrupted in between, the next start restores the same identity
        (state / name).unlink(missing_ok=True)
        files.sync_directory(state)


def _write_key(path: Path, key: Ed25519PrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files.private_directory(path.parent)
    files.write_durably(path, pem)


def _read_key(path: Path) -> Ed25519PrivateKey:
    raw = path.read_bytes()
    try:
        key = serialization.load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unusable(path, "the file is damaged" if raw else "the file is empty") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(path, "the file holds a key of another kind")
    return key


def _read_certificate(path: Path, key: Ed25519PrivateKey) -> str:
    raw = path.read_bytes()
    try:
        pem = raw.decode("ascii")
        certificate.check(pem)
        found = certificate.public_key(pem)
    except ValueError as exc:  # also what is not ASCII
        cause = f"the file is damaged ({exc})" if raw else "the file is empty"
        raise _unusable(path, cause) from None
    if found != key.public_key():
        raise _unusable(path, f"the file belongs to another key than {path.with_name(_KEY)}")
    return pem


def _close_to_others(*paths: Path) -> None:
    for path in paths:
        if path.stat().st_mode & 0o077 and os.geteuid() == path.stat().st_uid:
            path.chmod(0o600)


def _unusable(path: Path, cause: str) -> MeshError:
    return MeshError(
        Code.BAD_STATE,
        f"cannot use {path}",
        cause,
        f"restore {_KEY} and {_CERTIFICATE} together from a backup; or move {path.parent} away and join as a new node:"
        " on another member type meshctl forget NODE, then meshctl invite; here meshctl join",
    )
