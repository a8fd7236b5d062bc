"""A reader of one page: types its commands in order, and compares the output with the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.docs.console import Shell, Typed, commands, missing
from tests.docs.pages import blocks
from tests.mesh.nodes import Node

_COMMAND_S = 90.0


def toml(page: Path, number: int = 0) -> str:
    """A configuration that the page shows."""
    return page.read_text().split("```toml\n")[1:][number].split("```")[0]


def indented(page: Path) -> list[Typed]:
    """The commands of a page's indented blocks, where no `$` stands before them."""
    return [
        Typed(line, start + number)
        for start, language, lines in blocks(page)
        if language == "indented" and not lines[0].startswith("$ ")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


class Reader:
    """A shell and a page. instead: text of the page -> its replacement here, such as a folder."""

    def __init__(
        self,
        page: Path,
        shell: Shell,
        instead: Mapping[str, str] | None = None,
        lines: Sequence[Typed] | None = None,
    ) -> None:
        self.page = page
        self.shell = shell
        self.instead = dict(instead or {})
        self._left = list(commands(page) if lines is None else lines)

    def sit_down_at(self, node: Node) -> None:
        """Type on that machine from now on."""
        self.besides(f"export MESHD_SOCKET={node.socket}")

    def besides(self, text: str) -> str:
        """Type a command that is not on the page, and that must succeed; its output."""
        code, printed = self.shell.type(text, _COMMAND_S)
        assert code == 0, f"{text}\n{printed}"
        return printed

    def one(
        self,
        beginning: str,
        *,
        code: int = 0,
        asked: str = "",
        answer: str = "",
        background: bool = False,
        unlike: str = "",
    ) -> str:
        """Type the page's next command, which begins so; its output, which must have all that the page shows.

        unlike: skip each shown line that contains this, as it is another one here.
        """
        assert self._left, f"{self.page.name} ends before: {beginning}"
        typed = self._left.pop(0)
        where = f"{self.page.name}:{typed.line}: {typed.text}"
        assert typed.text.startswith(beginning), f"{where}\nexpected: {beginning}"
        text = self._here(typed.text)
        if background:
            text = f"{text.partition('  #')[0].rstrip()} 2>log &"
        ended, printed = self.shell.type(text, _COMMAND_S, asked=asked, answer=answer)
        assert ended == code, f"{where}\nexit code {ended}, expected {code}\n{printed}"
        shown = [self._here(line) for line in typed.shown if not unlike or unlike not in line]
        lacking = missing(Typed(text, typed.line, shown), printed)
        assert not lacking, f"{where}\nnot printed: {lacking}\nprinted:\n{printed}"
        return printed

    def until(self, beginning: str) -> None:
        """Type all commands before the one that begins so."""
        while self._left and not self._left[0].text.startswith(beginning):
            self.one("")

    def elsewhere(self, other: Path, beginning: str) -> None:
        """Skip the page's next command, as it is on another page, too, where a test types it."""
        typed = self._left.pop(0)
        assert typed.text.startswith(beginning), f"{self.page.name}:{typed.line}: {typed.text}"
        there = {command.text for command in commands(other)}
        assert typed.text in there, f"{self.page.name}:{typed.line}: not in {other.name}: {typed.text}"

    def rest(self) -> None:
        """Type all remaining commands."""
        while self._left:
            self.one("")

    def _here(self, text: str) -> str:
        for there, here in self.instead.items():
            text = text.replace(there, here)
        return text
