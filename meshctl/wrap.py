"""Wraps prose for a terminal: between words, with a hanging indent, to a readable width."""

from __future__ import annotations

import os
import sys

from meshctl.render import safe, say, width

WIDEST = 100  # columns; longer lines are hard to read on a wide screen


def columns() -> int:
    """Columns for prose on stdout; 0 where it is no terminal: programs want whole lines."""
    try:
        return min(os.get_terminal_size(sys.stdout.fileno()).columns or 80, WIDEST)
    except (OSError, ValueError):
        return 0


def lines(text: object, first: str, limit: int) -> list[str]:
    """Wrap `text` after the prefix `first`, to `limit` columns (0: no limit), with a hanging indent.

    A word that is wider than a line gets a line of its own: half a path or command is of no use.
    """
    shown, first = safe(text), safe(first)
    if not limit or width(first) + width(shown) <= limit:
        return [first + shown]
    indent = " " * width(first)
    found, line, empty = list[str](), first, True
    for word in shown.split(" "):
        if not empty and width(line) + 1 + width(word) > limit:
            found.append(line)
            line, empty = indent, True
        line, empty = line + ("" if empty else " ") + word, False
    return [*found, line]


def tell(text: object, first: str = "") -> None:
    """Print wrapped text on stdout."""
    for line in lines(text, first, columns()):
        say(line)
