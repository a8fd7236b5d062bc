"""The guard of all that runs as long as the node does: it goes on, and what failed is a fault until it goes well again."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest
from structlog.testing import capture_logs

from meshd.errors import Code, MeshError
from meshd.model import Fault
from meshd.periodic import PATIENCE_S, WELL_AGAIN_S, TaskGuard
from tests.waiting import until

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/var/lib/meshd/seen.json")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Work:
    """Work that fails the first times, as it is told to."""

    def __init__(self, *failures: BaseException) -> None:
        self._failures = list(failures)
        self.done = asyncio.Event()

    async def __call__(self) -> None:
        if self._failures:
            raise self._failures.pop(0)
        self.done.set()


class Loop(Work):
    """The same as a loop: once it does not fail, it goes on."""

    async def __call__(self) -> None:
        await super().__call__()
        await asyncio.Event().wait()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guard(clock: Clock) -> TaskGuard:
    return TaskGuard(clock=clock)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshd.periodic.BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr("meshd.periodic.BACKOFF_MOST_S", 0.01)


async def ends(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


FAILURES = [
    FULL,
    MeshError(Code.NOT_READY, "cannot reach kubo"),
    TimeoutError(),
    KeyError("a mistake"),
    ExceptionGroup("of a task group", [KeyError("a mistake")]),
    asyncio.CancelledError(),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_work_that_fails_is_not_the_last_one(guard: TaskGuard, failure: BaseException) -> None:
    work = Work(failure, failure)
    running = asyncio.create_task(guard.every("sweep", 0.001, work))
    await asyncio.wait_for(work.done.wait(), 30)
    await ends(running)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_a_loop_that_fails_is_started_again(guard: TaskGuard, failure: BaseException) -> None:
    loop = Loop(failure, failure, failure)
    running = asyncio.create_task(guard.keep_running("watch", loop))
    await asyncio.wait_for(loop.done.wait(), 30)
    assert [f.part for f in guard.faults()] == ["watch"]
    await ends(running)


@pytest.mark.usefixtures("hurried")
async def test_a_loop_that_ends_is_one_that_fails(guard: TaskGuard) -> None:
    running = asyncio.create_task(guard.keep_running("watch", Work()))
    await until(guard.faults)
    assert guard.faults() == (Fault("watch", "RuntimeError: it has ended, which it never should"),)
    await ends(running)


async def test_between_the_starts_of_a_loop_that_fails_is_a_longer_and_longer_pause(
    guard: TaskGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            raise asyncio.CancelledError

    async def fail() -> None:
        raise KeyError

    monkeypatch.setattr("meshd.periodic.asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await guard.keep_running("watch", fail)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


async def test_cancelling_it_is_no_failure(guard: TaskGuard) -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    running = asyncio.create_task(guard.attempt("watch", wait))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert guard.faults() == ()


async def test_a_fault_is_forgotten_once_it_has_gone_well_for_a_while(guard: TaskGuard, clock: Clock) -> None:
    assert not await guard.attempt("sweep", Work(FULL))
    told = (Fault("sweep", "No space left on device: /var/lib/meshd/seen.json", io_error=True),)
    clock.now += 10 * WELL_AGAIN_S
    assert guard.faults() == told, "it was not done since"
    assert await guard.attempt("sweep", Work())
    clock.now += WELL_AGAIN_S - 1
    assert guard.faults() == told
    clock.now += 1
    assert guard.faults() == ()


async def test_what_fails_now_and_then_stays_a_fault(guard: TaskGuard, clock: Clock) -> None:
    for _ in range(5):
        await guard.attempt("sweep", Work(KeyError("a")))
        clock.now += WELL_AGAIN_S - 1
        await guard.attempt("sweep", Work())
        clock.now += WELL_AGAIN_S - 1
        assert [f.part for f in guard.faults()] == ["sweep"]


async def test_work_that_waits_for_an_engine_is_a_fault_only_after_a_while(
    guard: TaskGuard, clock: Clock
) -> None:
    away = MeshError(Code.NOT_READY, "cannot reach kubo", "it is down")
    await guard.attempt("sweep", Work(away))
    clock.now += PATIENCE_S - 1
    await guard.attempt("sweep", Work(away))
    assert guard.faults() == ()
    clock.now += 1
    assert guard.faults() == (Fault("sweep", "cannot reach kubo: it is down"),)


async def test_for_how_long_every_attempt_has_failed_is_known(guard: TaskGuard, clock: Clock) -> None:
    assert guard.failing_s("reconciler") == 0
    await guard.attempt("reconciler", Work(KeyError()))
    clock.now += 7
    await guard.attempt("reconciler", Work(KeyError()))
    assert guard.failing_s("reconciler") == 7
    await guard.attempt("reconciler", Work())
    assert guard.failing_s("reconciler") == 0


async def test_the_same_fault_is_logged_once_and_another_one_again(guard: TaskGuard, clock: Clock) -> None:
    with capture_logs() as logs:
        for failure in (KeyError("a"), KeyError("a"), KeyError("b")):
            await guard.attempt("sweep", Work(failure))
        await guard.attempt("sweep", Work())
        clock.now += WELL_AGAIN_S
        await guard.attempt("sweep", Work(KeyError("b")))
    assert [line["error"] for line in logs] == ["KeyError: 'a'", "KeyError: 'b'", "KeyError: 'b'"]
    assert all(line["exc_info"] for line in logs)
