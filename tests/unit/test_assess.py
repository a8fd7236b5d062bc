"""What ZeroTier says of a network, as one fact: an address to serve on, or what is wrong and what to type."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from meshctl.render import safe
from meshd.model import OverlayState, Severity
from meshd.overlay.assess import REQUESTING_TOO_LONG_S, Seen, assess
from meshd.overlay.zerotier import Network, Route, ZeroTierError

ID, OTHER = "8056c2e21c000001", "8056c2e21c000002"
NODE = "a1b2c3d4e5"
DEVICE = "zt5u4yabcd"
V4, V6 = "10.144.0.7", "fd80:56c2:e21c:0:199:93a1:b2c3:d4e5"
NOTHING = OverlayState()


def network(status: str = "OK", addresses: tuple[str, ...] = (f"{V4}/24",), **more: Any) -> Network:
    return Network.model_validate(
        {
            "id": ID,
            "name": "meshlab",
            "status": status,
            "assignedAddresses": list(addresses),
            "portDeviceName": DEVICE,
            **more,
        }
    )


def look(
    *networks: Network, on: tuple[str, ...] = (V4,), before: OverlayState = NOTHING, **more: Any
) -> OverlayState:
    """A look by a node whose mesh is on ID. on: what the kernel has on the interface."""
    seen = Seen(
        **{"wanted": ID, "networks": networks, "node": NODE, "interfaces": {"lo": ["127.0.0.1"], DEVICE: on}}
        | more
    )
    return assess(seen, before)


def problem(state: OverlayState, code: str, severity: Severity = Severity.ERROR) -> str:
    """All that a person reads of it, in one line."""
    assert state.problem is not None
    assert (state.problem.code, state.problem.severity) == (code, severity)
    assert state.problem.title
    assert state.problem.hint
    return f"{state.problem.title} | {state.problem.cause} | {state.problem.hint}"


# -- an address ----------------------------------------------------------------------------------------------------------


def test_an_address_that_is_assigned_and_on_the_interface_is_the_one() -> None:
    state = look(network())
    assert (state.address, state.interface, state.problem) == (V4, DEVICE, None)
    assert (state.network, state.network_status, state.node) == (ID, "OK", NODE)
    assert state.why == f"ZeroTier network {ID} (meshlab)"


def test_a_network_without_a_name_goes_by_its_id() -> None:
    assert look(network(name="")).why == f"ZeroTier network {ID}"
    assert f"the ZeroTier network {ID}" in problem(look(network("ACCESS_DENIED", name="")), "zerotier-denied")


@pytest.mark.parametrize("order", [(f"{V4}/24", f"{V6}/88"), (f"{V6}/88", f"{V4}/24")])
def test_ipv4_comes_first_in_whatever_order_they_are_said(order: tuple[str, ...]) -> None:
    assert look(network(addresses=order), on=(V6, V4)).address == V4


def test_ipv6_alone_will_do() -> None:
    assert look(network(addresses=(f"{V6}/88",)), on=(V6,)).address == V6


def test_the_address_of_before_stays_while_it_is_assigned() -> None:
    before = look(network())
    now = look(network(addresses=("10.144.0.3/24", f"{V4}/24")), on=("10.144.0.3", V4), before=before)
    assert now.address == V4


def test_the_address_of_before_is_given_up_when_it_is_assigned_no_more() -> None:
    """Also where it still is on the interface, as it may be for good."""
    before = look(network())
    now = look(network(addresses=("10.144.0.3/24",)), on=(V4, "10.144.0.3"), before=before)
    assert now.address == "10.144.0.3"


def test_the_address_of_before_is_given_up_when_the_interface_has_lost_it() -> None:
    now = look(network(addresses=(f"{V4}/24", f"{V6}/88")), on=(V6,), before=look(network()))
    assert now.address == V6


def test_an_address_on_another_interface_is_not_taken() -> None:
    state = look(network(), interfaces={DEVICE: [], "eth0": [V4]})
    assert state.address is None
    problem(state, "overlay-down")


def test_only_the_private_one_of_two_is_taken() -> None:
    state = look(network(addresses=("8.8.4.4/24", f"{V4}/24")), on=("8.8.4.4", V4))
    assert state.address == V4


def test_what_is_no_address_is_passed_over() -> None:
    assert look(network(addresses=("nonsense", "", "10.1.2.3/99", f"{V4}/24"))).address == V4


def test_while_the_service_asks_anew_what_it_remembers_is_good() -> None:
    state = look(network("REQUESTING_CONFIGURATION"))
    assert (state.address, state.problem) == (V4, None)


# -- refusals ------------------------------------------------------------------------------------------------------------

LOGIN = "https://login.example/start?x=1"
REFUSALS = [
    (
        "ACCESS_DENIED",
        "zerotier-denied",
        ["not authorized on the ZeroTier network meshlab", NODE, f"meshctl approve {NODE}", "admin page"],
    ),
    ("NOT_FOUND", "zerotier-not-found", [f"no ZeroTier network {ID}", f"zerotier-cli leave {ID}"]),
    ("PORT_ERROR", "zerotier-port-error", ["meshlab", "/dev/net/tun", "sudo modprobe tun"]),
    ("CLIENT_TOO_OLD", "zerotier-too-old", ["meshlab", "https://www.zerotier.com/download"]),
    ("AUTHENTICATION_REQUIRED", "zerotier-login", ["meshlab", "single sign-on", LOGIN]),
]


@pytest.mark.parametrize(("status", "code", "words"), REFUSALS, ids=[r[0] for r in REFUSALS])
@pytest.mark.parametrize("listed", [(), (f"{V4}/24",)], ids=["never let in", "let in before"])
def test_a_refusal_gives_no_address_even_where_one_is_listed_and_on_the_interface(
    status: str, code: str, words: list[str], listed: tuple[str, ...]
) -> None:
    state = look(network(status, listed, authenticationURL=LOGIN), before=look(network()))
    assert state.address is None
    assert (state.network, state.network_status, state.node) == (ID, status, NODE)
    said = problem(state, code)
    for word in words:
        assert word in said


def test_without_a_url_the_login_is_told_with_where_to_find_it() -> None:
    assert "zerotier-cli listnetworks" in problem(look(network("AUTHENTICATION_REQUIRED")), "zerotier-login")


# -- no address ----------------------------------------------------------------------------------------------------------


def test_a_member_without_an_address_is_told_where_they_are_given() -> None:
    said = problem(look(network(addresses=())), "zerotier-no-address")
    assert "the ZeroTier network meshlab gives this machine no address" in said
    assert "IPv4 auto-assign" in said
    assert NODE in said


def test_a_public_address_is_told_and_not_served_on() -> None:
    state = look(network(addresses=("8.8.4.4/24",)), on=("8.8.4.4",))
    assert state.address is None
    said = problem(state, "zerotier-no-address")
    assert "no private address" in said
    assert "8.8.4.4/24" in said
    assert "10.x.x.x" in said


def test_an_address_that_never_came_to_the_interface_is_told_with_how_to_get_it_there() -> None:
    state = look(network(), on=())
    assert state.address is None
    said = problem(state, "overlay-down")
    assert f"is not on {DEVICE}" in said
    assert f"{V4}/24" in said
    assert "sudo systemctl restart zerotier-one" in said


@pytest.mark.parametrize("status", ["REQUESTING_CONFIGURATION", ""])
def test_a_configuration_that_is_asked_for_is_waited_for(status: str) -> None:
    state = look(network(status, ()), requesting_s=REQUESTING_TOO_LONG_S - 1)
    assert "wait a moment" in problem(state, "zerotier-waiting", Severity.WARNING)


def test_a_controller_that_does_not_answer_is_told_with_the_id() -> None:
    said = problem(look(network("REQUESTING_CONFIGURATION", ()), requesting_s=75), "zerotier-waiting")
    assert "for 75 s now" in said
    assert f"sudo zerotier-cli get {ID} status" in said


def test_a_machine_that_reaches_no_server_is_told_to_look_at_its_way_out() -> None:
    state = look(network("REQUESTING_CONFIGURATION", ()), requesting_s=75, online=False)
    said = problem(state, "zerotier-waiting")
    assert "none of ZeroTier's servers" in said
    assert "UDP" in said
    assert "zerotier-cli info" in said


def test_a_status_that_nobody_knows_is_waited_for_and_gives_no_address_by_itself() -> None:
    state = look(network("SOMETHING_NEW", ()), requesting_s=75)
    assert state.address is None
    assert state.problem is not None


# -- which network -------------------------------------------------------------------------------------------------------


def test_the_mesh_has_one_network_and_others_do_not_matter() -> None:
    other = network("ACCESS_DENIED", (), id=OTHER, portDeviceName="ztother")
    assert look(other, network()).address == V4


def test_a_network_that_was_left_is_told_with_how_to_join_it_again() -> None:
    other = network(id=OTHER, portDeviceName="ztother")
    for networks, where in (((), "it is on none"), ((other,), f"it is on {OTHER}")):
        state = look(*networks, before=look(network()))
        assert state.address is None
        assert (state.network, state.node) == (ID, NODE)
        said = problem(state, "zerotier-left")
        assert where in said
        assert f"not on the network {ID}" in said
        assert f"sudo zerotier-cli join {ID}" in said
        assert "auto_join = true" in said


def test_the_only_network_is_the_one_where_none_was_chosen() -> None:
    state = look(network(), wanted="")
    assert (state.address, state.network) == (V4, ID)


def test_of_several_a_person_chooses() -> None:
    other = network(id=OTHER, name="", portDeviceName="ztother")
    state = look(network(), other, wanted="")
    assert state.address is None
    said = problem(state, "zerotier-several")
    assert f"{ID} (meshlab), {OTHER}" in said
    assert "meshctl init --network ID" in said
    assert "meshctl join ID" in said


def test_on_no_network_it_is_told_how_to_join_one() -> None:
    said = problem(look(wanted=""), "zerotier-none")
    assert "ZeroTier One runs, and has joined none" in said
    assert "meshctl join ID" in said


# -- the service cannot be asked -----------------------------------------------------------------------------------------

DOWN = ZeroTierError(
    "zerotier-not-running", "cannot ask ZeroTier One", "it does not answer", "systemctl start it"
)


def test_a_service_that_cannot_be_asked_is_a_warning_while_the_address_is_there() -> None:
    before = look(network())
    state = look(error=DOWN, before=before)
    assert (state.address, state.interface, state.why) == (V4, DEVICE, before.why)
    assert (state.network, state.node) == (ID, NODE)
    said = problem(state, "zerotier-not-running", Severity.WARNING)
    assert said == "cannot ask ZeroTier One | it does not answer | systemctl start it"


@pytest.mark.parametrize("interfaces", [{DEVICE: []}, {}, {"eth0": [V4]}])
def test_a_service_that_is_gone_with_its_interface_leaves_no_address(
    interfaces: dict[str, list[str]],
) -> None:
    state = look(error=DOWN, before=look(network()), interfaces=interfaces)
    assert (state.address, state.interface) == (None, "")
    problem(state, "zerotier-not-running")


def test_a_service_that_could_never_be_asked_leaves_no_address() -> None:
    state = look(error=DOWN)
    assert state.address is None
    problem(state, "zerotier-not-running")


def test_an_address_that_was_taken_away_does_not_come_back_because_the_service_stops() -> None:
    denied = look(network("ACCESS_DENIED"), before=look(network()))
    state = look(error=DOWN, before=denied)
    assert state.address is None
    problem(state, "zerotier-not-running")


def test_the_mesh_s_network_is_known_also_while_it_cannot_be_asked() -> None:
    state = look(error=DOWN, before=replace(look(network()), network=""))
    assert state.network == ID


# -- whatever is said ------------------------------------------------------------------------------------------------------

BARE = st.sampled_from([V4, "10.144.0.9", V6, "8.8.4.4", "169.254.1.1", "nonsense", ""])
STATUSES = st.sampled_from([*(r[0] for r in REFUSALS), "OK", "REQUESTING_CONFIGURATION", "", "SOMETHING_NEW"])


@given(
    status=STATUSES,
    assigned=st.lists(BARE, max_size=3),
    there=st.lists(BARE, max_size=3),
    before=st.sampled_from([None, V4, "10.144.0.9"]),
    wanted=st.sampled_from([ID, ""]),
)
def test_an_address_is_served_on_only_where_all_of_it_holds(
    status: str, assigned: list[str], there: list[str], before: str | None, wanted: str
) -> None:
    """Not refused, assigned, on the interface, private. Otherwise it is said what is wrong."""
    state = look(
        network(status, tuple(f"{a}/24" if a else "" for a in assigned)),
        on=tuple(there),
        before=OverlayState(address=before, interface=DEVICE),
        wanted=wanted,
    )
    good = [a for a in assigned if a in there and a in (V4, "10.144.0.9", V6)]
    if status in {r[0] for r in REFUSALS} or not good:
        assert state.address is None
        assert state.problem is not None
    else:
        assert state.address == (before if before in good else state.address)
        assert state.address in good
        assert state.problem is None


# -- what others named ---------------------------------------------------------------------------------------------------

EVIL = "\x1b]0;owned\x07\x1b[2Jlab\u202e\r\n"


@pytest.mark.parametrize("status", [r[0] for r in REFUSALS] + ["OK"])
def test_a_name_that_would_drive_the_terminal_is_harmless_where_it_is_shown(status: str) -> None:
    """The network's controller chose it, and anybody can be one."""
    state = look(network(status, (), name=EVIL, authenticationURL=f"https://x/{EVIL}"))
    assert state.problem is not None
    for text in (state.why, state.problem.title, state.problem.cause, state.problem.hint):
        assert safe(text).isprintable()


def test_routes_and_the_rest_do_not_matter_to_it() -> None:
    routed = network(routes=[Route(target="0.0.0.0/0", via="10.144.0.1").model_dump()])
    assert look(routed) == look(network())
