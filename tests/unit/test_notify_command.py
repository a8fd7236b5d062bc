"""The command that [notify] names, run for real."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from meshd.health.notify_command import NotifyCommand
from meshd.model import Condition, Severity
from tests.supervise.control_groups import is_alive
from tests.waiting import until

DOWN = Condition(
    "service-down", Severity.ERROR, "kubo does not run", "exit 1", "meshctl logs kubo", "kubo", 7.0
)
Notify = Callable[..., contextlib.AbstractAsyncContextManager[NotifyCommand]]


@contextlib.asynccontextmanager
async def notifying(*command: str, longest_s: float = 30.0) -> AsyncIterator[NotifyCommand]:
    hook = NotifyCommand(command, lambda: {"node": "attic", "mesh": "archive"}, longest_s=longest_s)
    task = asyncio.create_task(hook.run())
    try:
        yield hook
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def script(folder: Path, text: str) -> str:
    made = folder / "tell"
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(0o755)
    return str(made)


async def test_the_command_gets_each_condition_that_comes_and_goes_in_their_order(tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with notifying(script(tmp_path, 'cat >> "$1"'), str(told)) as hook:
        hook.heard("raised", DOWN)
        hook.heard("cleared", DOWN)
        await until(lambda: told.exists() and told.read_text().count("\n") == 2)
    first, second = (json.loads(line) for line in told.read_text().splitlines())
    assert first.pop("time") > 1e9
    assert first == {
        "event": "condition-raised",
        "node": "attic",
        "mesh": "archive",
        "code": "service-down",
        "severity": "error",
        "subject": "kubo",
        "title": "kubo does not run",
        "cause": "exit 1",
        "hint": "meshctl logs kubo",
        "since": 7.0,
    }
    assert second["event"] == "condition-cleared"


async def test_a_command_that_reads_nothing_fails_or_is_not_there_is_logged_and_the_next_one_runs(
    tmp_path: Path,
) -> None:
    with capture_logs() as logs:
        async with notifying(script(tmp_path, "echo no mail today; exit 3")) as hook:
            hook.heard("raised", DOWN)
            hook.heard("cleared", DOWN)
            await until(lambda: len(logs) == 2)
        async with notifying(str(tmp_path / "none")) as hook:
            hook.heard("raised", DOWN)
            await until(lambda: len(logs) == 3)
    assert [(log["exit"], log["output"]) for log in logs[:2]] == [(3, "no mail today")] * 2
    assert logs[2]["error"] == "No such file or directory"


async def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    text = f"sleep 600 & echo $! > {pid}.new; mv {pid}.new {pid}; wait"
    with capture_logs() as logs:
        async with notifying(script(tmp_path, text), longest_s=2.0) as hook:
            hook.heard("raised", DOWN)
            await until(lambda: logs)
    assert logs[0]["event"] == "the command of [notify] did not end"
    await until(lambda: not is_alive(int(pid.read_text())))


async def test_without_a_command_nothing_is_kept() -> None:
    hook = NotifyCommand((), dict)
    hook.heard("raised", DOWN)
    assert hook._waiting.empty()


@pytest.mark.parametrize("more", [1, 50])
async def test_what_is_too_much_is_told_to_be_lost(more: int, tmp_path: Path) -> None:
    hook = NotifyCommand((script(tmp_path, "cat"),), dict)
    with capture_logs() as logs:
        for _ in range(100 + more):
            hook.heard("raised", DOWN)
    assert len(logs) == more
