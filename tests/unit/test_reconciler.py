"""What the reconciler does where something is in the way: the peer API's port, a disk that cannot be asked, a mesh that forgot."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshd import config, files
from meshd.errors import Code
from meshd.mesh.secrets import Secrets
from meshd.model import OverlayState
from meshd.node import Node
from tests.engines.machine import free_port, own_address, short_folder
from tests.unit.built import close
from tests.unit.members import joiner
from tests.waiting import until


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    """In a mesh of its own, at a loopback address; its engines are nowhere. Nothing of it was started."""
    with short_folder() as folder:
        address, empty = own_address(), Path(folder, "e")
        empty.mkdir()
        text = (
            f'[node]\nname = "attic"\n[paths]\nstate = "{folder}/s"\nrun = "{folder}/r"\nengines = "{empty}"\n'
            f"[ports]\npeer = {free_port(address)}\n"
        )
        settings = config.parse(text, "the test")
        files.prepare_folders(settings.state, settings.paths.run, settings.private_sockets)
        made = Node(settings)
        Secrets.generate().save(settings.state)
        await made.mesh.store.create("archive", joiner(made.mesh.identity, "attic", address))
        made.overlay.publish(OverlayState(address))
        yield made
        await made.peer.server.stop()
        await close(made)


async def test_that_the_peer_api_has_no_port_is_told_until_it_has(node: Node) -> None:
    address = node.overlay.state.address
    assert address is not None
    taken = socket.create_server((address, node.config.ports.peer))
    turning = asyncio.create_task(node.reconciler.run(node.guard))
    try:
        with taken:
            await until(lambda: node.health.readiness.listen_error or node.peer.server.listening)
            error = node.health.readiness.listen_error
            assert error is not None
            assert error.code is Code.BUSY
        await until(lambda: node.peer.server.listening, 60)  # it tries again after some seconds
        await until(lambda: node.health.readiness.listen_error is None)
    finally:
        node.reconciler.stop()
        await asyncio.wait_for(turning, 60)
    assert node.peer.server.listening is None


async def test_a_node_that_was_forgotten_runs_nothing(node: Node) -> None:
    assert set(node.reconciler.snapshot().wanted_settings) == {"kubo", "cluster"}
    await node.mesh.store.forget(node.mesh.identity.fingerprint, by=node.mesh.identity.fingerprint)
    snapshot = node.reconciler.snapshot()
    assert snapshot.forgotten
    assert snapshot.wanted_settings == {}


async def test_a_disk_that_cannot_be_asked_counts_as_full(node: Node) -> None:
    assert not node.reconciler.snapshot().disk_full
    shutil.rmtree(node.config.state / "kubo")
    assert node.reconciler.snapshot().disk_full
