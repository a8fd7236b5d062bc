"""Mutual TLS among members: version 1.3 only, the members' own certificates as trust anchors, names ignored.

A stranger sends no certificate at all (OpenSSL ends the handshake on an unknown one); it proves its key by a signature
inside the request.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable

from meshd.mesh.identity import Identity


def server_context(identity: Identity, members: Iterable[str]) -> ssl.SSLContext:
    """The listener's context. members: the certificates (PEM) that clients may send. Reads the key's file."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0  # a resumed session would keep the identity of an old handshake
    trust(context, members)
    return context


def trust(context: ssl.SSLContext, members: Iterable[str]) -> None:
    """Add trust anchors (PEM) to a context, even while it listens: the next handshake uses them."""
    anchors = "".join(members)
    if anchors:
        context.load_verify_locations(cadata=anchors)


def client_context(identity: Identity, peer: str) -> ssl.SSLContext:
    """The context for calls to one member: accepts exactly the certificate `peer` (PEM), and sends our own."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, identity)
    context.check_hostname = False  # the certificate is pinned; addresses change
    context.verify_mode = ssl.CERT_REQUIRED
    trust(context, [peer])
    return context


def stranger_context() -> ssl.SSLContext:
    """The context for calls to a stranger: sends no certificate and checks none. The caller checks the fingerprint."""
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
