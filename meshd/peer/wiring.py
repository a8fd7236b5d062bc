"""Builds the peer API, and declares it as a component."""

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
    """The peer API with its routes for strangers. It does not listen yet.

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
        """Add the peer routes of all components."""
        self.server.serve(route for component in components for route in component.peer_routes)

    def component(self) -> Component:
        """This room as a component. The reconciler starts the listener, on the current address."""
        return Component(
            name="peer",
            stops=(Stop("the peer API", StopPhase.LISTENERS, self.server.stop),),
            peer_routes=self._routes,
            facts=(FactSource(PeerFacts, {"asking": self._asking}),),
            checks=CHECKS,
        )

    def _asking(self) -> tuple[tuple[str, str, str], ...]:
        return tuple((r.id, r.name, r.address) for r in self.approval.views())
