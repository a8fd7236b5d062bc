"""How the components of a node run and end: which work waits until it serves, and in which order all is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from meshd import lifecycle
from meshd.component import Component, Loop, Stop, StopPhase
from meshd.periodic import TaskGuard
from meshd.shutdown import ShutdownSteps
from meshd.systemd import Notifier, ServiceManager
from tests.waiting import until


def node(*components: Component) -> Any:
    """Of these components, as lifecycle knows one; it serves."""
    return SimpleNamespace(
        components=components,
        guard=TaskGuard(),
        manager=ServiceManager(Notifier({})),
        engine_room=SimpleNamespace(services=SimpleNamespace(is_ready=lambda: True)),
        mesh=SimpleNamespace(store=SimpleNamespace(forgotten=False)),
    )


# -- running -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ready", "forgotten"), [(False, False), (True, True)])
async def test_work_that_needs_a_node_that_serves_waits_for_one(ready: bool, forgotten: bool) -> None:
    done = {"always": 0, "when ready": 0}

    def counted(name: str) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            done[name] += 1

        return work

    loops = [Loop(name, counted(name), "m", period_s=0.001, when_ready=name == "when ready") for name in done]
    made = node(Component(name="room", loops=tuple(loops)))
    serves = ready
    made.engine_room.services.is_ready = lambda: serves
    made.mesh.store.forgotten = forgotten
    running = [asyncio.create_task(lifecycle._guarded(made, loop)) for loop in loops]
    try:
        await until(lambda: done["always"] > 5)
        assert done["when ready"] == 0
        serves, made.mesh.store.forgotten = True, False
        await until(lambda: done["when ready"])
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def test_what_fails_is_told_with_what_is_not_done_meanwhile() -> None:
    async def fail() -> None:
        raise KeyError("a mistake")

    made = node()
    for period_s in (0.001, None):
        name = f"every {period_s}"
        running = asyncio.create_task(
            lifecycle._guarded(made, Loop(name, fail, f"nothing of {name}", period_s))
        )
        await until(lambda name=name: name in {f.part for f in made.guard.faults()})  # type: ignore[misc]
        running.cancel()
        await asyncio.wait([running])
    assert {f.part: f.meanwhile for f in made.guard.faults()} == {
        "every 0.001": "nothing of every 0.001",
        "every None": "nothing of every None",
    }


# -- the end -------------------------------------------------------------------------------------------------------


def room(name: str, stopped: list[str], breaks: str = "") -> Component:
    """One that stops something in each phase."""

    def stop(what: str) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            stopped.append(what)
            if what == breaks:
                raise KeyError("a mistake at the end")

        return work

    each = [(phase, f"{name} {phase.name}") for phase in reversed(StopPhase)]
    return Component(name=name, stops=tuple(Stop(what, phase, stop(what)) for phase, what in each))


ORDER = [f"{name} {phase.name}" for phase in StopPhase for name in ("high", "low")]


async def test_all_is_stopped_phase_by_phase_and_within_one_the_highest_room_first() -> None:
    stopped: list[str] = []
    made = node(room("low", stopped), room("high", stopped))
    steps = ShutdownSteps(asyncio.Event())
    await lifecycle._end(made, steps, [], left=False)
    assert stopped == ORDER
    assert stopped[0] == "high WORK"
    assert stopped[-1] == "low CLIENTS"
    assert steps.failure is None


async def test_after_a_leave_the_control_socket_serves_until_the_next_node_s_does() -> None:
    stopped: list[str] = []
    made = node(room("low", stopped), room("high", stopped))
    await lifecycle._end(made, ShutdownSteps(asyncio.Event()), [], left=True)
    assert stopped == [what for what in ORDER if "REQUESTS" not in what]


@pytest.mark.parametrize("breaks", ORDER)
async def test_a_step_of_the_end_that_raises_keeps_no_other_one_from_being_taken(breaks: str) -> None:
    stopped: list[str] = []
    made = node(room("low", stopped, breaks), room("high", stopped, breaks))
    steps = ShutdownSteps(asyncio.Event())
    await lifecycle._end(made, steps, [], left=False)
    assert stopped == ORDER
    assert isinstance(steps.failure, KeyError)
