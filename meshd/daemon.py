"""The daemon of this machine: sees that it is the only one, and runs a node, and the next one after a `leave`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import structlog

from meshd import files, memory
from meshd.config import Config
from meshd.node import Node
from meshd.service_manager import ServiceManager
from meshd.supervise import kernel, leftovers
from meshd.supervise.groups import delegated

_LOG = structlog.get_logger(part="daemon")


async def run(
    config: Config,
    stop: asyncio.Event,
    manager: ServiceManager | None = None,
    reread: Callable[[], Config | None] = lambda: None,
) -> None:
    """Run this machine's node until `stop` is set, and tell `manager`. Raises MeshError where it cannot start.

    reread: the configuration as it is now, for a SIGHUP of the manager; None where it cannot be used.
    """
    kernel.check()
    memory.use_one_arena()
    files.check_disk(config.state, config.paths.disk)
    files.prepare_folders(config.state, config.paths.run.absolute(), config.private_sockets)
    run_folder = config.paths.run.absolute()
    with (
        files.only_daemon(config.state),
        files.only_daemon(run_folder, "run"),
        delegated() as own_groups,
    ):
        own = (config.state, config.state / "secrets", config.state / "kubo", config.state / "cluster")
        for unfinished in files.sweep_unfinished(*own, config.private_sockets):
            _LOG.info("removed what a write that was cut off had left", file=str(unfinished))
        for leftover in await asyncio.to_thread(leftovers.kill, config.state):
            _LOG.warning("ended a leftover of a previous run", pid=leftover.pid, program=leftover.program)
        node: Node | None = None

        def reload() -> None:
            assert manager is not None  # noqa: S101 - only a manager asks for it
            with manager.reload():
                new = reread()
                if new is not None and node is not None:
                    node.reload(new)

        if manager is not None and manager.present:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        while not stop.is_set():
            predecessor, node = node, await asyncio.to_thread(Node, config, manager, own_groups)
            await node.run(stop, predecessor)
        if node is not None:
            await node.retire(replaced=False)


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT ask for an orderly stop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
