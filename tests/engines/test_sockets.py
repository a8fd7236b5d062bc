"""From the first instruction on, the engines have no socket but TCP, and listen on the overlay alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from meshd.errors import Code, MeshError
from meshd.model import Phase
from meshd.supervise.service import Service
from meshd.supervise.sockets import InetSocket, count_listeners, leaks, of_process
from tests.engines.machine import Machine, short_folder
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_AFTERWARDS_S = 2.0  # the cluster searched for routers in the first seconds of each start
_LOOKS = 10  # fewer would say little; a busy machine takes longer for them


class Sampler:
    """Looks at a service's sockets from its spawn on, again and again."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.seen: set[InetSocket] = set()
        self.looks = 0

    async def run(self, over: asyncio.Event) -> None:
        while not over.is_set():
            pid = self._service.state.pid
            if pid is not None:
                self.seen.update(await asyncio.to_thread(of_process, pid))
                self.looks += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.005)


@contextlib.asynccontextmanager
async def sampled(service: Service) -> AsyncIterator[Sampler]:
    sampler, over = Sampler(service), asyncio.Event()
    task = asyncio.create_task(sampler.run(over))
    try:
        yield sampler
    finally:
        over.set()
        await task


async def test_neither_engine_ever_has_a_socket_that_it_may_not_have() -> None:
    with short_folder() as folder:
        node = Machine(folder)
        try:
            async with sampled(node.kubo_service) as of_kubo, sampled(node.cluster_service) as of_cluster:
                await node.start_kubo()
                await node.start_cluster()
                ready = asyncio.get_running_loop().time()
                await until(lambda: asyncio.get_running_loop().time() > ready + _AFTERWARDS_S)
                await until(lambda: min(of_kubo.looks, of_cluster.looks) > _LOOKS)
            for sampler, port in ((of_kubo, node.kubo_port), (of_cluster, node.cluster_port)):
                assert leaks(list(sampler.seen), node.address, port) == []
                assert {(s.address, s.port) for s in sampler.seen if s.listening} == {(node.address, port)}
                assert count_listeners(node.address, port) == 1
        finally:
            await node.stop()


async def test_a_port_that_is_in_use_is_told_and_not_shared(machine: Machine) -> None:
    """libp2p would share it by SO_REUSEPORT, start, and take half of the connections."""
    with short_folder() as folder:
        second = Machine(folder)
        second.address, second.kubo_port = machine.address, machine.kubo_port
        second.place_kubo()
        await second.kubo_program.create()
        with pytest.raises(MeshError) as caught:
            await second.kubo_program.prepare()
    assert caught.value.code is Code.BUSY
    assert "ipfs (pid" in caught.value.detail


async def test_after_kill_9_they_start_again_over_their_old_sockets() -> None:
    with short_folder() as folder:
        node = Machine(folder)
        try:
            await node.start_kubo()
            await node.start_cluster()
            for service in (node.cluster_service, node.kubo_service):
                await service.stop("kill -9", grace=0)
            assert node.kubo.socket.exists(), "it had no time to remove it"
            assert node.cluster.socket.exists()
            for service in (node.kubo_service, node.cluster_service):
                await service.start("s")
                assert service.state.phase is Phase.READY, service.state.last_exit
        finally:
            await node.stop()
