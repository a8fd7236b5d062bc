"""Canonical encoding of what two nodes sign and hash. Pure."""

from __future__ import annotations

import json

from meshd.wire import Joiner


def framed(domain: bytes, *parts: str) -> bytes:
    """Length-prefixed encoding: no two sequences of parts give the same bytes. domain: its use, for separation."""
    return b"".join(len(part).to_bytes(8) + part for part in (domain, *(part.encode() for part in parts)))


def document(joiner: Joiner) -> str:
    """A joiner's document as JSON with one spelling. Leaves out defaults, so that a newer node can add a field."""
    return json.dumps(joiner.model_dump(exclude_defaults=True), sort_keys=True, separators=(",", ":"))
