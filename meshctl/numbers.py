"""Numbers as they are typed."""

from __future__ import annotations


def whole(text: str) -> int | None:
    """A whole number in the digits 0 to 9; None for anything else, such as -1, 1e3 or another script's digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
