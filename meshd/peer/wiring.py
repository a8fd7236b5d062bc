"""Builds the peer API, and says of it what the daemon must know."""

from __future__ import annotations

from collections.abc import Iterable

from meshd.component import Component, Stop, StopPhase
from meshd.conditions import FactSource
from meshd.config import Config
from meshd.mesh.approval import Approval
from meshd.mesh.wiring import Mesh
from meshd.peer.asking import Asking
from meshd.peer.health import CHECKS, PeerFacts
from meshd.peer.nonces import Nonces
from meshd.peer.routes import table
from meshd.peer.server import PeerServer
from meshd.peer.strangers import Strangers
from meshd.peer.welcome import Welcome
from meshd.pins.wiring import Pins
from meshd.wire import Member


class Peer:
    """The listener for the other nodes, which does not listen yet, and what this room answers to strangers.

    approval: the requests to join without an invite, which people answer.
    """

    def __init__(self, config: Config, mesh: Mesh, pins: Pins) -> None:
        secrets = mesh.secret_store.load

        def on_joined(_: Member) -> None:
            mesh.heartbeats.poke()

        self.approval = Approval(mesh.store, secrets, on_joined=on_joined)
        welcome = Welcome(mesh.store, secrets, pins.catalogue.count)
        self._routes = table(
            Strangers(mesh.store, welcome, Nonces(), on_joined), Asking(self.approval, welcome, Nonces())
        )
        self.server = PeerServer(mesh.identity, mesh.store, token_file=config.metrics.peer_token_file)

    def serve(self, components: Iterable[Component]) -> None:
        """Answer what all of them answer to other nodes."""
        self.server.serve(route for component in components for route in component.peer_routes)

    def component(self) -> Component:
        """What it says of itself. The reconciler has it listen, on the address that there is."""
        return Component(
            name="peer",
            stops=(Stop("the peer API", StopPhase.LISTENERS, self.server.stop),),
            peer_routes=self._routes,
            facts=(FactSource(PeerFacts, {"asking": self._asking}),),
            checks=CHECKS,
        )

    def _asking(self) -> tuple[tuple[str, str, str], ...]:
        return tuple((r.id, r.name, r.address) for r in self.approval.views())
