"""A reader of one page: types what it says, in its order, and compares what is printed with what is shown."""

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
    """Sits at a shell with a page. instead: what stands on the page, and what it is here, such as a folder."""

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
        """Something that the page does not say, and that works; what it printed."""
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
        """Type the page's next command, which begins so; what it printed, all of what is shown among it.

        unlike: a shown line that holds this is another one here.
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
        """Type everything before the command that begins so."""
        while self._left and not self._left[0].text.startswith(beginning):
            self.one("")

    def elsewhere(self, other: Path, beginning: str) -> None:
        """The page's next command is one of another page as well, which a test types there."""
        typed = self._left.pop(0)
        assert typed.text.startswith(beginning), f"{self.page.name}:{typed.line}: {typed.text}"
        there = {command.text for command in commands(other)}
        assert typed.text in there, f"{self.page.name}:{typed.line}: not in {other.name}: {typed.text}"

    def rest(self) -> None:
        """Type everything that is left."""
        while self._left:
            self.one("")

    def _here(self, text: str) -> str:
        for there, here in self.instead.items():
            text = text.replace(there, here)
        return text
