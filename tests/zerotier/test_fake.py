"""The fake itself, where the contract cannot look: what it does at one time, and that it never goes on half dead."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.waiting import until
from tests.zerotier.conftest import AsZeroTier
from tests.zerotier.devices import Devices
from tests.zerotier.fake import FakeService
from tests.zerotier.membership import Timing
from tests.zerotier.planet import NODE, Planet
from tests.zerotier.world import network_settings


class WatchedDevices(Devices):
    """No interface at all; it notes who comes while another is still at work."""

    def __init__(self) -> None:
        super().__init__("", 0.0)
        self.settling, self.go_on = threading.Event(), threading.Event()
        self.broken = False
        self.met: list[str] = []
        self._busy = threading.Lock()

    def _enter(self, what: str) -> None:
        if not self._busy.acquire(blocking=False):
            self.met.append(what)
            self.go_on.set()
            return
        try:
            if what == "sync":
                self.settling.set()
                self.go_on.wait(0.5)  # seconds; whoever does not wait for its turn comes sooner
        finally:
            self._busy.release()

    def add(self, device: str, mac: str) -> None:
        self._enter("add")

    def remove(self, device: str) -> None:
        self._enter("remove")

    def remove_all(self) -> None: ...

    def sync(self, device: str, wanted: list[str]) -> None:
        if wanted and self.broken:
            raise RuntimeError("of the test")
        if wanted:
            self._enter("sync")


@pytest.fixture
def devices() -> WatchedDevices:
    return WatchedDevices()


@pytest_asyncio.fixture
async def fake(planet: Planet, devices: WatchedDevices, tmp_path: Path) -> AsyncIterator[FakeService]:
    made = FakeService(tmp_path / "zt", planet.path, NODE, timing=Timing.quick(), devices=devices)
    await made.start(0)
    yield made
    await made.stop()


@pytest.mark.parametrize("call", ["join", "leave"])
async def test_a_call_waits_until_the_interface_is_settled(
    call: str, planet: Planet, devices: WatchedDevices, fake: FakeService, make_client: AsZeroTier
) -> None:
    network = planet.make_network(NODE, network_settings(private=False))["id"]
    client = make_client()
    await client.join(network)
    await until(devices.settling.is_set)
    await (client.join if call == "join" else client.leave)(network)
    assert devices.met == []


async def test_a_service_that_cannot_go_on_says_so(
    planet: Planet, devices: WatchedDevices, fake: FakeService, make_client: AsZeroTier
) -> None:
    network = planet.make_network(NODE, network_settings(private=False))["id"]
    devices.broken = True
    with pytest.raises(RuntimeError, match="of the test"):
        async with asyncio.timeout(10):
            await asyncio.gather(make_client().join(network), fake.failed())
    with pytest.raises(RuntimeError, match="of the test"):
        await fake.stop()
