"""Where members are looked for on a ZeroTier network: what follows from ids, what is configured, and a bounded knock."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from meshd.config.zerotier import Network as Config
from meshd.config.zerotier import ZeroTier as ServiceConfig
from meshd.model import OverlayState
from meshd.overlay.discovery import PROBE_MOST, Discovery, has_rfc4193, known, probed, rfc4193
from meshd.overlay.zerotier import Network, Peer, ZeroTier
from tests.sockets import table
from tests.waiting import until
from tests.zerotier.fake import FakeService
from tests.zerotier.membership import Timing
from tests.zerotier.planet import Planet, new_address

ID, NODE = "a325774dfb000001", "87d8277670"
ROUTE = "10.144.0.0/24"


def network(*routes: str | dict[str, Any], addresses: tuple[str, ...] = ("10.144.0.7/24",)) -> Network:
    shown = [{"target": r, "via": None} if isinstance(r, str) else r for r in routes]
    return Network.model_validate({"id": ID, "assignedAddresses": list(addresses), "routes": shown})


def peers(**roles: str) -> list[Peer]:
    return [Peer(address=address.strip("_"), role=role) for address, role in roles.items()]


# -- addresses that follow from ids ----------------------------------------------------------------------------------------


def test_the_address_that_follows_from_the_ids_is_the_one_that_zerotier_gives() -> None:
    assert rfc4193(ID, NODE) == "fda3:2577:4dfb:0:199:9387:d827:7670"


hex_digits = "0123456789abcdef"


@given(st.text(hex_digits, min_size=16, max_size=16), st.text(hex_digits, min_size=10, max_size=10))
def test_it_is_as_its_definition_says_for_all_ids(of_network: str, node: str) -> None:
    packed = ipaddress.IPv6Address(rfc4193(of_network, node)).packed
    assert packed.hex() == f"fd{of_network}9993{node}"


MINE, OTHERS = rfc4193(ID, NODE), rfc4193(ID, "1111111111")
CONTROLLER = rfc4193(ID, ID[:10])


def test_others_are_found_by_their_ids_only_where_this_node_has_such_an_address() -> None:
    others = peers(_1111111111="LEAF", _2222222222="MOON", _3333333333="PLANET")
    with_it = network(ROUTE, addresses=("10.144.0.7/24", f"{MINE}/88"))
    assert has_rfc4193(with_it, NODE)
    assert known(Config(id=ID), with_it, NODE, others) == [
        OTHERS,
        rfc4193(ID, "2222222222"),
        CONTROLLER,
    ]
    without = network(ROUTE)
    assert not has_rfc4193(without, NODE)
    assert known(Config(id=ID), without, NODE, others) == []


def test_nobody_asks_himself() -> None:
    with_it = network(addresses=(f"{MINE}/88",))
    assert known(Config(id=ID), with_it, NODE, [Peer(address=NODE, role="LEAF")]) == [CONTROLLER]


# -- configured hosts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["10.144.0.9", "10.200.1.2", "10.145.0.9", "fd00:1::5"])
def test_a_configured_host_on_the_network_is_the_first(host: str) -> None:
    on = network(ROUTE, "10.200.0.0/16", addresses=("10.145.0.1/24", "fd00:1::1/64", f"{MINE}/88"))
    found = known(Config(id=ID, prefer_hosts=[host]), on, NODE, peers(_1111111111="LEAF"))
    assert found == [host, OTHERS, CONTROLLER]


@pytest.mark.parametrize(
    ("host", "routes"),
    [
        ("192.168.1.9", [ROUTE]),
        ("10.144.1.9", [ROUTE]),
        ("8.8.8.8", [ROUTE, "8.0.0.0/8"]),
        ("192.168.1.9", [ROUTE, {"target": "192.168.1.0/24", "via": "10.144.0.1"}]),
        ("192.168.1.9", [{"target": "0.0.0.0/0", "via": "10.144.0.1"}]),
        ("192.168.1.9", ["nonsense"]),
    ],
)
def test_a_configured_host_elsewhere_is_not_asked(host: str, routes: list[str | dict[str, Any]]) -> None:
    assert known(Config(id=ID, prefer_hosts=[host]), network(*routes), NODE, []) == []


# -- every address of a small range ------------------------------------------------------------------------------------------


def test_a_range_is_knocked_at_without_this_node_and_the_ends() -> None:
    assert probed(network("10.144.0.0/29"), ["10.144.0.3"]) == [f"10.144.0.{n}" for n in (1, 2, 4, 5, 6)]


@pytest.mark.parametrize("route", ["10.144.0.0/22", "127.77.0.0/22"])
def test_a_22_is_small_enough(route: str) -> None:
    assert len(probed(network(route), [])) == 1022


@pytest.mark.parametrize(
    "route",
    [
        "10.144.0.0/21",
        "10.0.0.0/8",
        "0.0.0.0/0",
        "8.8.8.0/24",
        "172.31.255.0/22",
        {"target": "192.168.1.0/24", "via": "10.144.0.1"},
        f"{MINE}/120",
        "nonsense",
        "10.144.0.0/33",
    ],
)
def test_what_is_large_or_public_or_behind_a_gateway_or_ipv6_is_not(route: str | dict[str, Any]) -> None:
    found = probed(network(route), [])
    assert found == [] or route == "172.31.255.0/22"
    assert all(ipaddress.ip_address(address).is_private for address in found)


def test_many_routes_are_no_way_round_the_bound() -> None:
    found = probed(network(*(f"10.{n}.0.0/22" for n in range(20))), [])
    assert len(found) == PROBE_MOST == len(set(found))
    assert len(probed(network("10.144.0.0/24", "10.144.0.0/24"), [])) == 254


# -- looking, on a real network of loopback addresses -----------------------------------------------------------------------

OWN = "127.77.0.1"
RANGE = "127.77.0.0/26"


class Neighbours:
    """Listeners on addresses of the range, all on one port."""

    def __init__(self) -> None:
        first = socket.create_server(("127.77.0.2", 0))
        self.port: int = first.getsockname()[1]
        self._open = [first]

    def answer(self, *addresses: str) -> None:
        self._open += [socket.create_server((a, self.port)) for a in addresses if a != "127.77.0.2"]

    def swallow(self, *addresses: str) -> None:
        """From now on whoever calls there hears nothing, as from a machine that is switched off."""
        for address in addresses:
            full = socket.socket()
            full.bind((address, self.port))
            full.listen(0)
            fillers = [socket.socket() for _ in range(3)]
            for one in fillers:
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    one.connect((address, self.port))
            self._open += [full, *fillers]

    def calling(self) -> int:
        """How many connections this node is trying to make now."""
        return sum(s.calling and (s.address, s.remote_port) == (OWN, self.port) for s in table())

    def close(self) -> None:
        for one in self._open:
            one.close()


@pytest.fixture
def neighbours() -> Iterator[Neighbours]:
    made = Neighbours()
    yield made
    made.close()


MakeSeeker = Callable[..., Discovery]


@pytest.fixture
async def make_seeker(neighbours: Neighbours) -> AsyncIterator[MakeSeeker]:
    """For a node that is on a network whose addresses are loopback ones. options: of the network's configuration."""
    folder = Path(tempfile.mkdtemp(prefix="zt", dir="/tmp"))
    planet = Planet(folder / "planet")
    planet.start()
    service = FakeService(folder / "zt", planet.path, new_address(), timing=Timing.quick())
    await service.start(0)
    made = planet.make_network(
        service.address,
        {"routes": [{"target": RANGE, "via": None}], "private": True, "v4AssignMode": {"zt": True}},
    )["id"]
    planet.change_member(made, service.address, {"authorized": True, "ipAssignments": [OWN]})
    client = ZeroTier(ServiceConfig(home=folder / "zt"), lambda _: None)
    await client.join(made)

    async def there() -> bool:
        now = await client.network(made)
        return now is not None and now.status == "OK" and now.addresses == [f"{OWN}/26"]

    await until(there)

    def make(state: dict[str, Any] | None = None, **options: Any) -> Discovery:
        is_ = OverlayState(**{"address": OWN, "network": made, "node": service.address} | (state or {}))
        return Discovery(Config(id=made, **options), client, lambda: is_, neighbours.port)

    yield make
    await client.close()
    await service.stop()
    await asyncio.to_thread(planet.stop)
    shutil.rmtree(folder)


def addresses(seeker: Discovery) -> list[str]:
    return [address for address, _ in seeker.found()]


async def test_whoever_answers_in_the_range_is_found(make_seeker: MakeSeeker, neighbours: Neighbours) -> None:
    neighbours.answer("127.77.0.9", "127.77.0.62")
    async with make_seeker() as seeker:
        assert seeker.found() == []
        await until(lambda: len(seeker.found()) == 3)
        assert set(seeker.found()) == {(f"127.77.0.{n}", neighbours.port) for n in (2, 9, 62)}


async def test_a_configured_host_is_known_at_once_and_stays_the_first(
    make_seeker: MakeSeeker, neighbours: Neighbours
) -> None:
    async with make_seeker(prefer_hosts=["127.77.0.40"]) as seeker:
        await until(lambda: len(seeker.found()) == 2)
        assert addresses(seeker) == ["127.77.0.40", "127.77.0.2"]


async def test_knocking_can_be_turned_off(make_seeker: MakeSeeker, neighbours: Neighbours) -> None:
    """Seen at a neighbour who is the first in the range: when the configured host is known he would have been called."""
    neighbours.swallow("127.77.0.3")
    async with make_seeker(probe=False, prefer_hosts=["127.77.0.40"]) as seeker:
        await until(lambda: addresses(seeker) == ["127.77.0.40"])
        assert seeker._probing is None
        assert neighbours.calling() == 0


@pytest.mark.parametrize("state", [{"address": None}, {"network": "8056c2e21c000001"}])
async def test_off_the_network_nobody_is_looked_for(make_seeker: MakeSeeker, state: dict[str, Any]) -> None:
    async with make_seeker(state=state, prefer_hosts=["127.77.0.40"]) as seeker:
        await seeker._look()
        assert seeker.found() == []
        assert seeker._probing is None


async def test_at_most_64_are_knocked_at_at_one_time_and_in_a_second(
    make_seeker: MakeSeeker, neighbours: Neighbours
) -> None:
    """In a range where nobody answers, but one at its end: the others do not hold it up by a second each."""
    neighbours.swallow(*(f"127.77.0.{n}" for n in range(3, 62)))
    neighbours.answer("127.77.0.62")
    at_once = 0

    def found() -> bool:
        nonlocal at_once
        at_once = max(at_once, neighbours.calling())
        return "127.77.0.62" in addresses(seeker)

    began = time.monotonic()
    async with make_seeker() as seeker:
        await until(found, 30)
    assert 16 < at_once <= 64
    assert time.monotonic() - began >= 59 / 64


async def test_it_ends_with_its_context(make_seeker: MakeSeeker, neighbours: Neighbours) -> None:
    neighbours.swallow(*(f"127.77.0.{n}" for n in range(3, 40)))
    async with make_seeker():
        await until(lambda: neighbours.calling() > 4)
    assert neighbours.calling() == 0
    assert not [t for t in asyncio.all_tasks() if t.get_name() in ("seek", "probe")]
