"""The world that other tests stand on: interfaces come and go with the network, and nothing is left when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mesh.pairing import until
from tests.zerotier.membership import Timing
from tests.zerotier.namespaces import connect, listen
from tests.zerotier.world import NEEDS_WORLD, Place, World, make_world

__all__ = ["make_world"]  # a fixture

pytestmark = NEEDS_WORLD
MakeWorld = Callable[..., World]


def let_in(world: World, network: str, place: Place) -> str:
    """Joined by its own API and authorized; the address that it got, without the prefix."""
    world.authorize(network, place)
    asks(place, "POST", f"/network/{network}")
    until(lambda: place.on_interfaces(), "it has an address", 10, every=0.05)
    (address,) = place.on_interfaces()
    return address.split("/")[0]


def asks(place: Place, method: str, path: str) -> str:
    """A call to its service from its own namespace; the whole answer."""
    token = (place.home / "authtoken.secret").read_text()
    with connect(place.namespace, 9993) as wire:
        wire.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-ZT1-Auth: {token}\r\nConnection: close\r\n\r\n".encode()
        )
        return wire.makefile().read()


def reaches(one: Place, address: str) -> bool:
    """Whether a TCP connection from there comes through to a port where nobody listens."""
    try:
        connect(one.namespace, 1, address, seconds=0.5).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def test_members_reach_each_other_once_they_are_in(make_world: MakeWorld) -> None:
    world = make_world(2)
    network = world.make_network()
    first, second = world.places
    assert first.on_interfaces() == set()
    let_in(world, network, first)
    address = let_in(world, network, second)
    until(lambda: reaches(first, address), "the first reaches the second", 10)
    assert asks(second, "DELETE", f"/network/{network}").startswith("HTTP/1.1 200 OK")
    assert second.on_interfaces() == set()
    assert not reaches(first, address)


def test_who_is_out_is_cut_off_at_once_and_hears_of_it_later(make_world: MakeWorld) -> None:
    world = make_world(2)
    network = world.make_network()
    first, second = world.places
    let_in(world, network, first)
    address = let_in(world, network, second)
    until(lambda: reaches(first, address), "the first reaches the second", 10)
    world.deauthorize(network, second)
    assert not reaches(first, address)
    assert f"{address}/24" in second.on_interfaces()
    world.authorize(network, second)
    until(lambda: reaches(first, address), "the first reaches the second again", 10)


def test_an_address_moves_and_comes_back_after_a_restart(make_world: MakeWorld) -> None:
    world = make_world(1)
    network = world.make_network()
    (place,) = world.places
    let_in(world, network, place)
    world.move(network, place, "10.144.0.200")
    until(lambda: place.on_interfaces() == {"10.144.0.200/24"}, "it has moved", 10, every=0.05)
    (device,) = place.devices()
    place.stop()
    assert place.on_interfaces() == set()
    place.start()
    until(lambda: place.on_interfaces() == {"10.144.0.200/24"}, "it is back", 10, every=0.05)
    assert place.devices() == {device}
    world.move(network, place)
    until(lambda: place.on_interfaces() == set(), "it has none", 10, every=0.05)


def test_an_address_is_kept_off_its_interface(make_world: MakeWorld) -> None:
    """Until it is not any more."""
    world = make_world(1)
    network = world.make_network()
    (place,) = world.places
    world.planet.keep_off_interface(place.address)
    world.authorize(network, place)
    asks(place, "POST", f"/network/{network}")

    def lists(address: str) -> bool:
        return address in asks(place, "GET", f"/network/{network}").partition("assignedAddresses")[2]

    until(lambda: lists("10.144.0.1/24"), "it has an address", 10, every=0.05)
    world.move(network, place, "10.144.0.2")  # when it has heard of the second it was done with the first
    until(lambda: lists("10.144.0.2/24"), "it has another one", 10, every=0.05)
    assert place.on_interfaces() == set()
    world.planet.keep_off_interface(place.address, kept=False)
    until(lambda: place.on_interfaces() == {"10.144.0.2/24"}, "it has its address", 10, every=0.05)


def test_an_address_changed_twice_in_a_second_leaves_one_behind(make_world: MakeWorld) -> None:
    """As with the real one: it takes for true for a second what it last saw on its interface."""
    world = make_world(1, timing=Timing(interface_cache=30.0))
    network = world.make_network()
    (place,) = world.places
    first = let_in(world, network, place)
    world.move(network, place, "10.144.0.200")
    both = {f"{first}/24", "10.144.0.200/24"}
    until(lambda: "10.144.0.200/24" in place.on_interfaces(), "the new one is there", 10, every=0.05)
    assert place.on_interfaces() == both


def test_two_networks_have_an_interface_each(make_world: MakeWorld) -> None:
    world = make_world(1)
    (place,) = world.places
    networks = [world.make_network(), world.make_network()]
    before = place.devices()
    for network in networks:
        world.authorize(network, place)
        assert asks(place, "POST", f"/network/{network}").startswith("HTTP/1.1 200 OK")
    until(lambda: len({d for d in place.devices() if len(d) == 10}) == 2, "there are two", 10, every=0.05)
    for network in networks:
        asks(place, "DELETE", f"/network/{network}")
    assert place.devices() == before


def test_a_changed_token_is_taken(make_world: MakeWorld) -> None:
    (place,) = make_world(1).places
    before = (place.home / "authtoken.secret").read_text()
    assert place.change_token() != before
    assert asks(place, "GET", "/status").startswith("HTTP/1.1 200 OK")


def test_a_controller_that_is_away_is_not_heard(make_world: MakeWorld) -> None:
    world = make_world(2)
    network = world.make_network()
    controller, place = world.places
    world.planet.absent.add(controller.address)
    world.authorize(network, place)
    asks(place, "POST", f"/network/{network}")
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 3 * world.timing.retry, "it asked twice", 10)
    assert place.on_interfaces() == set()
    world.planet.absent.clear()
    until(lambda: place.on_interfaces() == {"10.144.0.1/24"}, "it is let in", 10, every=0.05)


def test_a_world_that_cannot_be_made_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def fails(self: Place) -> None:
        seen.extend([Path("/run/netns", self.namespace), self.home.parent])
        assert all(one.exists() for one in seen)
        raise RuntimeError("of the test")

    monkeypatch.setattr(Place, "start", fails)
    with pytest.raises(RuntimeError, match="of the test"):
        World(2)
    assert len(seen) == 2
    assert not any(one.exists() for one in seen)


def test_a_port_can_be_opened_inside_a_namespace(make_world: MakeWorld) -> None:
    (place,) = make_world(1).places
    with listen(place.namespace) as inside:
        port = inside.getsockname()[1]
        with connect(place.namespace, port) as wire:
            assert wire.getpeername() == ("127.0.0.1", port)
    with pytest.raises(ConnectionRefusedError):
        connect(place.namespace, port)
