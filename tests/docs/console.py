"""The console blocks of a page, and a shell in which to type them."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

_FENCE = re.compile(r"^( *)```(\w*)\s*$")
# Commands come on one descriptor with a NUL after each, exit codes go to another; a command's own input is empty. `set -m`
# gives each background job a number, as at a terminal.
_LOOP = r"""
set -m
while IFS= read -r -d '' -u TAKEN command; do
    eval "$command" </dev/null TAKEN<&- GIVEN>&-
    printf '%d\n' "$?" >&GIVEN
done
"""


@dataclass
class Typed:
    """One command as a page shows it. shown: the lines that are printed, as the page has them."""

    text: str
    line: int
    shown: list[str] = field(default_factory=list)


class Result(NamedTuple):
    """What a command printed, both streams as a terminal mixes them, and its exit code."""

    code: int
    printed: str


def fenced(page: Path, language: str) -> list[tuple[int, list[str]]]:
    """The blocks of that language: the number of the line before each, and its lines without their indent."""
    blocks: list[tuple[int, list[str]]] = []
    inside: str | None = None
    indent = ""
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        fence = _FENCE.match(line)
        if fence is None:
            if inside == language:
                blocks[-1][1].append(line.removeprefix(indent))
        elif inside is None:
            indent, inside = fence[1], fence[2]
            if inside == language:
                blocks.append((number, []))
        else:
            inside = None
    assert inside is None, f"{page}: a fence is not closed"
    return blocks


def commands(page: Path) -> list[Typed]:
    """Every command of a page's console blocks: behind `$ `, and behind `> ` where it goes on."""
    found: list[Typed] = []
    for start, lines in fenced(page, "console"):
        current: Typed | None = None
        for number, line in enumerate(lines, start=start + 1):
            if line.startswith("$ "):
                current = Typed(line[2:], number)
                found.append(current)
            elif current is None:
                raise AssertionError(f"{page}:{number}: a console block begins with a command")
            elif (line == ">" or line.startswith("> ")) and not current.shown:
                current.text += "\n" + line[2:]
            else:
                current.shown.append(line)
    return found


_NODES = r"\b(attic|cellar|desk|laptop)\b"
_LETTERS = str.maketrans("0123456789", "abcdefghij")


def _mask(line: str) -> str:
    """A line without what varies: numbers, the order of nodes, which is first, the width of a table.

    The number of copies, and of how many, stays.
    """
    words = re.sub(rf"{_NODES}(, {_NODES})*", "NODE", line)
    words = re.sub(r"\bmeshd1\.\S+", "INVITE", re.sub(r"\b(?=\w*\d)[0-9a-f]{8}\b", "ID", words))
    words = re.sub(r"/\S*/meshd-tutorial", "HOME", re.sub(r"~/meshd-tutorial", "HOME", words))
    words = re.sub(r"\b\d+/\d+\b|\b\d+ (of \d+ )?copies\b", lambda found: found[0].translate(_LETTERS), words)
    words = re.sub(r"\d+(\.\d+)*", "0", words)
    words = re.sub(r"\b0 (s|min|h|d|days?|ms)\b|\bnow\b|\bjust now\b", "AGO", words)
    return " ".join(words.split())


def missing(typed: Typed, printed: str) -> list[str]:
    """Lines that the page shows and that were not printed in that order. `...` matches any number of lines."""
    left = iter(_mask(line) for line in printed.splitlines())
    return [line for line in typed.shown if line != "..." and _mask(line) not in left]


class Shell:
    """One bash for a whole page. `close` ends it and its descendants."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self._output = home / ".terminal"
        taken, self._commands = os.pipe()
        self._codes, given = os.pipe()
        # Inherited, not opened by name: the shell leads a session and would take it as its own terminal.
        self._keyboard, self._terminal = os.openpty()
        loop = _LOOP.replace("TAKEN", str(taken)).replace("GIVEN", str(given))
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                ["bash", "--norc", "--noprofile", "-c", loop],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=home,
                env=environment,
                pass_fds=(taken, given, self._terminal),
                start_new_session=True,
            )
        os.close(taken)
        os.close(given)
        self._seen = 0

    def type(self, text: str, seconds: float, *, asked: str = "", answer: str = "") -> Result:
        """Run a command to its end. With `asked` it runs on a terminal, and `answer` is typed after that question.

        Raises TimeoutError with what was printed so far.
        """
        if asked:
            text = f"{{ {text}\n}} <&{self._terminal}"
        os.write(self._commands, text.encode() + b"\0")
        if asked:
            self._await(asked, seconds, text)
            with self._output.open("ab") as output:  # a terminal echoes what is typed
                output.write(f"{answer}\n".encode())
            os.write(self._keyboard, f"{answer}\n".encode())
        if not select.select([self._codes], [], [], seconds)[0]:
            raise TimeoutError(f"after {seconds:g} s: {text}\n{self._printed()}")
        answer = os.read(self._codes, 16).decode()
        assert answer, f"the shell ended: {text}\n{self._printed()}"
        return Result(int(answer), self._printed())

    def _await(self, asked: str, seconds: float, text: str) -> None:
        deadline = time.monotonic() + seconds
        while asked.encode() not in self._output.read_bytes()[self._seen :]:
            if select.select([self._codes], [], [], 0.05)[0] or time.monotonic() > deadline:
                raise TimeoutError(f"not asked {asked!r}: {text}\n{self._printed()}")

    def _printed(self) -> str:
        with self._output.open("rb") as output:
            output.seek(self._seen)
            text = output.read()
        self._seen += len(text)
        return text.decode(errors="replace")

    def close(self) -> None:
        """End the shell, the daemons that it started, in order, and what is left of them by force."""
        started = psutil.Process(self._process.pid).children(recursive=True)
        for process in started:
            with contextlib.suppress(psutil.Error):
                if process.name() == "meshd":
                    process.send_signal(signal.SIGTERM)
        psutil.wait_procs([p for p in started if p.is_running()], timeout=30)
        for process in started:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(started, timeout=10)
        os.close(self._commands)
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:  # a loop that waits in vain
            self._process.kill()
            self._process.wait(10)
        for descriptor in (self._codes, self._keyboard, self._terminal):
            os.close(descriptor)
