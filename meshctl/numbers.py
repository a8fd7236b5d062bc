"""Parsers of typed numbers and ids."""

from __future__ import annotations

_HEX = frozenset("0123456789abcdefABCDEF")


def whole(text: str) -> int | None:
    """Parse a whole number in the digits 0 to 9; None for all else, such as -1, 1e3 or another script's digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def is_network_id(text: str) -> bool:
    """Whether it has the form of a ZeroTier network's id: 16 hex digits."""
    return len(text) == 16 and _HEX.issuperset(text)
