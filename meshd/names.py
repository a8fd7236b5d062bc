"""The rule for names of entries and of files in them. Pure. meshctl has a copy, and a test compares the two."""

from __future__ import annotations

import unicodedata

NAME_BYTES = 255
"""Bytes: the limit of file systems."""
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of invisible characters: controls, direction and zero-width marks, line separators."""


def has_unseen(name: str) -> bool:
    """Whether a name has an invisible character: names that look the same would differ, or control a terminal."""
    if name.isascii():
        return not name.isprintable()
    return any(unicodedata.category(character) in UNSEEN for character in name)
