"""Requests to join on a ZeroTier network, as the daemon reports them."""

from __future__ import annotations

import unicodedata
from typing import Any

from tests.meshctl.conftest import Result
from tests.meshctl.fake_meshd import Document

NETWORK, NODE = "8056c2e21c000001", "a1b2c3d4e5"
CODE = "0844 3547 3343"
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj\r\n\t"
STEP = {"event": "step", "message": f"authorizing {NODE} on the network {NETWORK}"}


def request(**more: Any) -> Document:
    return {
        "id": "3fa91c",
        "stage": "mesh",
        "node": NODE,
        "name": "barn",
        "address": "10.144.0.2",
        "fingerprint": "SHA256:barn",
        "code": CODE,
        "since": 1_700_000_000.0,
        "until": 1_700_003_600.0,
    } | more


def on_network(**more: Any) -> Document:
    return (
        request(id=NODE, stage="network", name="", address="", fingerprint="", code="", since=0, until=0)
        | more
    )


def harmless(result: Result) -> None:
    for text in (result.out, result.err):
        assert not {c for c in text if unicodedata.category(c) in {"Cc", "Cf"}} - {"\n"}, ascii(text)
