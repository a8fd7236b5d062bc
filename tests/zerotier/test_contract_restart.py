"""What a ZeroTier service knows after it was stopped and started: the same of the fake one and of the real one."""

from __future__ import annotations

import pytest

from tests.zerotier.lab import SOON_S, Lab

pytestmark = pytest.mark.timeout(300)


async def test_a_restart_forgets_nothing(own_lab: Lab) -> None:
    """With its controller away it is as it was last; what happened meanwhile it hears when it can."""
    controller, machine = own_lab.machines
    network = await own_lab.make_network()
    ok = await own_lab.let_in(network, machine)
    token = machine.token
    await machine.stop()
    assert (machine.home / "zerotier-one.port").read_text().isdigit()  # both stay where they are
    assert machine.token == token
    if machine.has_interfaces:
        assert ok.device not in machine.devices()

    await controller.stop()
    await machine.start()
    again = await machine.says(network, "OK", SOON_S)
    assert (again.addresses, again.device, again.name) == (ok.addresses, ok.device, ok.name)
    await machine.has_on_interface(ok.device, ok.addresses)
    other = f"{controller.address}0000ff"
    assert (await machine.join(other)).status == "REQUESTING_CONFIGURATION"

    await machine.stop()
    await controller.start()
    await own_lab.change_member(network, machine, authorized=False)
    await machine.start()
    out = await machine.says(network, "ACCESS_DENIED", SOON_S)
    assert out.addresses == ok.addresses
    await machine.says(other, "NOT_FOUND", SOON_S)
    await own_lab.change_member(network, machine, authorized=True)
    await machine.says(network, "OK", SOON_S)


async def test_a_token_that_was_changed_is_taken_after_a_restart(own_lab: Lab) -> None:
    machine = own_lab.controller
    before = machine.token
    (machine.home / "authtoken.secret").write_text("x" * 24)
    assert (await machine.ask("GET", "/status")).code == 401
    assert (await machine.ask("GET", "/status", token=before)).code == 200
    await machine.stop()
    await machine.start()
    assert (await machine.ask("GET", "/status", token=before)).code == 401
    assert (await machine.ask("GET", "/status", token="x" * 24)).code == 200
    await machine.stop()
    (machine.home / "authtoken.secret").unlink()
    await machine.start()
    assert len(machine.token) == 24
    assert (machine.home / "authtoken.secret").stat().st_mode & 0o777 == 0o600
