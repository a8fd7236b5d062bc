"""Mutual TLS among members: 1.3 only, the members' own certificates are the trust anchors, names mean nothing.

A stranger shows no certificate at all (OpenSSL ends the handshake on one it does not know); it proves its key by a
signature inside the request.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable

from meshd.mesh.identity import Identity


def server_context(identity: Identity, members: Iterable[str]) -> ssl.SSLContext:
    """For the listener. members: certificates in PEM whose holders may show themselves. Reads the key's file."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0  # a resumed session would keep the identity of a handshake of long ago
    trust(context, members)
    return context


def trust(context: ssl.SSLContext, members: Iterable[str]) -> None:
    """Add trust anchors (PEM) to a context, also while it listens: the next handshake sees them."""
    anchors = "".join(members)
    if anchors:
        context.load_verify_locations(cadata=anchors)


def client_context(identity: Identity, peer: str) -> ssl.SSLContext:
    """For calls to one member: only the holder of exactly the certificate `peer` (PEM) passes. Shows our own."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, identity)
    context.check_hostname = False  # the certificate is pinned; addresses change
    context.verify_mode = ssl.CERT_REQUIRED
    trust(context, [peer])
    return context


def stranger_context() -> ssl.SSLContext:
    """For calls to a node whose certificate is not known: shows none and checks none. The caller checks the fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context(protocol: ssl._SSLMethod, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    return context
