"""What ZeroTier One's local API answers, and when: the same of the fake one and of the real one.

Through the client where meshd asks it, over plain HTTP where the shape matters. The real one is slow in one thing: it
asks anew only each minute, so who was let in hears late that he is out.
"""

from __future__ import annotations

import ipaddress
import time

import pytest

from tests.waiting import until
from tests.zerotier import shapes
from tests.zerotier.lab import SOON_S, Lab
from tests.zerotier.world import POOL

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
NOWHERE = "1234567890000001"  # its controller does not exist


# -- who it is ---------------------------------------------------------------------------------------------------------


async def test_it_says_who_it_is(lab: Lab) -> None:
    machine = lab.machines[1]
    answer = await machine.ask("GET", "/status")
    assert (answer.code, answer.content_type) == (200, "application/json")
    assert shapes.shape(answer.body) == shapes.STATUS
    assert shapes.shape(answer.body["config"]["settings"]) == shapes.SETTINGS
    assert answer.body["address"] == machine.address == await machine.status()


async def test_it_is_online_soon_after_the_start(lab: Lab) -> None:
    client = lab.machines[1].client()

    async def online() -> bool:
        return (await client.status()).online

    await until(online, SOON_S)
    await client.close()


@pytest.mark.parametrize("path", ["/status", "/network", "/controller", "/no-such-thing"])
@pytest.mark.parametrize("token", ["", "wrong"])
async def test_a_wrong_token_opens_nothing(lab: Lab, path: str, token: str) -> None:
    answer = await lab.controller.ask("GET", path, token=token)
    assert tuple(answer) == (401, "application/json", {})


# -- what is not joined -------------------------------------------------------------------------------------------------


async def test_a_network_that_was_never_joined_is_not_there(lab: Lab) -> None:
    machine = lab.machines[1]
    assert tuple(await machine.ask("GET", "/network/8056c2e21c0000fe")) == (404, "application/json", {})
    assert tuple(await machine.ask("DELETE", "/network/8056c2e21c0000fe")) == (200, "application/json", {})
    assert await machine.network("8056c2e21c0000fe") is None
    assert await machine.leave("8056c2e21c0000fe") is False


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_what_is_no_network_id_is_not_found(lab: Lab, method: str) -> None:
    assert tuple(await lab.machines[1].ask(method, "/network/xyz", {})) == (404, "", None)


async def test_a_network_is_asked_for_until_its_controller_answers(lab: Lab) -> None:
    """And one that its controller does not know is said to be none."""
    machine, unknown = lab.machines[1], f"{lab.controller.address}0000ff"
    answer = await machine.ask("POST", f"/network/{NOWHERE}", {})
    assert (answer.code, shapes.shape(answer.body)) == (200, shapes.NETWORK)
    assert answer.body["status"] == "REQUESTING_CONFIGURATION"
    await machine.join(unknown)
    found = await machine.says(unknown, "NOT_FOUND", SOON_S)
    assert found.addresses == []
    still = await machine.network(NOWHERE)
    assert still is not None
    assert (still.status, still.addresses, still.name) == ("REQUESTING_CONFIGURATION", [], "")
    assert await machine.leave(NOWHERE)
    assert await machine.leave(unknown)


# -- in and out ---------------------------------------------------------------------------------------------------------


async def test_a_member_is_let_in(lab: Lab) -> None:
    network, machine = await lab.make_network(), lab.machines[1]
    joined = await machine.join(network)
    assert (joined.id, joined.status) == (network, "REQUESTING_CONFIGURATION")
    denied = await machine.says(network, "ACCESS_DENIED", SOON_S)
    assert (denied.addresses, denied.routes, denied.name) == ([], [], "")
    asked = await lab.controller.ask("GET", f"/controller/network/{network}/member/{machine.address}")
    assert asked.body["authorized"] is False
    assert asked.body["identity"].startswith(machine.address)

    await lab.change_member(network, machine, authorized=True)
    ok = await machine.says(network, "OK", SOON_S)
    assert ok.name == "meshlab"
    assert [(route.target, route.via) for route in ok.routes] == [(f"{POOL}.0/24", None)]
    (address,) = ok.addresses
    assert ipaddress.ip_interface(address).network == ipaddress.ip_network(f"{POOL}.0/24")
    assert ok.device.startswith("zt")
    await machine.has_on_interface(ok.device, ok.addresses)

    answer = await machine.ask("GET", f"/network/{network}")
    assert shapes.shape(answer.body) == shapes.NETWORK
    assert answer.body in (await machine.ask("GET", "/network")).body
    told = await lab.controller.ask("GET", f"/controller/network/{network}/member/{machine.address}")
    assert told.body["ipAssignments"] == [address.split("/")[0]]
    await machine.leave(network)


async def test_a_member_may_be_authorized_before_it_asks(lab: Lab) -> None:
    network, machine = await lab.make_network(), lab.machines[2]
    said = await lab.change_member(network, machine, authorized=True)
    assert said["authorized"] is True
    assert said["ipAssignments"] == []
    assert "identity" not in said
    await machine.join(network)
    assert len((await machine.says(network, "OK", SOON_S)).addresses) == 1
    await machine.leave(network)


async def test_who_is_out_hears_of_it_late_and_keeps_the_addresses(lab: Lab) -> None:
    network, machine = await lab.make_network(), lab.machines[1]
    began = time.monotonic()  # not after it was let in: the time to the next asking began when it was
    ok = await lab.let_in(network, machine)
    await lab.change_member(network, machine, authorized=False)
    told = await lab.controller.ask("GET", f"/controller/network/{network}/member/{machine.address}")
    assert told.body["authorized"] is False
    assert told.body["lastDeauthorizedTime"] > told.body["lastAuthorizedTime"]
    out = await machine.says(network, "ACCESS_DENIED", lab.refresh_s + SOON_S)
    assert time.monotonic() - began > lab.refresh_s / 2  # a controller sends no refusal unasked
    assert (out.addresses, out.name) == (ok.addresses, ok.name)
    await machine.has_on_interface(ok.device, ok.addresses, seconds=1)

    await lab.change_member(network, machine, authorized=True)
    again = await machine.says(network, "OK", SOON_S)
    assert again.addresses == ok.addresses
    await machine.leave(network)


async def test_a_controller_hears_at_once_that_it_is_out_itself(lab: Lab) -> None:
    network = await lab.make_network()
    ok = await lab.let_in(network, lab.controller)
    await lab.change_member(network, lab.controller, authorized=False)
    out = await lab.controller.says(network, "ACCESS_DENIED", 2)
    assert out.addresses == ok.addresses
    await lab.controller.leave(network)


async def test_joining_twice_is_joining_once(lab: Lab) -> None:
    network, machine = await lab.make_network(), lab.machines[1]
    ok = await lab.let_in(network, machine)
    again = await machine.join(network)
    assert (again.status, again.addresses, again.device) == (ok.status, ok.addresses, ok.device)
    await machine.leave(network)


async def test_leaving_twice_is_leaving_once(lab: Lab) -> None:
    """And the network can be joined again, with the address and the interface of before."""
    network, machine = await lab.make_network(), lab.machines[1]
    ok = await lab.let_in(network, machine)
    assert tuple(await machine.ask("DELETE", f"/network/{network}")) == (
        200,
        "application/json",
        {"result": True},
    )
    assert await machine.network(network) is None
    if machine.has_interfaces:
        await until(lambda: ok.device not in machine.devices(), SOON_S)
    assert await machine.leave(network) is False

    assert (await machine.join(network)).device == ok.device
    again = await machine.says(network, "OK", SOON_S)
    assert again.addresses == ok.addresses
    await machine.has_on_interface(ok.device, ok.addresses)
    await machine.leave(network)


async def test_a_body_that_is_no_json_is_passed_over(lab: Lab) -> None:
    """Also where it joins."""
    network, machine = await lab.make_network(), lab.machines[1]
    for _ in range(2):
        answer = await machine.ask("POST", f"/network/{network}", b"{nonsense")
        assert (answer.code, answer.body["id"]) == (200, network)
    assert (await machine.ask("GET", f"/network/{network.upper()}")).body["id"] == network
    await machine.leave(network)


async def test_a_network_open_to_all_asks_nobody(lab: Lab) -> None:
    network, machine = await lab.make_network(private=False), lab.machines[1]
    await machine.join(network)
    await machine.says(network, "OK", SOON_S)
    assert (await machine.ask("GET", f"/network/{network}")).body["type"] == "PUBLIC"
    await machine.leave(network)


# -- addresses ----------------------------------------------------------------------------------------------------------


async def test_a_changed_address_takes_the_place_of_the_old_one(lab: Lab) -> None:
    network, machine = await lab.make_network(), lab.machines[1]
    ok = await lab.let_in(network, machine)
    await machine.has_on_interface(ok.device, ok.addresses)
    # The service takes for true for a second what it last saw on its interface, and would leave the old one there.
    seen = time.monotonic()
    await until(lambda: time.monotonic() > seen + 1.5)
    await lab.change_member(network, machine, ipAssignments=[f"{POOL}.200"])

    async def moved() -> bool:
        now = await machine.network(network)
        return now is not None and now.addresses == [f"{POOL}.200/24"]

    await until(moved, SOON_S)
    await machine.has_on_interface(ok.device, [f"{POOL}.200/24"])
    await machine.leave(network)


async def test_with_rfc4193_the_address_follows_from_the_ids(lab: Lab) -> None:
    network, machine = await lab.make_network(v6AssignMode={"rfc4193": True}), lab.machines[2]
    ok = await lab.let_in(network, machine)
    mine = ipaddress.IPv6Address(bytes.fromhex(f"fd{network}9993{machine.address}"))
    v4 = [address for address in ok.addresses if ":" not in address]
    assert len(v4) == 1
    assert set(ok.addresses) == {f"{mine}/88", *v4}
    await machine.has_on_interface(ok.device, ok.addresses)
    await machine.leave(network)


async def test_a_member_may_have_two_addresses_or_none(lab: Lab) -> None:
    network, machine = await lab.make_network(ipAssignmentPools=[]), lab.machines[2]
    assert (await lab.let_in(network, machine)).addresses == []
    await lab.change_member(network, machine, ipAssignments=[f"{POOL}.201", f"{POOL}.7"])

    async def both() -> bool:
        now = await machine.network(network)
        return now is not None and set(now.addresses) == {f"{POOL}.201/24", f"{POOL}.7/24"}

    await until(both, SOON_S)
    await machine.leave(network)


# -- peers --------------------------------------------------------------------------------------------------------------


async def test_the_controller_is_a_peer_with_a_path_of_its_own(lab: Lab) -> None:
    machine = lab.machines[1]
    client = machine.client()

    async def direct() -> bool:
        return any(peer.direct for peer in await client.peers() if peer.address == lab.controller.address)

    await until(direct, SOON_S)
    (found,) = [peer for peer in await client.peers() if peer.address == lab.controller.address]
    assert found.role == "MOON"
    assert found.latency >= 0
    assert not any(peer.direct for peer in await client.peers() if peer.role == "PLANET")
    await client.close()
    for peer in (await machine.ask("GET", "/peer")).body:
        assert shapes.shape(peer) == shapes.PEER
        assert [shapes.shape(path) for path in peer["paths"]] == [shapes.PATH] * len(peer["paths"])


# -- the controller's side ----------------------------------------------------------------------------------------------


async def test_the_controller_shows_its_networks_and_members(lab: Lab) -> None:
    controller, machine = lab.controller, lab.machines[1]
    network = await lab.make_network()
    assert network.startswith(controller.address)
    assert shapes.shape((await controller.ask("GET", "/controller")).body) == shapes.CONTROLLER
    assert network in (await controller.ask("GET", "/controller/network")).body
    shown = await controller.ask("GET", f"/controller/network/{network}")
    assert shapes.shape(shown.body) == shapes.CONTROLLED_NETWORK
    await lab.let_in(network, machine)
    member = await controller.ask("GET", f"/controller/network/{network}/member/{machine.address}")
    assert shapes.shape(member.body) == shapes.MEMBER
    listed = await controller.ask("GET", f"/controller/network/{network}/member")
    assert listed.body == {machine.address: member.body["revision"]}
    every = await controller.ask("GET", f"/unstable/controller/network/{network}/member")
    assert every.body == {"data": [member.body], "meta": {"authorizedCount": 1, "totalCount": 1}}
    await machine.leave(network)


async def test_what_the_controller_does_not_know_it_says_without_a_word(lab: Lab) -> None:
    controller, network = lab.controller, await lab.make_network()
    unknown = f"/controller/network/{controller.address}0000fe"
    nothing = (404, "", None)
    assert tuple(await controller.ask("GET", unknown)) == nothing
    assert tuple(await controller.ask("GET", f"{unknown}/member")) == nothing
    assert (
        tuple(await controller.ask("POST", f"{unknown}/member/1234567890", {"authorized": True})) == nothing
    )
    assert tuple(await controller.ask("GET", f"/controller/network/{network}/member/1234567890")) == nothing
    assert tuple(await controller.ask("GET", f"/controller/network/{network}/member/nobody")) == nothing
    assert tuple(await controller.ask("POST", "/controller/network/1234567890______", {})) == (400, "", None)


async def test_a_controller_refuses_what_is_no_json(lab: Lab) -> None:
    network = await lab.make_network()
    for path in (f"/controller/network/{network}", f"/controller/network/{network}/member/1234567890"):
        answer = await lab.controller.ask("POST", path, b"{nonsense")
        assert (answer.code, answer.body["error"]) == (500, 500)
