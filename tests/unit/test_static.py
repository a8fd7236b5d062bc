"""Which address is the private network's."""

from __future__ import annotations

import socket

import pytest

from meshd import config
from meshd.overlay.addresses import addresses, is_private, on_this_machine
from meshd.overlay.static import find, look, of_interface

NOT_HERE = "203.0.113.1"  # TEST-NET-3: on no machine


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "172.16.0.1", "172.31.255.1", "192.168.1.1", "100.64.0.1", "100.127.255.254", "127.0.0.2", "::1",
     "fd00::1", "fda3:2577:4dfb:0:199:9387:d827:7670"],
)  # fmt: skip
def test_content_may_be_served_on_a_private_address(address: str) -> None:
    assert is_private(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2001:4860:4860::8888", "0.0.0.0", "::", "224.0.0.1",
     "ff02::1", "169.254.1.1", "fe80::1", "240.0.0.1", "255.255.255.255"],
)  # fmt: skip
def test_and_on_no_other(address: str) -> None:
    assert not is_private(address)


# -- found ---------------------------------------------------------------------------------------------------------

LAN = {"lo": ["127.0.0.1", "::1"], "eth0": ["192.168.1.5", "fe80::5"], "docker0": ["172.17.0.1"]}


@pytest.mark.parametrize("name", ["zt5u4yabcd", "wg0", "tailscale0"])
def test_the_only_private_overlay_is_the_one(name: str) -> None:
    state = find(LAN | {name: ["10.1.2.3", "fd00::3"]})
    assert (state.address, state.interface, state.problem) == ("10.1.2.3", name, None)
    assert name in state.why


def test_a_lan_is_not_taken_for_an_overlay() -> None:
    state = find(LAN)
    assert state.address is None
    assert state.problem is not None
    assert state.problem.code == "overlay-unknown"
    assert "no private overlay" in state.problem.cause
    assert '[overlay] kind = "static"' in state.problem.hint


def test_of_two_overlays_a_person_chooses() -> None:
    state = find({"wg0": ["10.1.2.3"], "zt1": ["10.2.0.1"]})
    assert state.address is None
    assert state.problem is not None
    assert "several private overlays: wg0 (10.1.2.3), zt1 (10.2.0.1)" in state.problem.cause


def test_an_overlay_without_a_private_address_is_none() -> None:
    assert find({"wg0": ["8.8.8.8", "fe80::1"]}).address is None
    assert find({"wg0": []}).address is None
    assert find({"wg0": ["8.8.8.8"], "zt1": ["10.2.0.1"]}).address == "10.2.0.1"


@pytest.mark.parametrize("name", ["wlan0", "eth0zt", "awg0", "br-wg"])
def test_a_name_that_only_sounds_like_it_is_none(name: str) -> None:
    assert find({name: ["10.1.2.3"]}).address is None


# -- named ---------------------------------------------------------------------------------------------------------


def test_an_interface_gives_its_private_address() -> None:
    state = of_interface("eth0", {"eth0": ["8.8.8.8", "192.168.1.5", "fd00::5"]})
    assert (state.address, state.interface, state.problem) == ("192.168.1.5", "eth0", None)


@pytest.mark.parametrize(
    ("table", "cause"),
    [
        ({}, "there is no such interface"),
        ({"wg0": []}, "it has no private address (it has none)"),
        ({"wg0": ["8.8.8.8", "fe80::1"]}, "it has no private address (it has 8.8.8.8, fe80::1)"),
    ],
)
def test_an_interface_that_cannot_be_used_is_told_with_its_cause(
    table: dict[str, list[str]], cause: str
) -> None:
    state = of_interface("wg0", table)
    assert state.address is None
    assert state.problem is not None
    assert (state.problem.code, state.problem.cause) == ("overlay-down", cause)
    assert state.problem.hint == "bring it up (ip link set wg0 up, wg-quick up wg0); see: ip addr show wg0"


# -- on this machine -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "127.11.3.2"])
def test_what_can_be_bound_is_here_though_no_interface_lists_it(address: str) -> None:
    assert on_this_machine(address)


@pytest.mark.parametrize("address", [NOT_HERE, "2001:db8::1"])
def test_what_cannot_be_bound_is_not_here(address: str) -> None:
    assert not on_this_machine(address)


def test_the_interfaces_are_listed_with_version_4_first_and_without_zones() -> None:
    table = addresses()
    assert table["lo"][0] == "127.0.0.1"
    for found in table.values():
        assert not any("%" in address for address in found)
        families = [":" in address for address in found]
        assert families == sorted(families)


def test_a_configured_address_that_is_here_is_used() -> None:
    state = look(config.Overlay(kind="static", address="127.11.3.2"))
    assert (state.address, state.problem) == ("127.11.3.2", None)
    assert state.why


def test_a_configured_address_that_is_gone_is_down_and_not_given_out() -> None:
    state = look(config.Overlay(kind="static", address="10.255.255.254"))
    assert state.address is None
    assert state.problem is not None
    assert state.problem.code == "overlay-down"
    assert "10.255.255.254 is not on this machine" in state.problem.title


def test_a_configured_interface_is_looked_up() -> None:
    state = look(config.Overlay(kind="static", interface="lo"))
    assert (state.address, state.interface) == ("127.0.0.1", "lo")


def test_looking_leaves_the_port_free() -> None:
    assert on_this_machine("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)):
        pass
