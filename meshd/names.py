"""What a name may be, of an entry and of a file in it. Pure. meshctl has a copy of the rule, and a test compares the two."""

from __future__ import annotations

import unicodedata

NAME_BYTES = 255
"""What file systems take."""
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of characters that do not show: controls, direction and zero-width marks, line separators."""


def has_unseen(name: str) -> bool:
    """Whether a character of it does not show. Two names that look the same would be two entries, or drive a terminal."""
    if name.isascii():
        return not name.isprintable()
    return any(unicodedata.category(character) in UNSEEN for character in name)
