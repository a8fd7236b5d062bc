"""How one node begins, runs, and ends in order, whatever raises meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine

import structlog

from meshd import memory, shutdown
from meshd.node import Node
from meshd.shutdown import Shutdown, ShutdownSteps
from meshd.supervise import child

_ADDRESS_EVERY_S = 2.0
_HEALTH_EVERY_S = 2.0
_REDIAL_EVERY_S = 2.0
_REPLICATE_EVERY_S = 5.0
_REPLICATE_SHARE = 0.02  # a large catalogue is read less often
_STOP_S = 60.0  # for the orderly part of the end: kubo may take 25 s of it and the cluster 10
_STEP_S = 5.0  # for each of the other steps
_KILLED_S = 10.0  # from SIGKILL on, in the orderly end; the last resort has child.KILLED_S
_LOG = structlog.get_logger(part="daemon")

Tasks = list[asyncio.Task[None]]


async def run(node: Node, end: Shutdown, predecessor: Node | None) -> None:
    """Until the end is asked for, or the node has left its mesh. Raises what went wrong first, once nothing runs.

    predecessor: the node that has left; it answers on the control socket until this one does.
    """
    steps, tasks = ShutdownSteps(end.kill_now), Tasks()
    try:
        await end.unless_stopping(_begin(node, predecessor))
        if not end.stop.is_set():
            tasks += _tasks(node)
            await _first(tasks, end.stop.wait(), node.leaving.left.wait())
            for task in tasks:
                if task.done():  # turns that gave up; the others are never done
                    await task
    except Exception as exc:  # noqa: BLE001 - whatever it is, what runs is stopped, and it is raised after that
        steps.failed("meshd", exc, "cannot go on")
    finally:
        left = node.leaving.left.is_set() and steps.failure is None
        if not left:
            end.start_deadline()
        await _end(node, steps, tasks, left=left)
    if steps.failure is not None:
        raise steps.failure


async def _begin(node: Node, predecessor: Node | None) -> None:
    """Serve. Raises MeshError where it cannot."""
    node.turns.set_overlay(await node.overlay.look())
    await node.pins.gate.start()
    if node.metrics_port is not None:
        await node.metrics_port.start()
    await node.control.start()
    node.manager.ready()
    if predecessor is not None:
        await predecessor.retire(replaced=True)
    _LOG.info("serving", socket=str(node.config.control_socket), fingerprint=node.identity.fingerprint)


def _tasks(node: Node) -> Tasks:
    """All that runs as long as the node does, the turns first. They alone end by themselves: see Rounds."""
    rounds, pins = node.rounds, node.pins
    work = {
        "turns": node.turns.run(rounds),
        "watch": rounds.keep("watch", node.watch.run),
        "seeds": rounds.keep("seeds", node.seeds.run),
        "audit": rounds.keep("audit", node.audit.run),
        "notify": rounds.keep("notify", node.teller.run),
        "programs": rounds.keep("programs", lambda: node.programs.run(lambda: node.store.mesh is None)),
        "garbage": rounds.keep("garbage", pins.garbage.run),
        "memory": rounds.keep("memory", memory.give_back),
        "overlay": rounds.keep("overlay", lambda: node.overlay.run(node.turns.set_overlay)),
        "address": rounds.every("address", _ADDRESS_EVERY_S, node.membership.follow_address),
        "network": rounds.every("network", _HEALTH_EVERY_S, node.look_at_network),
        "redial": rounds.every("redial", _REDIAL_EVERY_S, _when_ready(node, node.redialer.look)),
        "health": rounds.every("health", _HEALTH_EVERY_S, node.update_board),
        "replicate": rounds.every(
            "replicate", _REPLICATE_EVERY_S, _when_ready(node, pins.replicator.turn), share=_REPLICATE_SHARE
        ),
        "sweep": rounds.every("sweep", pins.sweeper.interval_s, _when_ready(node, pins.sweeper.sweep)),
    }
    return [asyncio.create_task(coroutine, name=name) for name, coroutine in work.items()]


def _when_ready(node: Node, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def guarded() -> None:
        if node.turns.ready and not node.store.forgotten:
            await work()

    return guarded


async def _end(node: Node, steps: ShutdownSteps, tasks: Tasks, *, left: bool) -> None:
    """No more requests, then the services in their order, then the rest. Each step is taken, whatever became of the one
    before. left: the node has left its mesh; its control socket serves until the next node's does."""
    by = time.monotonic() + _STOP_S
    if not left:
        node.manager.stopping()
    await steps.run("open uploads", node.pins.uploads.abort_all(), _STEP_S)
    await steps.run("what is under way for entries", node.pins.stop(), _STEP_S)
    if not left:
        await steps.run("the control socket", node.control.stop(), _STEP_S)
    if tasks:
        await _stop_engines(node, steps, tasks[0], by)
        for task in tasks:
            task.cancel()
        await steps.run("what ran beside", asyncio.wait(tasks), _STEP_S)
    if node.metrics_port is not None:
        await steps.run("the metrics port", node.metrics_port.stop(), _STEP_S)
    await steps.run("the peer API", node.peer_server.stop(), _STEP_S)
    await steps.run("the gate", node.pins.gate.stop(), _STEP_S)
    for client in (node.peers, node.kubo, node.cluster, node.overlay.zerotier):
        await steps.run("a client", client.close(), _STEP_S)
    if steps.failure is None:
        _LOG.info("stopped")


async def _stop_engines(node: Node, steps: ShutdownSteps, turning: asyncio.Task[None], by: float) -> None:
    """In their order; what still runs at that monotonic second is killed."""
    node.turns.stop()
    if not turning.done():
        await steps.run("kubo and the cluster", turning, by - time.monotonic())
    if turning.done() and child.running():  # turns that gave up, or do so now
        await steps.run("kubo and the cluster", node.turns.stop_by_hand(), by - time.monotonic())
    if child.running():
        node.turns.abandon()
        steps.failed("kubo and the cluster", shutdown.killed(await child.end_all(_KILLED_S)))


async def _first(tasks: Tasks, *waits: Coroutine[object, object, object]) -> None:
    """Return when one of them is done. The waits end with it, the tasks go on."""
    waiting = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait([*tasks, *waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
