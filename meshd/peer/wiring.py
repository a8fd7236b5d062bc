"""Builds the peer API, and says of it what the daemon must know."""

from __future__ import annotations

from meshd.component import Component, Stop, StopPhase
from meshd.conditions import FactSource
from meshd.mesh.wiring import Mesh
from meshd.peer.health import CHECKS, PeerFacts
from meshd.peer.server import PeerServer
from meshd.pins.wiring import Pins


def server(mesh: Mesh, pins: Pins) -> PeerServer:
    """The listener for the other nodes; it does not listen yet."""
    return PeerServer(
        mesh.identity,
        mesh.store,
        mesh.secret_store.load,
        pins.peer_backend,
        on_joined=lambda _: mesh.heartbeats.poke(),
        on_heartbeat=mesh.heartbeats.heard,
        count_entries=pins.catalogue.count,
    )


def component(made: PeerServer) -> Component:
    """What it says of itself. The reconciler has it listen, on the address that there is."""

    def asking() -> tuple[tuple[str, str, str], ...]:
        return tuple((r.id, r.name, r.address) for r in made.approval.views())

    return Component(
        name="peer",
        stops=(Stop("the peer API", StopPhase.LISTENERS, made.stop),),
        facts=(FactSource(PeerFacts, {"asking": asking}),),
        checks=CHECKS,
    )
