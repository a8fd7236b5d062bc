"""What the audit finds in running programs: real processes with real sockets, and a kubo that answers what a test says."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meshd import config
from meshd.health.audit import Audit, why_unwritable
from meshd.kubo import policy
from meshd.kubo.rpc import Kubo
from meshd.model import OverlayState, Phase, ServiceState
from meshd.overlay.monitor import Overlay
from meshd.periodic import TaskGuard
from meshd.pins.storage import Storage
from meshd.state_files import StateFile, StateFiles
from tests.engines.machine import free_port, own_address, short_folder
from tests.pins.fake_engines import FakeKubo
from tests.waiting import until

# Opens a socket for each word (kind:address:port), says so, and waits to be ended.
OPENS = """
import socket, sys
made = []
for word in sys.argv[1:]:
    kind, address, port = word.split(":")
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((address, int(port)))
    if kind == "tcp":
        one.listen()
    made.append(one)
print("open", flush=True)
sys.stdin.read()
"""


class Program:
    """A supervised program, as the audit knows it."""

    def __init__(self, name: str) -> None:
        self.state = ServiceState(name)
        self.leaks: list[str] = []

    def is_in(self, phase: Phase, pid: int | None = None) -> None:
        self.state = dataclasses.replace(self.state, phase=phase, pid=pid)

    def report_leak(self, leak: str) -> None:
        self.leaks.append(leak)


class Looking:
    """An audit that runs, and all that it looks at."""

    def __init__(self, folder: Path) -> None:
        self.address = own_address()
        self.port = free_port(own_address())
        self.kubo, self.cluster = Program("kubo"), Program("cluster")
        self.place = policy.KuboEndpoint(own_address(), 4001, folder / "kubo.sock")
        self.fake = FakeKubo(folder / "kubo.sock")
        self.fake.settings = policy.apply({}, self.place)
        self.members = {"12D3member"}
        self.client = Kubo(self.fake.socket)
        services: Any = {"kubo": self.kubo, "cluster": self.cluster}
        settings: Any = SimpleNamespace(
            ports={"kubo": self.port, "cluster": self.port},
            kubo_endpoint=lambda _: self.place,
            kubo_ids=lambda: self.members,
        )
        self.files = StateFiles(folder)
        self.storage = Storage(folder, reserve=0, offer=None)
        zerotier: Any = None
        overlay = Overlay(config.Overlay(), zerotier)
        overlay.publish(OverlayState(self.address))
        self.audit = Audit(
            services=services,
            settings=settings,
            overlay=overlay,
            kubo=self.client,
            storage=self.storage,
            state_files=self.files,
            guard=TaskGuard(),
        )
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self._task = asyncio.create_task(self.audit.run())

    async def once(self) -> None:
        """One look at everything."""
        await self.begin()
        asked = len(self.fake.asked)
        await until(lambda: len(self.fake.asked) >= asked + 2 or self.kubo.state.phase is not Phase.READY)
        await self.end()

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            assert self._task.cancelled(), "it goes on until then"


@pytest.fixture
async def looking() -> AsyncIterator[Looking]:
    with short_folder() as folder:
        made = Looking(folder)
        await made.fake.start()
        yield made
        await made.end()
        await made.client.close()
        await made.fake.stop()
        # A look at the disk goes on in its thread, with a file in the folder.
        await asyncio.get_running_loop().shutdown_default_executor()


Opened = Callable[..., Any]


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    """opened("tcp:127.0.0.1:80"): the pid of a process that has such sockets."""
    processes: list[asyncio.subprocess.Process] = []

    async def start(*sockets: str) -> int:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", OPENS, *sockets, stdin=pipe, stdout=pipe
        )
        processes.append(process)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"open\n"
        return process.pid

    yield start
    for process in processes:
        await process.communicate(b"")  # the end of its standard input ends it


# -- sockets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.READY])
async def test_a_socket_that_may_not_be_is_reported_at_once_also_while_it_starts(
    looking: Looking, opened: Opened, phase: Phase
) -> None:
    looking.cluster.is_in(phase, await opened(f"udp:{looking.address}:0"))
    await looking.begin()
    await until(lambda: looking.cluster.leaks)
    assert looking.cluster.leaks[0].startswith(f"UDP {looking.address}:")
    assert looking.kubo.leaks == []


async def test_a_listener_on_another_address_is_reported_and_its_own_is_not(
    looking: Looking, opened: Opened
) -> None:
    looking.cluster.is_in(Phase.READY, await opened(f"tcp:{looking.address}:{looking.port}"))
    another = own_address()  # on 127.0.0.1 the port may be taken
    looking.kubo.is_in(Phase.STARTING, await opened(f"tcp:{another}:{looking.port}"))
    await looking.begin()
    await until(lambda: looking.kubo.leaks)
    assert looking.kubo.leaks[0] == f"TCP {another}:{looking.port} listening"
    assert looking.cluster.leaks == []


async def test_another_program_on_the_same_port_is_reported(looking: Looking, opened: Opened) -> None:
    """The kernel gives it half of the connections."""
    where = f"tcp:{looking.address}:{looking.port}"
    looking.cluster.is_in(Phase.READY, await opened(where))
    await opened(where)
    await looking.begin()
    await until(lambda: looking.cluster.leaks)
    assert looking.cluster.leaks[0] == (
        f"2 programs listen on {looking.address}:{looking.port}, and one should"
    )


# -- kubo ----------------------------------------------------------------------------------------------------------


async def test_where_all_is_well_nothing_is_told(looking: Looking, opened: Opened) -> None:
    looking.kubo.is_in(Phase.READY, await opened())
    looking.fake.connected = {"12D3member": "/ip4/10.0.0.2/tcp/4001"}
    await looking.once()
    audit = looking.audit
    assert (audit.drift, audit.strangers, audit.open_files, looking.storage.unwritable) == ((), (), (), "")


async def test_who_is_no_member_is_told_with_where_it_is(looking: Looking, opened: Opened) -> None:
    looking.kubo.is_in(Phase.READY, await opened())
    looking.fake.connected = {"12D3member": "/ip4/10.0.0.2/tcp/4001", "12D3x": "/ip4/10.0.0.9/tcp/4001"}
    await looking.begin()
    await until(lambda: looking.audit.strangers)
    assert looking.audit.strangers == ("12D3x at /ip4/10.0.0.9/tcp/4001",)


async def test_a_rule_that_the_running_kubo_does_not_hold_is_told_until_it_is_gone(
    looking: Looking, opened: Opened
) -> None:
    looking.kubo.is_in(Phase.READY, await opened())
    looking.fake.settings["Routing"]["Type"] = "auto"
    await looking.begin()
    await until(lambda: looking.audit.drift)
    assert looking.audit.drift[0].startswith("Routing.Type is 'auto', must be 'none'")
    looking.kubo.is_in(Phase.STOPPED)
    looking.cluster.is_in(Phase.STARTING)  # so that it looks again soon
    await until(lambda: not looking.audit.drift)


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o640, True), (0o604, True), (0o620, True)])
async def test_a_secret_that_others_may_read_or_write_is_told(
    looking: Looking, tmp_path: Path, mode: int, told: bool
) -> None:
    secret = tmp_path / "node.key"
    secret.touch()
    secret.chmod(mode)
    looking.files.folder = tmp_path
    looking.files.declare(
        (StateFile("gone", secret=True), StateFile("node.key", secret=True), StateFile("more"))
    )
    (tmp_path / "more").touch(0o644)
    await looking.begin()
    await until(lambda: looking.audit.open_files or not told)
    await looking.end()
    assert looking.audit.open_files == ((str(secret),) if told else ())


def test_a_folder_that_takes_no_writes_is_told_and_nothing_is_left_in_one_that_does(tmp_path: Path) -> None:
    assert why_unwritable(tmp_path / "gone") == "No such file or directory"
    assert why_unwritable(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
