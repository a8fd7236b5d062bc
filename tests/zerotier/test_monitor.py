"""Following ZeroTier as it changes: joined, refused, moved, stopped, started, with another token. Nobody need be root."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from pathlib import Path

import pytest

from meshd.config import Overlay as Config
from meshd.config.zerotier import ZeroTier as ServiceConfig
from meshd.model import Severity
from meshd.overlay import monitor
from meshd.overlay.monitor import MeshOnOverlay, Overlay
from meshd.overlay.zerotier import ZeroTier
from tests.waiting import until
from tests.zerotier.bench import AGAIN_S, LOADING_S, POOL, QUICK_S, QUIET_S, Bench, bench
from tests.zerotier.membership import device_name
from tests.zerotier.planet import new_address

__all__ = ["bench"]


async def on_network(bench: Bench, address: str = f"{POOL}.5") -> str:
    """A mesh's network, joined and followed, served on `address`."""
    network = bench.make_network()
    bench.let_in(network, address)
    bench.wanted = network
    bench.follows()
    await bench.client.join(network)
    await bench.serves_on(address)
    bench.told.clear()
    return network


# -- how often -----------------------------------------------------------------------------------------------------------


async def test_it_looks_often_while_something_is_awaited_and_seldom_when_all_is_quiet(bench: Bench) -> None:
    network = bench.make_network()
    overlay = bench.follows()
    await until(lambda: len(bench.told) >= 3)
    quiet = [b[0] - a[0] for a, b in zip(bench.told, bench.told[1:], strict=False)]
    assert min(quiet) >= QUIET_S * 0.95
    with overlay.choosing(network):
        before = len(bench.told)
        await until(lambda: len(bench.told) >= before + 4)
        often = bench.told[before:]
        assert min(b[0] - a[0] for a, b in itertools.pairwise(often)) < QUIET_S / 2
    at = len(bench.told)
    await until(lambda: len(bench.told) >= at + 3)
    assert (
        max(b[0] - a[0] for a, b in zip(bench.told[at:], bench.told[at + 1 :], strict=False))
        >= QUIET_S * 0.95
    )


async def test_a_choice_is_looked_at_without_waiting_for_the_next_quiet_look(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "QUIET_S", 3600.0)
    network = bench.make_network()
    bench.let_in(network, f"{POOL}.5")
    overlay = bench.follows()
    await bench.client.join(network)
    await until(lambda: len(bench.told) == 1)
    with overlay.choosing(network):
        await bench.serves_on(f"{POOL}.5")


async def test_a_look_that_goes_wrong_is_not_the_last(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await on_network(bench)

    def broken() -> dict[str, list[str]]:
        raise RuntimeError("the kernel is odd today")

    with monkeypatch.context() as patched:
        patched.setattr(monitor, "addresses", broken)
        at = len(bench.told)
        nobody_sets_it = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(nobody_sets_it.wait(), 3 * QUIET_S)
        assert len(bench.told) <= at + 1
    await bench.serves_on(f"{POOL}.5")


# -- membership and addresses ----------------------------------------------------------------------------------------------


async def test_membership_that_is_taken_away_and_given_back_is_followed(bench: Bench) -> None:
    """The address stays on the interface all the while, as it does with the real one."""
    network = await on_network(bench)
    bench.put_out(network)
    await bench.says("zerotier-denied")
    assert bench.now.address is None
    assert bench.now.network_status == "ACCESS_DENIED"
    assert bench.kernel[device_name(network)] == [f"{POOL}.5"]
    bench.give(network, f"{POOL}.5")
    await bench.serves_on(f"{POOL}.5")


async def test_a_changed_address_is_followed_once_the_interface_has_it(bench: Bench) -> None:
    network = await on_network(bench)
    bench.give(network, f"{POOL}.9")
    await bench.says("overlay-down")
    assert bench.now.address is None
    bench.kernel[device_name(network)] = [f"{POOL}.5", f"{POOL}.9"]  # the old one may stay
    await bench.serves_on(f"{POOL}.9")


async def test_an_address_on_the_interface_that_cannot_be_bound_is_not_served_on(
    bench: Bench,
) -> None:
    network = await on_network(bench)
    bench.let_in(network, "10.231.77.9")
    await until(lambda: bench.now.problem is not None and bench.now.address is None)
    assert "10.231.77.9" in str(bench.now.problem)


async def test_a_network_that_was_left_by_hand_is_told_after_a_second_look(bench: Bench) -> None:
    network = await on_network(bench)
    await bench.client.leave(network)
    await until(lambda: bench.code == "zerotier-starting")
    began = time.monotonic()
    await bench.says("zerotier-left")
    assert time.monotonic() - began >= LOADING_S - QUIET_S
    assert bench.now.address is None
    await bench.client.join(network)
    await bench.serves_on(f"{POOL}.5")


# -- the service -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_", range(3))
async def test_a_restart_of_the_service_is_not_taken_for_leaving(bench: Bench, round_: int) -> None:
    """It answers before it knows its networks. While the address is there, nothing that serves on it need stop."""
    network = await on_network(bench)
    await bench.service.stop()
    await bench.says("zerotier-not-running")
    assert bench.now.problem is not None
    assert bench.now.problem.severity is Severity.WARNING
    await bench.service.start(0)
    bench.told.clear()
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(monitor, "QUIET_S", QUICK_S)
        await bench.serves_on(f"{POOL}.5")
    seen = {state.problem.code for _, state in bench.told if state.problem}
    assert seen <= {"zerotier-not-running", "zerotier-starting", "zerotier-waiting"}
    assert {state.address for _, state in bench.told} == {f"{POOL}.5"}
    assert bench.now.network == network


async def test_a_service_that_takes_the_interface_with_it_leaves_nothing_to_serve_on(bench: Bench) -> None:
    network = await on_network(bench)
    await bench.service.stop()
    there = bench.kernel.pop(device_name(network))
    await until(lambda: bench.code == "zerotier-not-running" and bench.now.address is None)
    assert bench.now.problem is not None
    assert bench.now.problem.severity is Severity.ERROR
    await bench.service.start(0)
    bench.kernel[device_name(network)] = there
    await bench.serves_on(f"{POOL}.5")


async def test_another_token_is_told_until_the_service_is_started_again(bench: Bench) -> None:
    await on_network(bench)
    token = bench.service.home / "authtoken.secret"
    token.write_text("x" * 24)
    await bench.says("zerotier-token")
    problem = bench.now.problem
    assert problem is not None
    assert problem.severity is Severity.WARNING  # the address is there
    assert str(token) in problem.cause
    assert problem.hint == "sudo systemctl restart zerotier-one"
    await bench.service.stop()
    await bench.service.start(0)
    await bench.serves_on(f"{POOL}.5")


async def test_where_the_token_was_handed_over_it_is_meshd_that_must_be_started_again(
    bench: Bench, tmp_path: Path
) -> None:
    """systemd hands a copy over at the start: nothing that happens to the file later changes it."""
    bench.environment["CREDENTIALS_DIRECTORY"] = str(tmp_path)
    token = (bench.service.home / "authtoken.secret").read_text()
    (tmp_path / "zerotier.token").write_text(token)
    await on_network(bench)
    (bench.service.home / "authtoken.secret").unlink()
    await bench.service.stop()
    await bench.service.start(0)  # with a new token
    await bench.says("zerotier-token")
    assert bench.now.problem is not None
    assert bench.now.problem.hint.startswith("sudo systemctl restart meshd")
    (tmp_path / "zerotier.token").write_text((bench.service.home / "authtoken.secret").read_text())
    await bench.serves_on(f"{POOL}.5")


async def test_a_configured_copy_of_the_token_is_told_how_to_make_anew(bench: Bench, tmp_path: Path) -> None:
    copy = tmp_path / "zerotier.token"
    copy.write_text("stale")
    bench.follows(token_file=str(copy))
    await bench.says("zerotier-token")
    assert bench.now.problem is not None
    assert f"{bench.service.home}/authtoken.secret {copy}" in bench.now.problem.hint
    copy.unlink()
    await until(lambda: bench.now.problem is not None and "no such file" in bench.now.problem.cause)
    copy.write_bytes(b"\xff\xfe")
    await until(lambda: bench.now.problem is not None and "no token stands" in bench.now.problem.cause)
    copy.write_text((bench.service.home / "authtoken.secret").read_text())
    await bench.says("zerotier-none")


@pytest.mark.parametrize("home", ["a" * 300, "/nonexistent", "/dev/null"])
async def test_a_home_where_nothing_can_be_looked_for_is_no_mistake(bench: Bench, home: str) -> None:
    """As with a service's user, whose HOME may be somebody else's folder."""
    bench.environment["HOME"] = home
    (bench.service.home / "authtoken.secret").unlink()
    bench.follows()
    await bench.says("zerotier-token")


async def test_the_token_in_one_s_own_home_will_do(bench: Bench, tmp_path: Path) -> None:
    """Where ZeroTier's own command line looks too."""
    bench.environment["HOME"] = str(tmp_path)
    (bench.service.home / "authtoken.secret").rename(tmp_path / ".zeroTierOneAuthToken")
    bench.follows()
    await bench.says("zerotier-none")


async def test_a_machine_without_zerotier_is_told_so(bench: Bench, tmp_path: Path) -> None:
    config = Config.model_validate({"kind": "zerotier", "zerotier": {"home": str(tmp_path / "not-here")}})
    overlay = Overlay(config, ZeroTier(config.zerotier, lambda _: None))
    found = await overlay.look()
    assert found.problem is not None
    assert found.problem.code == "zerotier-not-installed"
    assert str(tmp_path / "not-here") in found.problem.cause


# -- several networks --------------------------------------------------------------------------------------------------------


async def test_networks_with_auto_join_are_joined_and_joined_again_when_they_were_left(bench: Bench) -> None:
    first, second, third = (bench.make_network(name=n) for n in ("one", "two", "three"))
    overlay = bench.follows(
        [
            {"id": first, "auto_join": True},
            {"id": second, "auto_join": True},
            {"id": third},
        ]
    )

    async def joined() -> set[str]:
        return {n.id for n in await bench.client.networks()}

    async def both() -> bool:
        return await joined() == {first, second}

    await until(both)
    assert overlay.network == ""
    await bench.says("zerotier-several")
    await bench.client.leave(second)
    await until(both)
    bench.let_in(second, f"{POOL}.5")
    bench.wanted = second  # a mesh was begun on it
    await bench.serves_on(f"{POOL}.5")
    assert overlay.network == second
    assert third not in await joined()


async def test_a_network_is_not_joined_again_at_every_look(bench: Bench) -> None:
    """Where somebody else leaves it again and again, he and meshd need not race."""
    network = bench.make_network()
    bench.follows([{"id": network, "auto_join": True}])

    async def there() -> bool:
        return await bench.client.network(network) is not None

    await until(there)
    at = time.monotonic()
    await bench.client.leave(network)
    await until(there)
    assert time.monotonic() - at >= AGAIN_S - QUIET_S


async def test_the_only_configured_network_is_the_one_to_be_on(bench: Bench) -> None:
    network, other = bench.make_network(name="one"), bench.make_network(name="two")
    bench.let_in(network, f"{POOL}.5")
    overlay = bench.follows([{"id": network, "auto_join": True}])
    await bench.client.join(other)
    assert overlay.network == network
    await bench.serves_on(f"{POOL}.5")


async def test_the_mesh_s_network_comes_before_one_that_is_being_chosen_and_that_before_a_configured_one(
    bench: Bench,
) -> None:
    mesh, chosen, configured = ("8056c2e21c00000" + n for n in "123")
    overlay = bench.follows([{"id": configured}])
    assert overlay.network == configured
    with overlay.choosing(chosen):
        assert overlay.network == chosen
        bench.wanted = mesh
        assert overlay.network == mesh
    bench.wanted = ""
    assert overlay.network == configured


def test_with_kind_auto_zerotier_is_asked_only_where_it_was_chosen() -> None:
    overlay = Overlay(Config(), ZeroTier(ServiceConfig(), lambda _: None))
    assert overlay.kind == "auto"
    with overlay.choosing("8056c2e21c000001"):
        assert overlay.kind == "zerotier"
    assert overlay.kind == "auto"
    overlay.mesh = MeshOnOverlay(True, "8056c2e21c000001")
    assert overlay.kind == "zerotier"
    configured = Config.model_validate({"zerotier": {"networks": [{"id": "8056c2e21c000001"}]}})
    assert Overlay(configured, ZeroTier(ServiceConfig(), lambda _: None)).kind == "zerotier"


async def test_how_nodes_are_reached_is_told_and_a_service_that_is_down_tells_nothing(bench: Bench) -> None:
    await on_network(bench)
    overlay = Overlay(
        Config.model_validate({"kind": "zerotier", "zerotier": {"home": str(bench.service.home)}}),
        bench.client,
    )
    bench.planet.here("1111111111", "10.0.0.9/9993")
    bench.planet.moon = "1111111111"
    assert (await overlay.ways())["1111111111"].direct
    bench.planet.relayed.add("1111111111")
    assert not (await overlay.ways())["1111111111"].direct
    await bench.service.stop()
    assert await overlay.ways() == {}


# -- the first look of a machine that has no mesh ------------------------------------------------------------------------

BEGIN = "meshctl join ID; or begin a mesh on it: meshctl init --network ID"


async def test_a_machine_that_runs_zerotier_and_has_no_mesh_is_told_the_two_commands(bench: Bench) -> None:
    """Nothing is configured: this is what everybody sees first."""
    bench.follows(kind="auto")
    await bench.says("zerotier-none")
    assert bench.now.problem is not None
    assert BEGIN in bench.now.problem.hint
    assert "another private network" in bench.now.problem.hint
    assert bench.now.node == bench.service.address
    assert bench.now.address is None


async def test_one_whose_token_may_not_be_read_is_told_that_at_first(bench: Bench) -> None:
    token = bench.service.home / "authtoken.secret"
    token.unlink()
    token.mkdir()  # root reads what it likes
    bench.follows(kind="auto")
    await bench.says("zerotier-token")
    assert bench.now.problem is not None
    assert str(token) in bench.now.problem.title
    assert "no WireGuard or Tailscale" in bench.now.problem.cause


async def test_one_that_waits_to_be_authorized_is_told_so_at_first(bench: Bench) -> None:
    network = bench.planet.make_network(new_address(), {"private": True, "name": "lab"})["id"]
    bench.planet.hosted.add(network[:10])
    bench.follows(kind="auto")
    await bench.client.join(network)
    await bench.says("zerotier-denied")
    assert bench.now.problem is not None
    assert f"meshctl approve {bench.service.address}" in bench.now.problem.hint


async def test_of_two_other_overlays_a_person_still_chooses_and_zerotier_is_named(bench: Bench) -> None:
    bench.kernel = {"wg0": ["10.1.2.3"], "tailscale0": ["100.64.0.9"]}
    bench.follows(kind="auto")
    await bench.says("overlay-unknown")
    assert bench.now.problem is not None
    assert "several private overlays" in bench.now.problem.cause
    assert BEGIN in bench.now.problem.hint


async def test_a_member_whose_wireguard_is_down_is_not_sent_to_zerotier(bench: Bench) -> None:
    """Its mesh is on no ZeroTier network."""
    bench.members = {"": "attic"}
    bench.follows(kind="auto")
    await bench.says("overlay-unknown")
    assert bench.now.problem is not None
    assert "meshctl join ID" not in bench.now.problem.hint


async def test_where_there_is_no_zerotier_it_is_not_asked_for(bench: Bench) -> None:
    bench.follows(kind="auto", home=str(bench.folder / "not-here"))
    await bench.says("overlay-unknown")
    assert bench.now.problem is not None
    assert "meshctl join ID" not in bench.now.problem.hint


async def test_another_private_network_that_is_up_is_taken_without_asking_zerotier(bench: Bench) -> None:
    bench.kernel = {"wg0": ["127.78.0.9"]}
    bench.follows(kind="auto")
    await bench.serves_on("127.78.0.9")


# -- who lets it in ------------------------------------------------------------------------------------------------------


async def test_a_member_that_was_put_off_is_told_at_which_member_it_is_let_in(bench: Bench) -> None:
    """A network's id begins with the address of its controller, which is a member here."""
    controller = new_address()
    network = bench.planet.make_network(controller, {"private": True, "name": "lab"})["id"]
    bench.planet.hosted.add(controller)
    bench.wanted = network
    bench.members = {controller: "attic"}
    bench.follows()
    await bench.client.join(network)
    await bench.says("zerotier-denied")
    assert bench.now.problem is not None
    assert bench.now.problem.hint == (
        f"on attic, the network's controller, type: meshctl approve {bench.service.address}"
    )


async def test_the_controller_itself_is_told_to_let_itself_in(bench: Bench) -> None:
    network = bench.make_network()
    bench.wanted = network
    bench.follows()
    await bench.client.join(network)
    await bench.says("zerotier-denied")
    assert bench.now.problem is not None
    assert f"lets itself in: meshctl init --network {network}" in bench.now.problem.hint
    bench.members = {bench.service.address: "attic"}
    await until(
        lambda: (
            bench.now.problem is not None
            and f"type here: meshctl approve {bench.service.address}" in bench.now.problem.hint
        )
    )
