"""Fault injection: `python -m tests.faults.faulty_daemon CONFIG FAULT` is `meshd run` with one fault.

The engines are shell scripts, and no systemd is needed, so each fault costs seconds. All else is the real daemon.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from meshd import __main__, files, lifecycle, shutdown
from meshd.cluster.service import ClusterProgram
from meshd.conditions import Check, Facts
from meshd.config import Config, load
from meshd.health import audit
from meshd.health.checks import peers
from meshd.kubo.service import KuboProgram
from meshd.mesh.heartbeat import Heartbeats
from meshd.mesh.identity import Identity
from meshd.mesh.secrets import Secrets
from meshd.mesh.store import MeshStore
from meshd.model import Condition
from meshd.periodic import TaskGuard
from meshd.pins.storage import Storage
from meshd.pins.uploads import Uploads
from meshd.reconciler import loop as reconciler_loop
from meshd.reconciler.loop import Reconciler
from meshd.supervise.child import Launch
from meshd.supervise.service import Service
from meshd.wire import Joiner
from tests.faults.call_tracer import CallTracer

SERVES = "trap 'exit 0' TERM; : > {up}; while :; do read -r _ < {quiet}; done"
DEAF = "trap '' TERM; : > {up}; while :; do read -r _ < {quiet}; done"


# -- a node in a mesh, and its engines -----------------------------------------------------------------------------


async def found_a_mesh(config: Config) -> None:
    """What `meshctl init` leaves in the state folder."""
    identity = Identity.load_or_create(config.state)
    secrets = Secrets.generate()
    secrets.save(config.state)
    ids = {"kubo": "kuboattic", "cluster": "clusterattic"}
    for name, document in (
        ("kubo/config", {"Identity": {"PeerID": ids["kubo"]}}),
        ("cluster/identity.json", {"id": ids["cluster"]}),
    ):
        path = config.state / name
        files.private_directory(path.parent)
        files.write_json(path, document)
    own = Joiner(
        name=config.node.name,
        certificate=identity.certificate,
        address=config.overlay.address,
        peer_port=config.ports.peer,
        swarm_port=config.ports.swarm,
        cluster_port=config.ports.cluster,
        kubo_id=ids["kubo"],
        cluster_id=ids["cluster"],
    )
    await MeshStore(config.state, identity.fingerprint).create("archive", own, secrets.digest())


def engines_are_scripts(script: str) -> None:
    """Replace both engines by a script. They are ready once they handle SIGTERM, and always report to be healthy."""

    def up(program: KuboProgram | ClusterProgram) -> Path:
        return program._owner / f"up-{program.name}"

    async def prepare(self: KuboProgram | ClusterProgram) -> Launch:
        quiet = self._owner / f"quiet-{self.name}"
        if not quiet.exists():
            os.mkfifo(quiet)
        up(self).unlink(missing_ok=True)
        text = script.replace("{quiet}", str(quiet)).replace("{up}", str(up(self)))
        return Launch(("/bin/sh", "-c", text), {"PATH": "/usr/bin:/bin"}, self._owner)

    async def is_ready(self: KuboProgram | ClusterProgram) -> bool:
        return up(self).exists()

    async def ask(_: object) -> None:
        """It is well."""

    for program in (KuboProgram, ClusterProgram):
        for name, new in (("prepare", prepare), ("is_ready", is_ready), ("ask", ask)):
            put(program, name, new)
        program.stop_grace = 2.0


# -- faults --------------------------------------------------------------------------------------------------------


def put(owner: object, name: str, new: object) -> None:
    """Replace an attribute for the rest of the process."""
    setattr(owner, name, new)


def none() -> None:
    """All is well."""


def traced() -> None:
    """No fault: trace which room calls which."""
    CallTracer(Path(sys.argv[1]).parent / "calls.json").begin()


def a_check() -> None:
    def mistaken(_: Facts) -> Iterator[Condition]:
        raise KeyError("a mistake in a check")

    peers.CHECKS = tuple(Check("clocks", mistaken) if c.name == "clocks" else c for c in peers.CHECKS)


def a_watcher() -> None:
    async def run(_: Heartbeats) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/var/lib/meshd/seen.json")

    put(Heartbeats, "run", run)


def a_look() -> None:
    def others_may_read(_: Path) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/var/lib/meshd/node.key")

    put(audit, "_others_may_read", others_may_read)


def the_disk() -> None:
    """From the second call on, the disk's free space cannot be read."""
    room, asked = Storage.room, iter([True, True])

    def broken(self: Storage) -> object:
        if next(asked, False):
            return room(self)
        self._folder = self._folder.parent / "nowhere"
        return room(self)

    put(Storage, "room", broken)


def every_pass() -> None:
    """Every pass raises, once both engines run."""
    snapshot = Reconciler.snapshot

    def broken(self: Reconciler) -> object:
        if self._deps.engine_room.services.is_ready():
            raise KeyError("a mistake in a pass")
        return snapshot(self)

    put(Reconciler, "snapshot", broken)


def one_pass() -> None:
    """A single pass raises."""
    snapshot, left = Reconciler.snapshot, [1]

    def broken(self: Reconciler) -> object:
        if self._deps.engine_room.services.is_ready() and left:
            left.pop()
            raise KeyError("a mistake in a pass")
        return snapshot(self)

    put(Reconciler, "snapshot", broken)


def a_stop_that_hangs() -> None:
    """The stop of kubo hangs."""
    stop = Service.stop

    async def hang(self: Service, why: str, *, grace: float | None = None) -> None:
        if self.state.name == "kubo" and self.state.pid is not None:
            await asyncio.Event().wait()
        await stop(self, why, grace=grace)

    put(Service, "stop", hang)


def a_step_that_raises() -> None:
    """A step of the shutdown before the stop of the engines raises."""

    async def abort_all(_: Uploads) -> None:
        raise KeyError("a mistake at the end")

    put(Uploads, "abort_all", abort_all)


def a_task_that_does_not_end() -> None:
    """A task ignores its cancellation, as one does that waits for a process in uninterruptible sleep."""
    run = Reconciler.run
    kept: list[asyncio.Task[None]] = []

    async def for_ever() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

    async def broken(self: Reconciler, guard: TaskGuard) -> None:
        kept.append(asyncio.create_task(for_ever()))
        await run(self, guard)

    put(Reconciler, "run", broken)


def a_loop_that_is_held_up() -> None:
    """A call blocks the event loop, as a disk does that does not answer, once both engines run."""
    snapshot = Reconciler.snapshot

    def broken(self: Reconciler) -> object:
        if self._deps.engine_room.services.is_ready():
            say("held up")
            threading.Event().wait()
        return snapshot(self)

    put(Reconciler, "snapshot", broken)


def a_kubo_that_never_gets_ready() -> None:
    async def is_ready(_: object) -> bool:
        return False

    put(KuboProgram, "is_ready", is_ready)


def a_start_that_hangs() -> None:
    """The start hangs before the control socket serves."""

    async def start(_: object) -> NoReturn:
        say("held up")
        await asyncio.Event().wait()
        raise AssertionError

    from meshd.pins.gate import Gate

    put(Gate, "start", start)


def say(text: str) -> None:
    """Log a line for the test that waits for it."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


FAULTS = {
    fault.__name__: fault
    for fault in (
        none,
        traced,
        a_check,
        a_watcher,
        a_look,
        the_disk,
        every_pass,
        one_pass,
        a_stop_that_hangs,
        a_step_that_raises,
        a_task_that_does_not_end,
        a_loop_that_is_held_up,
        a_kubo_that_never_gets_ready,
        a_start_that_hangs,
    )
}


def main(path: Path, fault: str, script: str) -> int:
    config = load(path)
    if not (config.state / "node.key").exists():
        files.prepare_folders(config.state, config.paths.run, config.private_sockets)
        asyncio.run(found_a_mesh(config))
    engines_are_scripts(DEAF if script == "deaf" else SERVES)
    lifecycle._STOP_S, lifecycle._STEP_S = 8.0, 1.0
    reconciler_loop.GIVE_UP_S = 3.0
    shutdown.KILL_NOW_S, shutdown.NODE_ENDED_S = 3.0, 2.0
    FAULTS[fault]()
    return __main__.main(["run", "--config", str(path)])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
