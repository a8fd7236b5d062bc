"""Builds the control API. What the daemon needs of it is a field of `Control`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshd.cluster.wiring import EngineRoom
from meshd.component import Component, Stop, StopPhase
from meshd.config import Config
from meshd.control.access import Gatekeeper
from meshd.control.doctor import DoctorApi
from meshd.control.mesh import MeshApi
from meshd.control.pins import PinsApi
from meshd.control.requests import RequestsApi
from meshd.control.routes import scraped, table
from meshd.control.server import ControlServer, whole
from meshd.control.status import StatusApi, StatusDeps
from meshd.health.wiring import Health
from meshd.joining import Joining
from meshd.leaving import Leaving
from meshd.mesh.approval import Approval
from meshd.mesh.wiring import Mesh
from meshd.operations.registry import Operations
from meshd.overlay.monitor import Overlay
from meshd.pins.wiring import Pins


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlDeps:
    """The dependencies of the handlers, all in rooms below."""

    config: Config
    overlay: Overlay
    engine_room: EngineRoom
    mesh: Mesh
    pins: Pins
    health: Health
    approval: Approval
    joining: Joining
    leaving: Leaving
    operations: Operations


class Control:
    """The handlers, their routes, and the server on the Unix socket."""

    def __init__(self, deps: ControlDeps) -> None:
        mesh, pins, health, services = deps.mesh, deps.pins, deps.health, deps.engine_room.services
        engines = deps.engine_room.engines
        self.status = StatusApi(
            StatusDeps(
                config=deps.config,
                overlay=deps.overlay,
                services=services,
                kubo=deps.engine_room.kubo,
                versions=lambda: engines.versions,
                store=mesh.store,
                secret_store=mesh.secret_store,
                membership=mesh.membership,
                peer_states=mesh.heartbeats.states,
                pins=pins,
                readiness=health.readiness,
                board=health.board,
                notices=health.notices,
            )
        )
        self._routes = table(
            self.status,
            MeshApi(
                joining=deps.joining,
                store=mesh.store,
                status=self.status,
                leaving=deps.leaving,
                admin=mesh.admin,
                seeds=mesh.seeds,
                operations=deps.operations,
            ),
            RequestsApi(lambda: deps.approval, mesh.admin),
            PinsApi(pins.catalogue, pins.pinner, pins.content, pins.remover, deps.operations),
            DoctorApi(health.doctor),
        )
        by_token = deps.config.metrics.peer_token_file is not None
        self._scraped = (scraped(self.status),) if by_token else ()
        keeper = Gatekeeper(deps.config.control, services.pids, services.in_a_group)
        self.server = ControlServer(deps.config.control_socket, keeper)

    def serve(self, components: Iterable[Component]) -> None:
        """Add the routes of all components, and that of the OpenAPI document."""
        self.server.serve(whole(route for component in components for route in component.routes))

    def component(self) -> Component:
        """This room as a component."""
        return Component(
            name="control",
            routes=tuple(self._routes),
            peer_routes=self._scraped,
            start=(self.server.start,),
            stops=(Stop("the control socket", StopPhase.REQUESTS, self.server.stop),),
        )
