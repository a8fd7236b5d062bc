"""How the process ends: each step is taken, in its time, and the first thing that went wrong is known and logged at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from meshd.errors import MeshError
from meshd.shutdown import Shutdown, ShutdownSteps
from tests.waiting import until


@pytest.fixture
def kill_now() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def steps(kill_now: asyncio.Event) -> ShutdownSteps:
    return ShutdownSteps(kill_now)


async def well() -> None:
    """Nothing is wrong."""


async def fail(text: str = "a mistake") -> None:
    raise KeyError(text)


async def for_ever() -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if _over.is_set():
                raise


_over = asyncio.Event()


async def hang() -> None:
    await asyncio.Event().wait()


async def test_a_step_that_is_done_is_no_failure(steps: ShutdownSteps) -> None:
    assert await steps.run("the gate", well(), 5)
    assert steps.failure is None


async def test_the_first_failure_is_the_one_that_counts_and_each_is_logged(steps: ShutdownSteps) -> None:
    with capture_logs() as logs:
        assert not await steps.run("the gate", fail("first"), 5)
        assert not await steps.run("the peer API", fail("second"), 5)
        assert await steps.run("a client", well(), 5)
    assert repr(steps.failure) == "KeyError('first')"
    assert {line["event"] for line in logs} == {"a step of the shutdown failed"}, "it goes on"
    assert [(line["failed"], line["error"]) for line in logs] == [
        ("the gate", "KeyError: 'first'"),
        ("the peer API", "KeyError: 'second'"),
    ]


async def test_a_step_that_takes_too_long_is_left(steps: ShutdownSteps) -> None:
    assert not await steps.run("the gate", hang(), 0.01)
    assert isinstance(steps.failure, MeshError)
    assert str(steps.failure) == "cannot end in order: the gate: it was not done within 0 s"


async def test_a_step_that_hears_no_cancelling_is_left_too(steps: ShutdownSteps) -> None:
    task = asyncio.ensure_future(for_ever())
    assert not await steps.run("the gate", task, 0.01)
    assert not task.done()
    _over.set()
    task.cancel()
    await asyncio.wait([task])


async def test_a_second_signal_cuts_a_step_short(steps: ShutdownSteps, kill_now: asyncio.Event) -> None:
    taking = asyncio.ensure_future(steps.run("the gate", hang(), 3600))
    await asyncio.sleep(0)
    kill_now.set()
    assert not await asyncio.wait_for(taking, 20)
    assert str(steps.failure) == "cannot end in order: the gate: a second signal came"
    assert await steps.run("a client", well(), 5), "what needs no waiting is done all the same"


# -- signals -------------------------------------------------------------------------------------------------------


@pytest.fixture
def end() -> Iterator[Shutdown]:
    with Shutdown(list) as made:
        yield made


async def test_one_signal_asks_for_the_end_and_a_second_one_for_haste(end: Shutdown) -> None:
    end.bind(asyncio.get_running_loop())
    os.kill(os.getpid(), signal.SIGTERM)
    await until(end.stop.is_set)
    assert not end.kill_now.is_set()
    os.kill(os.getpid(), signal.SIGINT)
    await until(end.kill_now.is_set)


async def test_what_was_asked_before_there_was_a_loop_is_not_lost(end: Shutdown) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: end._asked)
    end.bind(asyncio.get_running_loop())
    await until(end.stop.is_set)


async def test_another_signal_is_what_it_was_made(end: Shutdown) -> None:
    heard = asyncio.Event()
    end.bind(asyncio.get_running_loop())
    end.on(signal.SIGHUP, heard.set)
    os.kill(os.getpid(), signal.SIGHUP)
    await until(heard.is_set)
    assert not end.stop.is_set()


def test_after_it_the_signals_are_what_they_were() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Shutdown(list):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_what_is_under_way_is_not_waited_for_once_the_end_is_asked_for(
    end: Shutdown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.shutdown._GIVE_WAY_S", 0.01)
    end.bind(asyncio.get_running_loop())
    assert await end.unless_stopping(asyncio.sleep(0, "done")) == "done"
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(end.unless_stopping(asyncio.sleep(3600, "done")), 20) is None
