"""Parsers of typed numbers and ids."""

from __future__ import annotations

import re

_NETWORK_ID = re.compile(r"[0-9a-fA-F]{16}")


def whole(text: str) -> int | None:
    """Parse a whole number in the digits 0 to 9; None for all else, such as -1, 1e3 or another script's digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def is_network_id(text: str) -> bool:
    """Whether it has the form of a ZeroTier network's id: 16 hex digits."""
    return _NETWORK_ID.fullmatch(text) is not None
