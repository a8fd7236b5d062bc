"""Programs that misbehave on request, as real supervised processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from meshd.errors import Code, MeshError
from meshd.supervise.child import Launch

# Says that it is up by a file, which it takes away when it is told to end.
STEADY = """
up={up}
trap 'rm -f "$up"; exit 0' TERM
: > "$up"
echo running
while :; do read -r _ < {quiet}; done
"""
DEAF = """
trap '' TERM
: > {up}
while :; do read -r _ < {quiet}; done
"""
DIES = """
echo first words
echo last words >&2
exit 3
"""


@dataclass
class Script:
    """A shell script as supervise.Program: ready once it has made its `up` file, healthy while `answers`."""

    folder: Path
    text: str = STEADY
    name: str = "kubo"
    ready_timeout: float = 20.0
    stop_grace: float = 20.0
    answers: Callable[[], bool] = lambda: True
    starts: int = 0
    asked: int = 0
    refuses: MeshError | None = None
    argv: tuple[str, ...] = field(default=())

    @property
    def up(self) -> Path:
        return self.folder / "up"

    async def prepare(self) -> Launch:
        self.starts += 1
        if self.refuses is not None:
            raise self.refuses
        self.up.unlink(missing_ok=True)
        quiet = (
            self.folder / "quiet"
        )  # a pipe that never says anything: reading it is waiting without a child
        if not quiet.exists():
            os.mkfifo(quiet)
        text = self.text.replace("{up}", str(self.up)).replace("{quiet}", str(quiet))
        return Launch(self.argv or ("/bin/sh", "-c", text), {"PATH": "/usr/bin:/bin"}, self.folder)

    async def is_ready(self) -> bool:
        return self.up.exists()

    async def ask(self) -> None:
        self.asked += 1
        if not self.answers():
            raise MeshError(Code.NOT_READY, "cannot reach it")


def python(code: str) -> tuple[str, ...]:
    """The arguments that run some Python."""
    return (sys.executable, "-c", code)
