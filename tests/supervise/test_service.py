"""A service from its start to its end, whatever the program does."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from meshd.errors import Code, MeshError
from meshd.model import Phase
from meshd.supervise import service as supervise
from meshd.supervise.service import Service, backoff
from tests.supervise.programs import DEAF, DIES, Script, python
from tests.waiting import until


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


class Supervised(Service):
    """A service that remembers every phase it was in."""

    def __init__(self, program: Script) -> None:
        self.changed = asyncio.Event()
        self.seen: list[Phase] = []
        super().__init__(program, self._note)
        self.script = program

    def _note(self) -> None:
        if not self.seen or self.seen[-1] is not self.state.phase:
            self.seen.append(self.state.phase)
        self.changed.set()

    async def becomes(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    def now(self) -> float:
        return self._clock()


@pytest.fixture
async def service(script: Script) -> AsyncIterator[Supervised]:
    made = Supervised(script)
    yield made
    await made.stop("the test is over", grace=0)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Health is asked for often, and patience is short."""
    monkeypatch.setattr(supervise, "ASK_EVERY", 0.02)
    monkeypatch.setattr(supervise, "ASK_TIMEOUT", 0.05)


def alive(pid: int | None) -> bool:
    return pid is not None and psutil.pid_exists(pid)


# -- start ---------------------------------------------------------------------------------------------------------


async def test_a_service_that_was_not_started_is_stopped(service: Supervised) -> None:
    assert (service.state.phase, service.state.pid) == (Phase.STOPPED, None)
    async with asyncio.timeout(30):
        await service.wait_stopped()


async def test_it_is_ready_when_the_program_says_so(service: Supervised) -> None:
    await service.start("settings-1")
    state = service.state
    assert service.seen == [Phase.STARTING, Phase.READY]
    assert (state.settings, state.healthy, state.restarts, state.last_exit) == ("settings-1", True, 0, "")
    assert alive(state.pid)


async def test_a_second_start_of_what_runs_does_nothing(service: Supervised) -> None:
    await service.start("s")
    pid = service.state.pid
    await service.start("other")
    assert (service.state.pid, service.state.settings, service.script.starts) == (pid, "s", 1)


async def test_its_lines_are_kept_and_told(service: Supervised) -> None:
    heard: list[str] = []
    service.line_listeners.append(lambda at, line: heard.append(line))
    await service.start("s")
    await until(lambda: heard == ["running"])
    assert [line for _, line in service.lines] == ["running"]


async def test_one_that_dies_at_its_start_is_told_with_its_last_words(service: Supervised) -> None:
    service.script.text = DIES
    await service.start("s")
    assert service.state.phase is Phase.BACKOFF
    assert service.state.pid is None
    assert re.search(r"ended by itself: exit 3; .*first words \| last words", service.state.last_exit)


async def test_one_that_dies_without_a_word_is_told_too(service: Supervised) -> None:
    service.script.text = "exit 3"
    await service.start("s")
    assert service.state.last_exit.endswith("exit 3; its last lines: (none)")


async def test_one_that_does_not_get_ready_is_killed(service: Supervised) -> None:
    service.script.text = "echo thinking; while :; do read -r _ < {quiet}; done"
    service.script.ready_timeout = 2.0  # a busy machine must have started a shell by then
    await service.start("s")
    assert service.state.phase is Phase.BACKOFF
    assert "was not ready after 2 s; its last lines: thinking" in service.state.last_exit


async def test_one_that_cannot_be_prepared_is_told_with_its_cause(service: Supervised) -> None:
    service.script.refuses = MeshError(Code.BUSY, "cannot use port 4001", "nginx listens there", "stop nginx")
    await service.start("s")
    assert service.state.phase is Phase.BACKOFF
    assert service.state.last_exit == "cannot use port 4001: nginx listens there"
    assert service.state.advice == "stop nginx"


async def test_a_program_that_is_not_there_is_told(service: Supervised) -> None:
    service.script.argv = ("/nowhere/ipfs",)
    await service.start("s")
    assert service.state.phase is Phase.BACKOFF
    assert "cannot start /nowhere/ipfs" in service.state.last_exit


async def test_a_start_that_is_cut_short_leaves_no_process(service: Supervised) -> None:
    service.script.text = "while :; do read -r _ < {quiet}; done"
    task = asyncio.create_task(service.start("s"))
    await service.becomes(lambda: service.state.pid is not None)
    pid = service.state.pid
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert (service.state.phase, service.state.pid) == (Phase.STOPPED, None)
    assert not alive(pid)


def children() -> set[psutil.Process]:
    """Of this test run; other tests may have some that live on."""
    return set(psutil.Process().children(recursive=True))


async def test_a_start_that_is_cut_short_before_there_is_a_process_leaves_none(service: Supervised) -> None:
    before = children()
    task = asyncio.create_task(service.start("s"))
    await service.becomes(lambda: service.state.phase is Phase.STARTING)
    task.cancel()
    await asyncio.wait([task])
    assert (service.state.phase, service.state.pid) == (Phase.STOPPED, None)
    assert not children() - before


# -- back-off ------------------------------------------------------------------------------------------------------


def test_the_back_off_doubles_to_half_a_minute() -> None:
    assert [backoff(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff(10_000) == 30


async def test_each_failure_waits_longer(service: Supervised) -> None:
    service.script.text = DIES
    waits = []
    for _ in range(3):
        await service.start("s")
        waits.append(service.state.retry_at - service.now())
    assert service.state.restarts == 3
    for wait, meant in zip(waits, (0.5, 1, 2), strict=True):
        assert meant - 0.25 < wait <= meant


async def test_after_a_while_of_health_the_back_off_begins_anew(
    service: Supervised, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "HEALTHY_AGAIN", 0.1)
    good, service.script.text = service.script.text, DIES
    for _ in range(3):
        await service.start("s")
    service.script.text = good
    await service.start("s")
    began = service.now()
    await until(lambda: service.now() - began > 0.2 and service.script.asked > 5)
    assert service.state.pid is not None
    os.kill(service.state.pid, signal.SIGKILL)
    await service.becomes(lambda: service.state.phase is Phase.BACKOFF)
    assert service.state.retry_at - service.now() <= 0.5


async def test_a_start_alone_does_not_begin_the_back_off_anew(service: Supervised) -> None:
    good, service.script.text = service.script.text, DIES
    for _ in range(3):
        await service.start("s")
    service.script.text = good
    await service.start("s")
    assert service.state.pid is not None
    os.kill(service.state.pid, signal.SIGKILL)
    await service.becomes(lambda: service.state.phase is Phase.BACKOFF)
    assert service.state.retry_at - service.now() > 2


async def test_after_a_restart_that_works_its_last_end_can_still_be_read(service: Supervised) -> None:
    good, service.script.text = service.script.text, DIES
    await service.start("s")
    service.script.text = good
    await service.start("s")
    assert (service.state.phase, service.state.restarts) == (Phase.READY, 1)
    assert "exit 3" in service.state.last_exit
    await service.stop("its settings have changed")
    await service.start("t")
    assert service.state.last_exit == ""


# -- stop ----------------------------------------------------------------------------------------------------------


async def test_it_is_asked_to_stop_and_cleans_up(service: Supervised) -> None:
    await service.start("s")
    pid = service.state.pid
    await service.stop("test")
    assert service.seen[-2:] == [Phase.STOPPING, Phase.STOPPED]
    assert not service.script.up.exists()
    assert not alive(pid)
    async with asyncio.timeout(30):
        await service.wait_stopped()


async def test_one_that_does_not_listen_is_killed(service: Supervised) -> None:
    service.script.text = DEAF
    service.script.stop_grace = 0.2
    await service.start("s")
    pid = service.state.pid
    await service.stop("test")
    assert service.state.phase is Phase.STOPPED
    assert not alive(pid)


async def test_where_there_is_no_time_it_is_killed_at_once(service: Supervised) -> None:
    await service.start("s")
    await service.stop("test", grace=0)
    assert service.script.up.exists(), "it had no time to clean up"
    assert service.state.phase is Phase.STOPPED


async def test_stopping_what_is_in_back_off_ends_the_back_off(service: Supervised) -> None:
    service.script.text = DIES
    await service.start("s")
    await service.stop("test")
    assert service.state.phase is Phase.STOPPED


async def test_it_can_be_started_again(service: Supervised) -> None:
    await service.start("s")
    first = service.state.pid
    await service.stop("test")
    await service.start("s2")
    assert service.state.phase is Phase.READY
    assert service.state.pid != first
    assert service.state.settings == "s2"


async def test_a_stop_of_what_died_meanwhile_is_a_stop(service: Supervised) -> None:
    await service.start("s")
    assert service.state.pid is not None
    os.kill(service.state.pid, signal.SIGKILL)
    await service.stop("test")
    assert service.state.phase is Phase.STOPPED
    await until(lambda: service.state.phase is Phase.STOPPED)
    assert service.state.restarts == 0


# -- health --------------------------------------------------------------------------------------------------------


async def test_one_that_dies_is_seen_at_once_and_waits(service: Supervised) -> None:
    await service.start("s")
    assert service.state.pid is not None
    os.kill(service.state.pid, signal.SIGKILL)
    await service.becomes(lambda: service.state.phase is Phase.BACKOFF)
    assert "signal SIGKILL" in service.state.last_exit
    assert service.state.restarts == 1
    assert service.state.pid is None


@pytest.mark.usefixtures("hurried")
async def test_one_that_does_not_answer_is_unhealthy_after_its_misses(service: Supervised) -> None:
    service.script.answers = lambda: service.script.asked < 3
    await service.start("s")
    await service.becomes(lambda: not service.state.healthy)
    assert service.script.asked >= 2 + supervise.ASKS_MISSED
    assert service.state.phase is Phase.READY, "whether to kill it is not for the supervisor to say"
    assert service.state.unhealthy_since >= service.state.since


@pytest.mark.usefixtures("hurried")
async def test_one_that_misses_once_is_healthy(service: Supervised) -> None:
    service.script.answers = lambda: service.script.asked % 3 != 0
    await service.start("s")
    await until(lambda: service.script.asked > 12)
    assert service.state.healthy


@pytest.mark.usefixtures("hurried")
async def test_one_that_answers_again_is_healthy_again(service: Supervised) -> None:
    service.script.answers = lambda: service.script.asked > 6
    await service.start("s")
    await service.becomes(lambda: not service.state.healthy)
    await service.becomes(lambda: service.state.healthy)
    assert service.state.phase is Phase.READY


@pytest.mark.usefixtures("hurried")
async def test_one_that_is_frozen_is_unhealthy_and_can_be_failed(service: Supervised) -> None:
    await service.start("s")
    pid = service.state.pid
    assert pid is not None
    service.script.answers = lambda: psutil.Process(pid).status() != psutil.STATUS_STOPPED
    os.kill(pid, signal.SIGSTOP)
    await service.becomes(lambda: not service.state.healthy)
    await service.fail("it is frozen")
    assert not alive(pid)
    assert service.state.phase is Phase.BACKOFF
    assert "it is frozen" in service.state.last_exit
    assert service.state.healthy, "of what does not run nothing is said"


async def test_one_whose_answer_takes_for_ever_is_unhealthy(
    service: Supervised, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(service.script, "ask", never)
    await service.start("s")
    await service.becomes(lambda: not service.state.healthy)


# -- leaks ---------------------------------------------------------------------------------------------------------


async def test_a_leak_is_remembered_until_the_next_start(service: Supervised) -> None:
    await service.start("s")
    service.report_leak("UDP 0.0.0.0:1")
    assert service.state.leak == "UDP 0.0.0.0:1"
    await service.fail("it leaks")
    assert service.state.phase is Phase.BACKOFF
    assert service.state.leak == "UDP 0.0.0.0:1"
    await service.start("s")
    assert service.state.leak == ""


async def test_one_that_leaks_while_it_starts_waits_before_its_next_try(service: Supervised) -> None:
    """The start is cut short first, as by the reconciler; the failure still counts."""
    service.script.text = "while :; do read -r _ < {quiet}; done"
    task = asyncio.create_task(service.start("s"))
    await service.becomes(lambda: service.state.pid is not None)
    service.report_leak("UDP 0.0.0.0:1")
    task.cancel()
    await asyncio.wait([task])
    await service.fail("it had a socket where none may be")
    assert service.state.phase is Phase.BACKOFF
    assert service.state.retry_at > service.now()
    assert service.state.restarts == 1


async def test_failing_what_does_not_run_does_nothing(service: Supervised) -> None:
    service.script.text = DIES
    await service.start("s")
    before = service.state
    await service.fail("late")
    assert service.state == before


# -- at the same time ----------------------------------------------------------------------------------------------


async def test_a_stop_waits_for_a_start_that_is_not_cut_short(service: Supervised) -> None:
    before = children()
    await asyncio.gather(service.start("s"), service.stop("test"))
    assert service.state.phase is Phase.STOPPED
    assert not children() - before


async def test_the_death_of_one_that_is_being_failed_counts_once(service: Supervised) -> None:
    await service.start("s")
    assert service.state.pid is not None
    os.kill(service.state.pid, signal.SIGKILL)
    await asyncio.gather(service.fail("one"), service.fail("two"))
    assert service.state.restarts == 1
    assert service.state.phase is Phase.BACKOFF


async def test_a_flood_of_output_does_not_keep_it_from_being_ready_and_stopped(service: Supervised) -> None:
    service.script.argv = python(
        f"import os, signal, sys; open({str(service.script.up)!r}, 'w').close()\n"
        "while True: os.write(1, b'a line\\n' * 100)"
    )
    await service.start("s")
    assert service.state.phase is Phase.READY
    await until(lambda: len(service.lines) == 500)
    await service.stop("test")
    assert service.seen[-1] is Phase.STOPPED
    assert len(service.lines) == 500


# -- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurried")
async def test_one_that_cannot_be_watched_is_ended_and_told(
    service: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would run on with nobody to see it freeze, or end."""

    async def watch(_: object) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(service, "_watch_child", watch)
    await service.start("s")
    await service.becomes(lambda: service.state.phase is Phase.BACKOFF)
    assert service.state.last_exit == "cannot watch kubo: meshd made a mistake: KeyError: 'a mistake'"
    assert service.state.pid is None
