"""The daemon of this machine: locks its folders, and runs a node, and the next one after a `leave`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import structlog

from meshd import files, lifecycle, memory
from meshd.config import Config
from meshd.node import Node
from meshd.shutdown import Shutdown, ShutdownSteps
from meshd.supervise import child, kernel, orphans
from meshd.supervise.cgroups import delegated
from meshd.systemd import ServiceManager

_RETIRE_S = 5.0  # for the control socket of a node that has ended
_LOG = structlog.get_logger(part="daemon")


async def run(
    config: Config,
    end: Shutdown,
    manager: ServiceManager | None = None,
    reread: Callable[[], Config | None] = lambda: None,
) -> None:
    """Run this machine's node until a stop is requested. Raises MeshError where it cannot start or go on.

    No engine runs any more when it returns or raises. manager: notified of readiness and state. reread: returns the
    current configuration, for a SIGHUP of the manager; None where it cannot be used.
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
        for orphan in await end.unless_stopping(asyncio.to_thread(orphans.kill, config.state)) or ():
            _LOG.warning("ended a leftover of a previous run", pid=orphan.pid, program=orphan.program)
        node: Node | None = None

        def reload() -> None:
            nonlocal config
            assert manager is not None  # noqa: S101 - only a manager sends SIGHUP
            with manager.reload():
                new = reread()
                if new is not None:
                    # For the node after a `leave`, too.
                    config = config.model_copy(update={"storage": new.storage})
                    if node is not None:
                        node.reload(new)

        if manager is not None and manager.present:
            end.on(signal.SIGHUP, reload)
        try:
            while not end.stop.is_set():
                operations = None if node is None else node.operations
                new = await end.unless_stopping(
                    asyncio.to_thread(Node, config, manager, own_groups, operations)
                )
                if new is None:
                    break
                predecessor, node = node, new
                node.reload(config)  # it may have changed while this one was built
                await lifecycle.run(node, end, predecessor)
        finally:  # while the folders are locked: no other daemon may use them until nothing runs on them
            if child.running():
                _LOG.error(
                    "killed what still ran", pids=child.running(), remain=await child.end_all(child.KILLED_S)
                )
            if node is not None:
                await ShutdownSteps(end.kill_now).run(
                    "the control socket", node.retire(replaced=False), _RETIRE_S
                )
