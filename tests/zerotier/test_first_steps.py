"""What somebody sees who has ZeroTier, has just installed meshd, and types the first thing that comes to mind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mesh.pairing import until
from tests.zerotier.nodes import Typing, ZeroTierNode
from tests.zerotier.world import NEEDS_WORLD, Place, World, make_world

__all__ = ["make_world"]
pytestmark = NEEDS_WORLD


@pytest.fixture
def start() -> Iterator[Callable[..., ZeroTierNode]]:
    """Nodes for one test. Name it behind `make_world`."""
    made: list[ZeroTierNode] = []

    def begin(place: Place, name: str, *, engines: Path | None = None) -> ZeroTierNode:
        node = ZeroTierNode(place, name)
        made.append(node)
        if engines is not None:
            lines = node.config.read_text().splitlines()
            kept = [f'engines = "{engines}"' if line.startswith("engines = ") else line for line in lines]
            node.config.write_text("\n".join(kept))
        node.start()
        return node

    yield begin
    for node in made:
        node.close()


def test_the_first_machine_lets_itself_onto_the_network_that_it_controls(
    make_world: Callable[..., World], start: Callable[..., ZeroTierNode]
) -> None:
    """Nobody else could: there is no member yet. And then it says how the next one comes."""
    world = make_world(2)
    network = world.make_network()
    attic = start(world.places[0], "attic")
    attic.holds("zerotier-none")
    said = attic.do("status").out
    assert "mesh     none yet   (meshctl join ID, or meshctl init --network ID)" in said
    assert (
        "try: join the mesh on one: meshctl join ID; or begin a mesh on it: meshctl init --network ID" in said
    )

    made = attic.do("init", "--network", network, "--name", "archive")
    assert f"this machine is the network's controller: authorizing itself, {attic.place.address}" in made.err
    assert "is not authorized" not in made.err
    assert f"To admit the next node, type on it: meshctl join {network}" in made.err

    barn = start(world.places[1], "barn")
    joining = Typing(barn, ("join", network))
    try:
        joining.shows(f"meshctl approve {barn.place.address}")
        joining.interrupt()
        assert f"sudo zerotier-cli leave {network}" in joining.end().out
    finally:
        joining.close()
    waits = attic.asked_by(barn, stage="network")
    assert waits["since"] > 0
    assert waits["address"], "from where ZeroTier reaches it"


def test_a_machine_without_the_programs_joins_no_network_and_nobody_is_asked_to_let_it_in(
    make_world: Callable[..., World], start: Callable[..., ZeroTierNode], tmp_path: Path
) -> None:
    world = make_world(1)
    network = world.make_network()
    dairy = start(world.places[0], "dairy", engines=tmp_path)
    assert dairy.holds("engine-missing")["severity"] == "error"
    said = dairy.do("status").out
    assert "error: cannot find ipfs, since" in said
    assert f"it is not in {tmp_path}" in said
    answer = dairy.meshctl("join", network, "--yes")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("meshctl: cannot find ipfs: it is not in ")
    assert dairy.place.devices() == {"zt0"}, "it is on no network"
    assert world.planet.members(network) == []
    doctor = dairy.meshctl("doctor")
    assert "not seen: mesh: this node is in a mesh\n" in doctor.out
    assert "found: no mesh yet" in doctor.out
    assert ": kubo: " not in doctor.out
    (tmp_path / "ipfs").symlink_to(tmp_path / "closed")
    until(
        lambda: dairy.conditions()["engine-missing"]["title"] == "cannot run ipfs",
        "it is looked for again",
        30,
    )
