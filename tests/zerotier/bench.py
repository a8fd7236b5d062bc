"""One machine on loopback: its fake ZeroTier, its networks, and an Overlay that monitors them. Needs no root.

The networks' addresses can be bound. Only the list of interfaces is the tests' own.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from meshd.config import Overlay as Config
from meshd.model import OverlayState
from meshd.overlay import monitor, static
from meshd.overlay.monitor import MeshOnOverlay, Overlay
from meshd.overlay.zerotier import ZeroTier
from tests.waiting import until
from tests.zerotier.fake import FakeService
from tests.zerotier.membership import Timing, device_name
from tests.zerotier.planet import Planet, new_address

POOL = "127.78.0"
# A tenth of what they are, so that tests take a tenth.
QUICK_S, QUIET_S, LOADING_S, AGAIN_S = 0.03, 0.5, 0.5, 1.5
# A service is slow to know its networks after a start.
TIMING = Timing(retry=0.1, refresh=0.2, load=0.2, online=0.1)


class _Noted(Overlay):
    """Records the outcome of every poll, with its time."""

    told: list[tuple[float, OverlayState]]

    def publish(self, found: OverlayState) -> None:
        super().publish(found)
        self.told.append((time.monotonic(), found))


class Bench:
    """One machine: its service, its networks, what its kernel has, and an Overlay that follows them.

    told: every look's outcome, with its time. wanted: the network of its mesh, "" for none. members: ZeroTier address -> name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.planet = Planet(folder / "planet")
        self.planet.start()
        self.service = FakeService(folder / "zt", self.planet.path, new_address(), timing=TIMING)
        self.kernel: dict[str, list[str]] = {}
        self.environment: dict[str, str] = {}
        self.told: list[tuple[float, OverlayState]] = []
        self.overlay: _Noted | None = None
        self._mesh = MeshOnOverlay()
        self._running: asyncio.Task[None] | None = None

    def make_network(self, **more: Any) -> str:
        """Its id. It gives out no address by itself."""
        settings = {
            "private": True,
            "name": "lab",
            "routes": [{"target": f"{POOL}.0/24", "via": None}],
            **more,
        }
        return str(self.planet.make_network(self.service.address, settings)["id"])

    def let_in(self, network: str, address: str) -> None:
        """With that address, which is on the interface too."""
        self.give(network, address)
        self.kernel[device_name(network)] = [address]

    def give(self, network: str, address: str) -> None:
        changes = {"authorized": True, "ipAssignments": [address]}
        self.planet.change_member(network, self.service.address, changes)

    def put_out(self, network: str) -> None:
        self.planet.change_member(network, self.service.address, {"authorized": False})

    def follows(
        self, networks: list[dict[str, Any]] | None = None, kind: str = "zerotier", **more: Any
    ) -> Overlay:
        """Begin. kind, networks, more: of the configuration."""
        service = {"home": str(self.service.home), "networks": networks or [], **more}
        config = Config.model_validate({"kind": kind, "zerotier": service})
        self.client = ZeroTier(config.zerotier, self.environment.get)
        self.overlay = _Noted(config, self.client)
        self.overlay.told = self.told
        self._tell()
        self._running = asyncio.create_task(self.overlay.run())
        return self.overlay

    @property
    def wanted(self) -> str:
        return self._mesh.network

    @wanted.setter
    def wanted(self, network: str) -> None:
        self._mesh = replace(self._mesh, network=network)
        self._tell()

    @property
    def members(self) -> Mapping[str, str]:
        return self._mesh.names

    @members.setter
    def members(self, names: Mapping[str, str]) -> None:
        self._mesh = replace(self._mesh, names=names, in_mesh=bool(names))
        self._tell()

    def _tell(self) -> None:
        if self.overlay is not None:
            self.overlay.mesh = self._mesh

    @property
    def now(self) -> OverlayState:
        return self.told[-1][1] if self.told else OverlayState()

    @property
    def code(self) -> str:
        return self.now.problem.code if self.now.problem else ""

    async def serves_on(self, address: str) -> None:
        await until(lambda: self.now.address == address and self.now.problem is None)

    async def says(self, code: str) -> None:
        await until(lambda: self.code == code)

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            await self.client.close()
        await self.service.stop()
        await asyncio.to_thread(self.planet.stop)
        shutil.rmtree(self.folder)


@pytest_asyncio.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    made = Bench(Path(tempfile.mkdtemp(prefix="zt", dir="/tmp")))
    for room in (monitor, static):
        monkeypatch.setattr(room, "addresses", lambda: dict(made.kernel))
    for name, seconds in (
        ("QUICK_S", QUICK_S),
        ("QUIET_S", QUIET_S),
        ("_LOADING_S", LOADING_S),
        ("_JOIN_AGAIN_S", AGAIN_S),
    ):
        monkeypatch.setattr(monitor, name, seconds)
    await made.service.start(0)
    yield made
    await made.close()
