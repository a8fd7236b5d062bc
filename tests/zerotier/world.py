"""Machines in network namespaces, each with a fake ZeroTier service of its own, and one wire as the network that joins them.

The interface is named `zt…`, is up and has addresses only while the machine's service has joined a network and got
them. For tests of whole nodes; everything here can be called from a test without an event loop. Needs root.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mesh.cables import NEEDS_CABLES, Cables
from tests.zerotier import namespaces
from tests.zerotier.membership import Timing
from tests.zerotier.planet import Planet, new_address
from tests.zerotier.process import ServiceProcess

POOL = "10.144.0"
NEEDS_WORLD = NEEDS_CABLES


def network_settings(**more: Any) -> dict[str, Any]:
    """Of a private network that gives out v4 addresses of 10.144.0.0/24. more: as the controller's API takes it."""
    return {
        "name": "meshlab",
        "private": True,
        "v4AssignMode": {"zt": True},
        "ipAssignmentPools": [{"ipRangeStart": f"{POOL}.1", "ipRangeEnd": f"{POOL}.254"}],
        "routes": [{"target": f"{POOL}.0/24", "via": None}],
        **more,
    }


class Place(ServiceProcess):
    """One machine. address: its ZeroTier address; home: the folder of its service; namespace: where meshd is to run."""

    def change_token(self) -> str:
        """The service is started anew with it, as the real one takes no other while it runs."""
        self.stop()
        (self.home / "authtoken.secret").unlink()
        self.start()
        return (self.home / "authtoken.secret").read_text()

    def on_interfaces(self) -> set[str]:
        """CIDRs, but for loopback and link-local ones."""
        return namespaces.addresses(self.namespace)

    def devices(self) -> set[str]:
        return namespaces.devices(self.namespace) - {"lo"}


class World:
    """The first machine is the controller of the networks made here. timing: see Timing; short, if nothing is said."""

    def __init__(self, count: int, *, timing: Timing | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="zt", dir="/tmp"))  # a socket's path must be short
        self.timing = timing or Timing.quick()
        self.places: list[Place] = []
        self.planet = Planet(self._folder / "planet")
        self._cables: Cables | None = None
        try:
            self._build(count)
        except BaseException:
            self.close()
            raise

    def _build(self, count: int) -> None:
        self.planet.start()
        self._cables = Cables()
        for number in range(count):
            plugged = self._cables.plug("west")
            make_interface(plugged.namespace)
            place = Place(
                self._folder / f"zt{number}",
                self.planet,
                new_address(),
                timing=self.timing,
                namespace=plugged.namespace,
                endpoint=f"{plugged.address}/9993",
            )
            self.places.append(place)
            place.start()
        self.planet.moon = self.places[0].address
        self.planet.wire = self._switch

    def close(self) -> None:
        for place in self.places:
            place.stop()
        if self._cables is not None:
            self._cables.remove()
        self.planet.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _switch(self, member: str, on: bool) -> None:
        """Others take its packets or do not; its interface sees nothing of it."""
        for place in self.places:
            if place.address == member:
                hub, number = place.namespace.rsplit("-", 1)  # as tests/mesh/cables.py names them
                _ip(
                    "-n",
                    f"{hub}-hub",
                    "link",
                    "set",
                    f"port{number}",
                    *(["master", "west"] if on else ["nomaster"]),
                )

    # -- knobs; what only the planet knows how to do is done on `planet` -------------------------------------------------

    def make_network(self, **more: Any) -> str:
        """Its id. more: see network_settings."""
        return str(self.planet.make_network(self.places[0].address, network_settings(**more))["id"])

    def authorize(self, network: str, place: Place) -> None:
        self.planet.change_member(network, place.address, {"authorized": True})

    def deauthorize(self, network: str, place: Place) -> None:
        """The machine hears of it when it asks the next time: within Timing.refresh and Timing.retry."""
        self.planet.change_member(network, place.address, {"authorized": False})

    def move(self, network: str, place: Place, *addresses: str) -> None:
        """Give a member other addresses, without their prefix; none at all, and it gets none by itself either."""
        changes = {"ipAssignments": list(addresses), "noAutoAssignIps": not addresses}
        self.planet.change_member(network, place.address, changes)


def make_interface(namespace: str) -> None:
    """The cable's end, as the service finds it: without a name of its own, without addresses, down."""
    _ip("-n", namespace, "addr", "flush", "dev", "eth0")
    _ip("-n", namespace, "link", "set", "eth0", "down")
    _ip("-n", namespace, "link", "set", "eth0", "name", "zt0")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    """Worlds for one test. Name it before `make_node`: what is set up first is torn down last."""
    made: list[World] = []

    def make(count: int = 3, **options: Any) -> World:
        world = World(count, **options)
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()
