"""A standing mesh of three on one fake ZeroTier network, put together by what people type, and machines beside it."""

from __future__ import annotations

import contextlib
import ipaddress
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mesh.nodes import PORTS, Answer
from tests.mesh.pairing import until
from tests.zerotier.controllers import RefusedError
from tests.zerotier.nodes import SERVICE_PORT, Typing, ZeroTierNode
from tests.zerotier.wiretap import Contact, Wiretap
from tests.zerotier.world import POOL, Place, World

_OVERLAY = ipaddress.ip_network(f"{POOL}.0/24")
_OTHER = ipaddress.ip_network(
    "10.145.0.0/28"
)  # the machines have one wire between them, whatever the network
ELSEWHERE: dict[str, Any] = {
    "v4AssignMode": {"zt": True},
    "ipAssignmentPools": [{"ipRangeStart": "10.145.0.1", "ipRangeEnd": "10.145.0.14"}],
    "routes": [{"target": str(_OTHER), "via": None}],
}
"""Settings of a network beside the mesh's."""


class Standing:
    """Four machines: attic, barn and cellar in a mesh, and a spare one that is wiped before each test.

    Each machine has, beside ZeroTier, a default route that leads nowhere, so that every attempt to contact somebody is
    recorded. built: the commands that made it, in order, with their output.
    """

    def __init__(self) -> None:
        self.world = World(4)
        self.network = self.world.make_network()
        self.built: list[tuple[str, Answer]] = []
        self.hosts: set[Contact] = set()
        """APIs that a test has configured."""
        self._typing: list[Typing] = []
        self._beside: list[ZeroTierNode] = []
        self.tap: Wiretap | None = None
        self.nodes = [
            ZeroTierNode(place, name)
            for place, name in zip(self.world.places, ("attic", "barn", "cellar"), strict=False)
        ]

    @property
    def spare(self) -> Place:
        return self.world.places[3]

    def __getitem__(self, number: int) -> ZeroTierNode:
        return self.nodes[number]

    def names(self) -> list[str]:
        return [node.name for node in self.nodes]

    def build(self) -> None:
        """Build the mesh: one node is approved by its code, without a terminal, the other by a person's yes."""
        for place in self.world.places:
            _way_out(place.namespace)
        self.tap = Wiretap([place.namespace for place in self.world.places])
        for node in self.nodes:
            node.begin()
        for node in self.nodes:
            until(node._answers, f"{node} answers on its socket", 60, every=0.05)
        attic, barn, cellar = self.nodes
        self.world.authorize(self.network, attic.place)
        self._do(attic, "init", "--network", self.network, "--name", "archive")
        self._let_in(barn, by_code=True)
        self._let_in(cellar, by_code=False)
        self.whole()

    def _do(self, node: ZeroTierNode, *words: str) -> Answer:
        answer = node.do(*words)
        self.built.append((f"{node.name}$ meshctl {' '.join(words)}", answer))
        return answer

    def _let_in(self, node: ZeroTierNode, *, by_code: bool) -> None:
        attic = self.nodes[0]
        joining = self.type(node, "join", self.network)
        joining.shows(rf"meshctl approve {node.place.address}")
        attic.asked_by(node, stage="network")
        self._do(attic, "requests")
        typed = f"attic$ meshctl approve {node.place.address}"
        if by_code:
            self.built.append((typed, attic.meshctl("approve", node.place.address)))
            shown = joining.shows(r"10\.144\.0\.1:4010 must show this code:\n\s+(\d{4} \d{4} \d{4})").group(1)
            self._do(attic, "approve", node.name, "--code", shown)
        else:
            approving = self.type(attic, "approve", node.place.address)
            shown = approving.shows(r"must show this code:\n\s+(\d{4} \d{4} \d{4})").group(1)
            approving.shows(r"Does the other machine show the same code\?")
            approving.answer("y")
            self.built.append((typed, approving.end()))
        asked = r"Did somebody there tell you its code, and is it (\d{4} \d{4} \d{4})\?"
        while joining.shows(asked).group(1) != shown:  # of another member, which has heard that it was let in
            joining.answer("n")
        joining.answer("y")
        self.built.append((f"{node.name}$ meshctl join {self.network}", joining.end()))

    def whole(self) -> None:
        """Wait until every member is ready and reaches each other one, with no other condition."""
        for node in self.nodes:
            node.reaches(*(set(self.names()) - {node.name}))
            until(
                lambda node=node: node.places() >= len(self.nodes),
                f"{node} knows how much room the others have",
                40,
            )

    def type(self, node: ZeroTierNode, *words: str) -> Typing:
        made = node.type(*words)
        self._typing.append(made)
        return made

    def beside(self, **options: Any) -> ZeroTierNode:
        """A node on the spare machine, started, which has nothing to do with the mesh yet."""
        made = ZeroTierNode(self.spare, "dairy", **options)
        self._beside.append(made)
        made.start()
        return made

    def mend(self) -> None:
        """Repair what a failed test left half-way, so that it does not fail the others."""
        for place in self.world.places:
            if place.process is None:
                place.start()
        for place in self.world.places[:3]:
            self.world.authorize(self.network, place)

    def close_beside(self) -> None:
        """Reset the spare machine: nothing runs, it is on no network, nobody knows it."""
        for typing in self._typing:
            typing.close()
        self._typing.clear()
        for node in self._beside:
            node.close()
        if self._beside:
            self._beside.clear()
            self.spare.stop()
            for kept in (self.spare.home / "networks.d").glob("*.conf"):
                kept.unlink()
            self.spare.start()
        with contextlib.suppress(RefusedError):
            self.world.planet.remove_member(self.network, self.spare.address)

    def off_the_overlay(self) -> list[str]:
        """Contacts of the nodes off the overlay that no test has configured, as text: namespace, target, interface."""
        assert self.tap is not None
        return [
            f"{namespace}: {contact.kind} {contact.address} {contact.port} over {device}"
            for namespace, found in self.tap.contacts.items()
            for contact, device in found.items()
            if not _allowed(contact) and contact not in self.hosts
        ]

    def contacts(self, place: Place) -> set[Contact]:
        """Whom anybody on that machine has contacted."""
        assert self.tap is not None
        return set(self.tap.contacts[place.namespace])

    def forget_contacts(self, place: Place) -> None:
        assert self.tap is not None
        self.tap.contacts[place.namespace].clear()

    def close(self) -> None:
        try:
            self.close_beside()
            for node in self.nodes:
                node.terminate()
            for node in self.nodes:
                node.close()
            if self.tap is not None:
                self.tap.close()
        finally:
            self.world.close()


def _allowed(contact: Contact) -> bool:
    """The service of one's own machine, and the members' ports on the overlay."""
    if contact.kind != "tcp":
        return False
    if contact == Contact("tcp", "127.0.0.1", SERVICE_PORT):
        return True
    address = ipaddress.ip_address(contact.address)
    return (address in _OVERLAY or address in _OTHER) and contact.port in PORTS


def _way_out(namespace: str) -> None:
    """A LAN with a router, as a machine at home has it: what is sent there arrives nowhere, and is heard."""
    for words in (
        "link add lan0 type veth peer name lan0x",
        "link set lan0x up",
        "link set lan0 arp off up",
        "addr add 192.168.77.2/24 dev lan0",
        "route add default via 192.168.77.1 dev lan0",
        "-6 addr add fd77::2/64 dev lan0 nodad",
        "-6 route add default dev lan0",
    ):
        subprocess.run(["ip", "-n", namespace, *words.split()], check=True, capture_output=True, timeout=20)


_STANDING: list[Standing] = []


def running() -> Iterator[int]:
    """Processes that outlive a test on purpose: those of the standing mesh, and the service of each machine."""
    for one in _STANDING:
        owners: list[ZeroTierNode | Place] = [*one.nodes, *one.world.places]
        for owner in owners:
            if owner.process is not None:
                yield owner.process.pid


@pytest.fixture(scope="module")
def standing() -> Iterator[Standing]:
    """For tests that leave the mesh as they found it."""
    made = Standing()
    _STANDING.append(made)
    try:
        made.build()
        yield made
    finally:
        made.close()
        _STANDING.remove(made)


def random_file(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(name.encode() * 5000)
    return path
