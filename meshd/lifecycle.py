"""The lifecycle of one node: it begins, runs, and ends in order, whatever raises meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine

import structlog

from meshd import shutdown
from meshd.component import Loop, StopPhase
from meshd.node import Node
from meshd.periodic import Work
from meshd.shutdown import Shutdown, ShutdownSteps
from meshd.supervise import child

_STOP_S = 60.0  # for the orderly stop of the engines: kubo may take 25 s of it and the cluster 10
_STEP_S = 5.0  # for each other step
_KILLED_S = 10.0  # from SIGKILL on, in an orderly shutdown; the last resort has child.KILLED_S
_LOG = structlog.get_logger(part="daemon")

Tasks = list[asyncio.Task[None]]


async def run(node: Node, end: Shutdown, predecessor: Node | None) -> None:
    """Run a node until a stop is requested or it has left its mesh. Raises the first failure, once nothing runs.

    predecessor: the node that has left; it answers on the control socket until this one does.
    """
    steps, tasks = ShutdownSteps(end.kill_now), Tasks()
    try:
        await end.unless_stopping(_begin(node, predecessor))
        if not end.stop.is_set():
            tasks += _tasks(node)
            await _first(tasks, end.stop.wait(), node.leaving.left.wait())
            for task in tasks:
                if task.done():  # the reconciler gave up; the other tasks are never done
                    await task
    except Exception as exc:  # noqa: BLE001 - whatever it is, stop what runs, and raise it after that
        steps.failed("meshd", exc, "cannot go on")
    finally:
        left = node.leaving.left.is_set() and steps.failure is None
        if not left:
            end.start_deadline()
        await _end(node, steps, tasks, left=left)
    if steps.failure is not None:
        raise steps.failure


async def _begin(node: Node, predecessor: Node | None) -> None:
    """Start the components, and serve. Raises MeshError where it cannot."""
    for component in node.components:
        for start in component.start:
            await start()
    node.manager.ready()
    if predecessor is not None:
        await predecessor.retire(replaced=True)
    _LOG.info("serving", socket=str(node.config.control_socket), fingerprint=node.mesh.identity.fingerprint)


def _tasks(node: Node) -> Tasks:
    """Start the long-running tasks, the reconciler first. It alone may end by itself; TaskGuard restarts the others."""
    loops = [loop for component in node.components for loop in component.loops]
    reconciler = asyncio.create_task(node.reconciler.run(node.guard), name="reconciler")
    return [reconciler, *(asyncio.create_task(_guarded(node, loop), name=loop.name) for loop in loops)]


async def _guarded(node: Node, loop: Loop) -> None:
    work = _when_ready(node, loop.work) if loop.when_ready else loop.work
    if loop.period_s is None:
        await node.guard.keep_running(loop.name, work, meanwhile=loop.meanwhile)
    else:
        await node.guard.every(loop.name, loop.period_s, work, share=loop.share, meanwhile=loop.meanwhile)


def _when_ready(node: Node, work: Work) -> Work:
    async def guarded() -> None:
        if node.engine_room.services.is_ready() and not node.mesh.store.forgotten:
            await work()

    return guarded


async def _end(node: Node, steps: ShutdownSteps, tasks: Tasks, *, left: bool) -> None:
    """Shut down: no more requests, then the engines in order, then the rest. Each step runs, whatever failed before.

    left: the node has left its mesh; its control socket serves until the next node's does.
    """
    by = time.monotonic() + _STOP_S
    if not left:
        node.manager.stopping()
    await _stop(node, steps, StopPhase.WORK)
    if not left:
        await _stop(node, steps, StopPhase.REQUESTS)
    if tasks:
        await _stop_engines(node, steps, tasks[0], by)
        for task in tasks:
            task.cancel()
        await steps.run("what ran beside", asyncio.wait(tasks), _STEP_S)
    await _stop(node, steps, StopPhase.LISTENERS)
    await _stop(node, steps, StopPhase.CLIENTS)
    if steps.failure is None:
        _LOG.info("stopped")


async def _stop(node: Node, steps: ShutdownSteps, phase: StopPhase) -> None:
    """Run the stops of one phase, from the highest component to the lowest."""
    for component in reversed(node.components):
        for stop in component.stops:
            if stop.phase is phase:
                await steps.run(stop.what, stop.work(), _STEP_S)


async def _stop_engines(node: Node, steps: ShutdownSteps, reconciling: asyncio.Task[None], by: float) -> None:
    """Stop the engines in order; kill what still runs at `by` (monotonic seconds)."""
    node.reconciler.stop()
    if not reconciling.done():
        await steps.run("kubo and the cluster", reconciling, by - time.monotonic())
    if reconciling.done() and child.running():  # the reconciler gave up, maybe only now
        await steps.run("kubo and the cluster", node.reconciler.stop_by_hand(), by - time.monotonic())
    if child.running():
        node.reconciler.abandon()
        steps.failed("kubo and the cluster", shutdown.killed(await child.end_all(_KILLED_S)))


async def _first(tasks: Tasks, *waits: Coroutine[object, object, object]) -> None:
    """Return when one of them is done. Cancels the waits; the tasks go on."""
    waiting = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait([*tasks, *waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
