"""Canonical encoding of what two nodes sign and hash. Pure."""

from __future__ import annotations

import json

from meshd.wire import Joiner


def framed(domain: bytes, *parts: str) -> bytes:
    """Each part after its length, so that no two sets of parts give the same bytes; first what it is for."""
    return b"".join(len(part).to_bytes(8) + part for part in (domain, *(part.encode() for part in parts)))


def document(joiner: Joiner) -> str:
    """What a node says of itself. A member that has its default is left out, so that a newer node can add one."""
    return json.dumps(joiner.model_dump(exclude_defaults=True), sort_keys=True, separators=(",", ":"))
