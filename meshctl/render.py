"""Rendering for a terminal: text without control characters, tables, sizes, times, one line of progress."""

from __future__ import annotations

import os
import sys
import time

from meshctl import documents
from meshctl.errors import MeshctlError, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, bidi and zero-width marks, line separators


def safe(text: object) -> str:
    """Untrusted text, with each character that a terminal would obey rather than show replaced by an escape."""
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    import unicodedata

    return "".join(_escaped(c) if unicodedata.category(c) in UNSEEN else c for c in shown)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python carries it
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def width(text: str) -> int:
    """Columns that the text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    import unicodedata

    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def table(header: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Columns as wide as their content. right: the right-aligned columns. No trailing spaces, no final newline."""
    cells = [list(header), *([safe(cell) for cell in row] for row in rows)]
    widths = [max(width(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        parts = []
        for i, cell in enumerate(row):
            gap = " " * (widths[i] - width(cell))
            parts.append(gap + cell if i in right else cell + gap)
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def size(count: float) -> str:
    """Bytes in decimal units: 17 B, 300.0 MB."""
    if count < 1000:
        return f"{int(count)} B"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} PB"


def when(seconds: float) -> str:
    """A time since 1970 as local date and minute."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return "?"


def span(seconds: float) -> str:
    """A span in its largest sensible unit: 40 s, 3 min, 5 h, 12 days."""
    seconds = max(0.0, seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def ago(seconds: float) -> str:
    """How long ago a time (seconds since 1970) was; "never" for 0."""
    if seconds <= 0:
        return "never"
    passed = time.time() - seconds
    return "now" if passed < 2 else f"{span(passed)} ago"


def count(number: int, one: str, many: str | None = None) -> str:
    """1 copy, 2 copies."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def names(items: Sequence[str], limit: int = 0) -> str:
    """a, b, c; counts the rest beyond `limit`, if any."""
    shown = [safe(item) for item in items]
    if limit and len(shown) > limit:
        return f"{', '.join(shown[:limit])} and {len(shown) - limit} more"
    return ", ".join(shown)


def say(line: str = "") -> None:
    """Print one line of the result on stdout."""
    print(line, flush=True)


def note(line: str) -> None:
    """Print one line beside the result on stderr."""
    print(line, file=sys.stderr, flush=True)


def document(value: Any) -> None:
    """Print a document of the daemon as one line of JSON. ASCII only, so that it cannot control a terminal."""
    print(documents.encode(value), flush=True)


def tell(failure: MeshctlError, as_json: bool) -> int:
    """Print a failure for a person, and with as_json for a program, as the last line; the exit code."""
    detail = f": {safe(failure.detail)}" if failure.detail else ""
    note(f"meshctl: {safe(failure.title)}{detail}")
    for i, line in enumerate(failure.hint.splitlines()):
        note(f"  try: {safe(line)}" if i == 0 else f"       {safe(line)}")
    if as_json:
        document(failure.document)
    return failure.exit_code


def confirm(question: str, yes: bool) -> bool:
    """Ask on the terminal. Raises MeshctlError (usage) where there is none, without --yes."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise usage("cannot ask", "standard input is not a terminal", "the same with --yes, if you are sure")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


class Line:
    """One line on stderr, rewritten in place; silent where stderr is not a terminal."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._drawn = False

    def draw(self, text: str) -> None:
        """Replace the line. Of one that is too long, show the end: the numbers there are what changes."""
        if not self._live:
            return
        most = terminal_columns()
        while text and width(text) >= most:
            text = text[1:]
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
        self._drawn = True

    def clear(self) -> None:
        """Clear the line, so that another may be written."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False


class Progress:
    """Progress in bytes, as one `Line`."""

    EVERY_S = 0.1

    def __init__(self, label: str, total: int | None) -> None:
        self._label = safe(label)
        self._total = total
        self._line = Line()
        self._began = time.monotonic()
        self._next = 0.0

    def update(self, done: int) -> None:
        """Show the bytes so far."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self.EVERY_S
        elapsed = now - self._began
        text = f"{self._label}  {size(done)}"
        if self._total:
            text += f" of {size(self._total)}  {min(100, 100 * done // self._total)} %"
        if elapsed > 0.5:
            text += f"  {size(done / elapsed)}/s"
        self._line.draw(text)

    def clear(self) -> None:
        """Clear the line, so that another may be written."""
        self._line.clear()
        self._next = 0.0


def terminal_columns() -> int:
    """Columns of the terminal on stderr; 80 where there is none, or its width is unknown."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
