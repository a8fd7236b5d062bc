"""The dependencies of the reconciler, all in rooms below: what it observes and acts on."""

from __future__ import annotations

from dataclasses import dataclass

from meshd.cluster.wiring import EngineRoom
from meshd.config import Config
from meshd.health.readiness import Readiness
from meshd.mesh.wiring import Mesh
from meshd.overlay.monitor import Overlay
from meshd.peer.server import PeerServer
from meshd.pins.wiring import Pins
from meshd.systemd import ServiceManager


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcilerDeps:
    """manager: the service manager, notified after each pass."""

    config: Config
    overlay: Overlay
    engine_room: EngineRoom
    mesh: Mesh
    pins: Pins
    readiness: Readiness
    peer_server: PeerServer
    manager: ServiceManager
