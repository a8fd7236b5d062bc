"""The tutorial works: each command of it, typed in order into one shell, does what the page says it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.console import Shell, Typed, commands, missing
from tests.docs.pages import TUTORIAL
from tests.mesh.nodes import Subnet

COMMAND_S = 240.0  # `make setup` is the longest


@pytest.mark.mesh
@pytest.mark.timeout(420)
def test_the_tutorial_works(shell: Shell, home: Path, sources: Path, subnet: Subnet) -> None:
    page = commands(TUTORIAL)
    assert len(page) > 30
    for typed in page:
        text = typed.text.replace("127.0.0.", f"{subnet.prefix}.")
        if text.startswith("git clone"):
            text = text.replace("ADDRESS", str(sources))
        where = f"{TUTORIAL.name}:{typed.line}: {typed.text}"
        code, printed = shell.type(text, COMMAND_S)
        assert code == 0, f"{where}\n{printed}{_logs(home)}"
        assert not missing(typed, printed), (
            f"{where}\nnot printed: {missing(typed, printed)}\nprinted:\n{printed}"
        )
    assert not (home / "meshd-tutorial").exists(), "the tutorial clears up"


def _logs(home: Path) -> str:
    logs = {log.name: log.read_text().splitlines()[-10:] for log in sorted(home.glob("meshd-tutorial/*.log"))}
    return "".join(f"\n{name}: {line[:300]}" for name, lines in logs.items() for line in lines)


def test_what_is_not_printed_is_seen() -> None:
    typed = Typed("meshctl ls", 1, ["NAME  SIZE", "...", "a.txt  37 B"])
    assert not missing(typed, "NAME SIZE\nb.txt 1 B\na.txt  40 B\n")
    assert missing(typed, "NAME SIZE\n") == ["a.txt  37 B"]
    assert missing(typed, "a.txt 37 B\nNAME SIZE\n") == ["a.txt  37 B"]


def test_a_shell_keeps_what_was_typed_before(home: Path, shell: Shell) -> None:
    assert shell.type("cd / && here=$PWD", 10).code == 0
    assert shell.type('echo "$here"\nfalse', 10) == (1, "/\n")
    assert shell.type("cat", 10) == (0, "")
    assert shell.type("tail -f /dev/null &", 10).code == 0
    assert shell.type("kill %1; wait", 10).code in (0, 143)


def test_a_shell_that_waits_in_vain_is_ended(home: Path, environment: dict[str, str]) -> None:
    shell = Shell(home, environment)
    with pytest.raises(TimeoutError):
        shell.type("until false; do sleep 0.1; done", 0.3)
    shell.close()


def test_a_question_is_answered_at_a_terminal(shell: Shell) -> None:
    typed = '[ -t 0 ] && read -r -p "sure? " word && echo "said $word"'
    assert shell.type(typed, 10, asked="sure? ", answer="y") == (0, "sure? y\nsaid y\n")
