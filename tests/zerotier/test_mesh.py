"""Machines that share no LAN: a mesh over ZeroTier as people make it, lose it and get it back."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guards import lives_on
from tests.mesh.pairing import until
from tests.zerotier import namespaces
from tests.zerotier.central import FakeCentral
from tests.zerotier.meshes import ELSEWHERE, Standing, random_file, running, standing
from tests.zerotier.wiretap import Contact
from tests.zerotier.world import NEEDS_WORLD

__all__ = ["standing"]
pytestmark = NEEDS_WORLD

GONE_S = 15.0
"""So long after it was taken away a member may still serve."""
lives_on.append(running)


@pytest.fixture(autouse=True)
def nobody_else_is_contacted(standing: Standing) -> Iterator[None]:
    """Whatever a test is about: while it ran, nobody spoke to anybody off the overlay."""
    before = len(standing.off_the_overlay())
    yield
    standing.close_beside()
    standing.mend()
    found = standing.off_the_overlay()[before:]
    assert not found, "somebody off the overlay was contacted:\n" + "\n".join(found)


# -- a mesh comes about ------------------------------------------------------------------------------------------------


def test_three_machines_become_a_mesh_by_a_network_and_two_approvals(
    standing: Standing, tmp_path: Path
) -> None:
    typed = [line.split("$ meshctl ")[1].split()[0] for line, _ in standing.built]
    assert typed == ["init", "requests", "approve", "approve", "join", "requests", "approve", "join"]
    assert [answer.code for _, answer in standing.built] == [0, 0, 2, 0, 0, 0, 0, 0]
    printed = [answer.out for _, answer in standing.built]
    assert "This node, attic, is the first of the mesh archive." in printed[0]
    for number, node in ((4, standing[1]), (7, standing[2])):
        assert f"on a member type: meshctl approve {node.place.address}" in printed[number]
        assert f"This node, {node.name}, joined the mesh archive, which has" in printed[number]
        assert re.search(
            rf"{node.place.address} +\S+ +the network", printed[number - 3 if number == 4 else number - 2]
        )
    entry = standing[2].pin(random_file(tmp_path, "minutes.txt"))
    assert entry["held"] == 3
    for node in standing.nodes:
        node.until_held_by("minutes.txt", {"attic", "barn", "cellar"})


def test_a_connection_off_the_overlay_would_be_seen(standing: Standing) -> None:
    """So that the other tests' silence means something: each way out of a machine is heard."""
    namespace = standing.spare.namespace

    def speak() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        made.connect_ex(("198.51.100.7", 443))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"?", ("198.51.100.8", 53))
            udp.sendto(b"?", ("127.0.0.53", 53))
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"?", ("2001:db8::9", 53))
        return made

    wanted = {
        f"{namespace}: tcp 198.51.100.7 443 over lan0",
        f"{namespace}: udp 198.51.100.8 53 over lan0",
        f"{namespace}: udp 127.0.0.53 53 over lo",
        f"{namespace}: udp 2001:db8::9 53 over lan0",
    }
    with namespaces._inside(namespace, speak):
        until(lambda: wanted <= set(standing.off_the_overlay()), "all of it is heard", 10)
    standing.forget_contacts(standing.spare)


# -- what was given is taken away, and given back -------------------------------------------------------------------------


def test_a_member_that_is_put_off_the_network_serves_nowhere_until_it_is_let_in_again(
    standing: Standing, tmp_path: Path
) -> None:
    attic, cellar = standing[0], standing[2]
    address = cellar.place.address
    assert cellar.listens() >= {f"10.144.0.3:{port}" for port in (4001, 9096, 4010)}
    standing.world.deauthorize(standing.network, cellar.place)
    until(lambda: not cellar.listens(), "nothing of cellar listens", GONE_S)
    cellar.holds("zerotier-denied")
    said = cellar.do("status").out
    assert "error: this machine is not authorized on the ZeroTier network meshlab" in said
    assert f"its ZeroTier address is {address}" in said
    assert f"try: on attic, the network's controller, type: meshctl approve {address}" in said
    assert not cellar.ready()
    assert cellar.peers()["cellar"]["address"] == ""

    meanwhile = attic.meshctl("pin", random_file(tmp_path, "while-cellar-was-out"))
    assert meanwhile.code == 6, meanwhile
    until(
        lambda: attic.holders("while-cellar-was-out") == {"attic", "barn"}, "both that are there hold it", 60
    )
    assert re.search(rf"{address} +cellar, a member \(\S+\) +the network", attic.do("requests").out)
    until(  # the controller is asked about those that are away, every two seconds
        lambda: "it is not authorized on the ZeroTier network" in attic.holds("peer-away")["cause"],
        "attic says why cellar is away",
        20,
    )
    assert f"meshctl approve {address}" in attic.holds("peer-away")["hint"]
    approved = attic.do("approve", address)
    assert "cellar is a member, and may be on the network now." in approved.out
    standing.whole()
    until(
        lambda: attic.holders("while-cellar-was-out") == {"attic", "barn", "cellar"},
        "what was pinned meanwhile has its third copy",
        60,
    )
    until(  # the conditions are looked at every two seconds
        lambda: not any(c["severity"] == "error" for c in cellar.status()["conditions"]),
        "cellar has no error any more",
        20,
    )


def test_a_member_whose_address_changes_is_found_at_the_new_one(standing: Standing, tmp_path: Path) -> None:
    attic, barn = standing[0], standing[1]
    before = barn.status()["overlay"]["address"]
    barn.pin(random_file(tmp_path, "before-the-move"))
    standing.world.move(standing.network, barn.place, "10.144.0.77")
    until(lambda: barn.status()["overlay"]["address"] == "10.144.0.77", "barn has moved", GONE_S)
    until(
        lambda: not any(before in line for line in barn.listens()), "nothing is left at the old one", GONE_S
    )
    for node in standing.nodes:
        until(lambda node=node: node.peers()["barn"]["address"] == "10.144.0.77", f"{node} knows it", 40)
    standing.whole()
    assert {line for line in barn.listens() if line.startswith("10.144.0.77:")} >= {
        f"10.144.0.77:{port}" for port in (4001, 9096, 4010)
    }
    assert attic.pin(random_file(tmp_path, "after-the-move"))["held"] == 3
    for node in standing.nodes:
        node.until_held_by("before-the-move", {"attic", "barn", "cellar"})
    assert barn.place.on_interfaces() >= {"10.144.0.77/24"}


# -- the service ------------------------------------------------------------------------------------------------------------


def test_a_member_whose_service_is_stopped_says_so_and_is_back_when_it_is_started(standing: Standing) -> None:
    barn = standing[1]
    barn.place.stop()
    until(lambda: not barn.listens(), "nothing of barn listens", GONE_S)
    barn.holds("zerotier-not-running")
    said = barn.do("status").out
    assert "error: cannot ask ZeroTier One" in said
    assert "its service does not answer at http://127.0.0.1:9993: Connect" in said
    assert "try: sudo systemctl enable --now zerotier-one" in said
    barn.place.start()
    standing.whole()
    until(lambda: "zerotier-not-running" not in barn.conditions(), "nothing is said of it any more", 10)


def test_a_token_that_the_service_does_not_take_is_told_and_nothing_stops(standing: Standing) -> None:
    """The address is there still, so the mesh goes on; only what ZeroTier would say is not known."""
    barn = standing[1]
    token = barn.place.home / "authtoken.secret"
    token.write_text("x" * 24)
    barn.holds("zerotier-token")
    said = barn.do("status").out
    assert "warning: cannot ask ZeroTier One" in said
    assert f"it does not take the token in {token}" in said
    assert "try: sudo systemctl restart zerotier-one" in said
    assert "xxxx" not in said + barn.log.read_text()
    assert barn.ready()
    barn.place.stop()
    barn.place.start()  # which is what was said: it reads the token when it starts
    until(lambda: "zerotier-token" not in barn.conditions(), "it is understood again", 20)
    standing.whole()


NOBODY = 65534


def test_a_token_that_may_not_be_read_is_told_with_how_to_let_meshd_read_it(standing: Standing) -> None:
    dairy = standing.beside(kind="zerotier", user=NOBODY)
    said = dairy.do("status").out
    home = standing.spare.home
    assert f"error: cannot read ZeroTier's token {home}/authtoken.secret" in said
    assert "user nobody may not read it" in said
    hint = re.search(r"give it a copy: sudo (install .*?); then", said)
    assert hint is not None, said
    copy = dairy.folder / "zerotier.token"  # as typed, but that the machine's own /etc stays as it is
    words = hint.group(1).replace("/etc/meshd/zerotier.token", str(copy)).split()
    assert words[:6] == ["install", "-D", "-m", "0400", "-o", "nobody"]
    subprocess.run(words, check=True, timeout=20)
    dairy.stop()
    dairy.configure(kind="zerotier", service={"token_file": str(copy)})
    dairy.start()
    dairy.holds("zerotier-none")
    assert "zerotier-token" not in dairy.conditions()


def test_a_machine_without_zerotier_is_told_where_to_get_it(standing: Standing) -> None:
    dairy = standing.beside(kind="zerotier", service={"home": "/var/lib/zerotier-is-not-here"})
    said = dairy.do("status").out
    assert "error: cannot use ZeroTier: it is not installed" in said
    assert "there is no /var/lib/zerotier-is-not-here" in said
    assert "https://www.zerotier.com/download" in said
    joined = dairy.meshctl("join", standing.network, "--yes")
    assert joined.code == 1
    assert "cannot use ZeroTier: it is not installed" in joined.err


def test_of_several_networks_a_person_names_one(standing: Standing) -> None:
    other = standing.world.make_network(name="other", **ELSEWHERE)
    dairy = standing.beside(
        kind="zerotier", networks=[{"id": n, "auto_join": True} for n in (standing.network, other)]
    )
    assert dairy.holds("zerotier-several")["severity"] == "error"
    said = dairy.do("status").out
    assert standing.network in said
    assert other in said
    assert (
        "try: join the mesh on one: meshctl join ID; or begin a mesh on it: meshctl init --network ID" in said
    )
    standing.world.authorize(other, standing.spare)
    dairy.do("init", "--network", other)
    until(lambda: "zerotier-several" not in dairy.conditions(), "nothing is said of it any more", 10)
    assert dairy.status()["overlay"]["network"] == other


# -- joining, when it does not go well ------------------------------------------------------------------------------------


def test_a_network_that_nobody_knows_is_given_up_soon_and_left_again(standing: Standing) -> None:
    dairy = standing.beside()
    nowhere = f"{standing.world.places[0].address}0000fe"
    answer = dairy.meshctl("join", nowhere, "--yes", timeout=40)
    assert answer.code == 4
    assert f"there is no ZeroTier network {nowhere}" in answer.err
    assert "its controller does not know it: the id is wrong, or the network was deleted" in answer.err
    assert "this machine has left it again" in answer.err
    assert f"then again: meshctl join {nowhere}" in answer.err
    assert standing.spare.devices() == {"zt0", "lan0", "lan0x"}  # as before: on no network
    assert dairy.status()["mesh"] is None


def test_waiting_for_approval_can_be_interrupted_and_taken_up_again(standing: Standing) -> None:
    dairy = standing.beside()
    joining = standing.type(dairy, "join", standing.network)
    joining.shows(f"meshctl approve {standing.spare.address}")
    joining.interrupt()
    answer = joining.end()
    assert answer.code == 130
    assert "cannot tell whether this node joined" in answer.out
    until(lambda: dairy.status()["mesh"] is None, "it is in no mesh", 5)
    standing.world.authorize(standing.network, standing.spare)
    again = standing.type(dairy, "join", standing.network)
    again.shows(r"must show this code:\n\s+\d{4} \d{4} \d{4}")
    asking = standing[0].asked_by(dairy)
    again.interrupt()
    assert again.end().code == 130
    for node in standing.nodes:  # who is not there any more is not asked about
        until(
            lambda node=node: asking["id"] not in [r["id"] for r in node.requests()], f"{node} forgets it", 10
        )


def test_a_node_that_is_denied_is_told_so(standing: Standing) -> None:
    dairy = standing.beside()
    standing.world.authorize(standing.network, standing.spare)
    joining = standing.type(dairy, "join", standing.network)
    for node in standing.nodes:
        asking = node.asked_by(dairy)
        denied = node.do("requests", "--deny", asking["id"])
        assert "dairy was told no, and may not ask again for ten minutes." in denied.out
    answer = joining.end()
    assert answer.code == 5
    assert "cannot join: a member denied this node" in answer.out
    assert "ask the people of the mesh why; ten minutes after that it may ask again" in answer.out
    assert dairy.status()["mesh"] is None


def test_a_network_without_a_mesh_is_searched_until_there_is_one(standing: Standing) -> None:
    empty = standing.world.make_network(name="empty", **ELSEWHERE)
    standing.world.authorize(empty, standing.spare)
    dairy = standing.beside()
    joining = standing.type(dairy, "join", empty)
    joining.shows("looking for members of a mesh on it")
    shown = joining.shows("no member of a mesh has answered there yet.*", 60).group()
    assert "meshctl init --network" in shown
    assert joining.process.poll() is None
    joining.interrupt()
    assert joining.end().code == 130


# -- invites and leaving ---------------------------------------------------------------------------------------------------


def test_who_is_invited_by_its_zerotier_address_needs_no_approval_and_can_leave_the_network(
    standing: Standing,
) -> None:
    dairy, attic = standing.beside(), standing[0]
    made = attic.do("invite", "--for", standing.spare.address)
    assert f"{standing.spare.address} is authorized on the network {standing.network}" in made.err
    joined = dairy.do("join", made.out.strip())
    assert "joined the mesh archive, which has 4 members now" in joined.out
    assert attic.requests() == []
    left = dairy.do("leave", "--yes", "--network")
    assert f"left the ZeroTier network {standing.network}" in left.err + left.out
    until(lambda: standing.spare.devices() == {"zt0", "lan0", "lan0x"}, "its interface is gone", 10)
    for node in standing.nodes:
        until(lambda node=node: set(node.peers()) == set(standing.names()), f"{node} knows that it left", 20)
    standing.whole()


def test_who_has_an_invite_waits_only_until_somebody_lets_it_onto_the_network(standing: Standing) -> None:
    dairy, attic = standing.beside(), standing[0]
    made = attic.do("invite")
    assert "meshctl approve ADDRESS" in made.err
    joining = standing.type(dairy, "join", made.out.strip())
    joining.shows(f"meshctl approve {standing.spare.address}")
    approved = attic.do("approve", standing.spare.address)
    assert "dairy is a member, and may be on the network now." in approved.out
    assert "joined the mesh archive, which has 4 members now" in joining.end().out
    dairy.do("leave", "--yes", "--network")
    for node in standing.nodes:
        until(lambda node=node: set(node.peers()) == set(standing.names()), f"{node} knows that it left", 20)


def test_where_a_central_is_configured_it_is_asked_and_nobody_else(
    standing: Standing, tmp_path: Path
) -> None:
    """The API's token never passes the command line, and goes to the configured host alone."""
    central = FakeCentral(standing.world.planet, namespace=standing.spare.namespace)
    central.start()
    try:
        token = tmp_path / "central.token"
        token.write_text(central.token)
        network = central.make_network(**ELSEWHERE)
        standing.world.authorize(network, standing.spare)
        admin = {"admin": "central", "admin_token_file": str(token), "admin_url": central.url("v1")}
        dairy = standing.beside(networks=[{"id": network, **admin}])
        api = Contact("tcp", "127.0.0.1", int(central.url("v1").split(":")[2].split("/")[0]))
        standing.hosts.add(api)
        dairy.do("init", "--network", network)
        made = dairy.do("invite", "--for", "1234567890")
        assert f"1234567890 is authorized on the network {network}" in made.err
        assert standing.world.planet.member(network, "1234567890")["authorized"] is True
        assert "Nobody asks to be let in." in dairy.do("requests").err
        assert api in standing.contacts(standing.spare)
        assert central.token not in dairy.log.read_text()
    finally:
        central.stop()
