"""`meshd`, as it is typed."""

from __future__ import annotations

import pytest

from meshd.__main__ import main


@pytest.mark.parametrize(
    ("typed", "why", "hint"),
    [
        ("", "a verb is missing", "meshd run --config FILE; or: meshd --help"),
        ("start", "argument verb: invalid choice: 'start'", "meshd --help"),
        ("run now", "unrecognized arguments: now", "meshd --help"),
        ("check --config", "argument --config: expected one argument", "meshd check --help"),
    ],
)
def test_a_mistake_in_the_command_is_told_as_every_other_one(
    typed: str, why: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed.split()) == 2
    title, cause, advice = capsys.readouterr().err.splitlines()
    assert title == "meshd: cannot understand the command"
    assert cause.startswith(f"  {why}")
    assert advice == f"  try: {hint}"
