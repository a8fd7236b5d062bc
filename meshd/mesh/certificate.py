"""A node's self-signed certificate: how to make it from the key, and the checks of a stranger's one.

It derives from the key alone, without randomness or clock, so that a lost certificate can be made again. It is valid
from 1970 to 9999, for boards without a clock. Its sha256 is the node's identity.
"""

from __future__ import annotations

import datetime
import functools
import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

_MOST_PEM = 4096  # bytes; ours have about 600
_FROM = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_UNTIL = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


def make(key: Ed25519PrivateKey) -> str:
    """The certificate of `key`, as PEM. The same key gives the same certificate."""
    public = key.public_key()
    name = _subject(public)
    usage = x509.KeyUsage(
        True, False, False, False, False, False, False, False, False
    )  # only digital signatures
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(int.from_bytes(hashlib.sha256(public.public_bytes_raw()).digest()[:16]) + 1)
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, None)
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def fingerprint_of(certificate: str | bytes) -> str:
    """sha256 of the certificate's DER, as hex. Takes PEM (text) or DER (bytes). Raises ValueError."""
    if isinstance(certificate, bytes):
        return hashlib.sha256(certificate).hexdigest()
    return hashlib.sha256(_load(certificate).public_bytes(serialization.Encoding.DER)).hexdigest()


def grouped(fingerprint: str) -> str:
    """A fingerprint in groups of four, for people to compare."""
    return " ".join(fingerprint[i : i + 4] for i in range(0, len(fingerprint), 4))


def public_key(certificate: str) -> Ed25519PublicKey:
    """The key inside a certificate in PEM. Raises ValueError."""
    key = _load(certificate).public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("its key is not Ed25519")
    return key


@functools.lru_cache(maxsize=512)
def check(certificate: str) -> str:
    """Check a certificate (PEM) that a member may have; its fingerprint. Raises ValueError that says what is wrong.

    It must be encoded as this module does it, signed by its own key, no CA, and named after its key: OpenSSL finds
    trust anchors by name, so a borrowed name would shadow another member's.
    """
    loaded = _load(certificate)
    key = public_key(certificate)
    if loaded.public_bytes(serialization.Encoding.PEM).decode() != certificate:
        raise ValueError("it is not one certificate in the usual PEM form")
    if loaded.subject != _subject(key) or loaded.issuer != loaded.subject:
        raise ValueError("its name does not follow from its key")
    try:
        loaded.verify_directly_issued_by(loaded)
        authority = loaded.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (InvalidSignature, TypeError):
        raise ValueError("it is not signed by its own key") from None
    except x509.ExtensionNotFound:
        raise ValueError("it lacks basic constraints") from None
    if authority:
        raise ValueError("it claims authority over other certificates")
    return fingerprint_of(certificate)


def verify(certificate: str, signature: bytes, message: bytes) -> bool:
    """Whether `signature` (64 bytes) over `message` is by the certificate's key. Raises ValueError."""
    try:
        public_key(certificate).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _subject(key: Ed25519PublicKey) -> x509.Name:
    digest = hashlib.sha256(key.public_bytes_raw()).hexdigest()
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"meshd {digest[:40]}")])


def _load(certificate: str) -> x509.Certificate:
    if len(certificate) > _MOST_PEM:
        raise ValueError("it is too long for a certificate")
    try:
        return x509.load_pem_x509_certificate(certificate.encode())
    except (ValueError, TypeError) as exc:
        raise ValueError("it is not a certificate in PEM form") from exc
