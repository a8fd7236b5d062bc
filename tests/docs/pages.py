"""The pages to check, and parsers of their blocks, commands and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
ARCHITECTURE = DOCS / "explanation" / "architecture.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(r"^( *)```(\w*)\s*$")
_PROGRAM = re.compile(
    r"(?:^|[;&|(]\s*|\b(?:until|while|if|do|then|sudo)\s+|(?:^|\s)\w+=\S+\s+)(?:[\w.~/-]*/)?(meshctl|meshd) "
)
_ENDS = re.compile(r"\s(?:#|;|&&|&|\|\|?|<|>{1,2}|2>{1,2})(?:\s|$|/)|\s{3,}|[);]\s*(?:do\b|done\b|$)|…")


class Line(NamedTuple):
    """A command line that a page shows. prose: between backticks, where a verb may be alone."""

    page: Path
    number: int
    text: str
    prose: bool = False

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.number}: {self.text}"


def blocks(page: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Fenced blocks and blocks indented by four: the number of the line before, the language, the lines."""
    inside: list[str] | None = None
    language, start, before = "", 0, ""
    for number, line in enumerate([*page.read_text().splitlines(), ""], start=1):
        fence = _FENCE.match(line)
        if fence is not None:
            if inside is None:
                inside, language, start = [], fence[2], number
            else:
                yield start, language, inside
                inside = None
        elif inside is not None and language != "indented":
            inside.append(line)
        elif line.startswith("    ") and (inside is not None or not before.strip()):
            if inside is None:
                inside, language, start = [], "indented", number - 1
            inside.append(line[4:])
        elif inside is not None:
            if line.strip():
                yield start, "indented", inside
                inside = None
            else:
                inside.append("")
        before = line
    if inside is not None:
        assert language == "indented", f"{page}:{start}: the fence is not closed"
        yield start, language, inside


def commands_shown(page: Path) -> Iterator[Line]:
    """Every `meshctl ...` and `meshd ...` in command blocks and between backticks, without shell syntax."""
    for start, language, lines in blocks(page):
        if language in ("console", "indented"):
            for number, line in enumerate(lines, start=start + 1):
                if language == "indented" or line.startswith("$ "):
                    yield from _commands_in(page, number, line.removeprefix("$ "))
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        inside ^= _FENCE.match(line) is not None
        if not inside and not line.startswith("    "):
            for code in re.findall(r"`([^`]+)`", line):
                if code.startswith(("meshctl ", "meshd ")):
                    yield from (found._replace(prose=True) for found in _commands_in(page, number, code))


def _commands_in(page: Path, number: int, line: str) -> Iterator[Line]:
    for match in _PROGRAM.finditer(line):
        text = line[match.start(1) :]
        yield Line(page, number, _ENDS.split(text, maxsplit=1)[0].strip())


def slug(heading: str) -> str:
    """The anchor of a heading on the web."""
    text = re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", ""))
    return text.replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """The anchors of a page: targets of `page#...`."""
    inside, found = False, set()
    for line in page.read_text().splitlines():
        inside ^= _FENCE.match(line) is not None
        if not inside and re.match(r"#{1,6} ", line):
            found.add(slug(line.lstrip("#")))
    return found


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Links of a page to others of this repository, with their lines."""
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        inside ^= _FENCE.match(line) is not None
        if not inside:
            for target in re.findall(r"\]\(([^)\s]+)\)", line):
                if "://" not in target and not target.startswith("mailto:"):
                    yield number, target
