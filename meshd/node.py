"""The composition root of one node: its rooms, from the lowest to the highest. lifecycle.py runs and ends it."""

from __future__ import annotations

from meshd import memory
from meshd import metrics as metrics_room
from meshd.cluster.wiring import EngineRoom
from meshd.component import Component, Loop
from meshd.config import Config
from meshd.control.wiring import Control, ControlDeps
from meshd.diagnosis import Diagnosis
from meshd.health.wiring import Health
from meshd.joining import Joining
from meshd.leaving import Cleanup, Leaving
from meshd.mesh.wiring import Mesh
from meshd.operations.registry import FILE, Operations
from meshd.operations.wiring import OperationsRoom
from meshd.overlay import wiring as overlay_room
from meshd.overlay.monitor import Overlay
from meshd.overlay.zerotier import ZeroTier
from meshd.peer.wiring import Peer
from meshd.periodic import TaskGuard
from meshd.pins.wiring import Pins, PinsDeps
from meshd.reconciler import wiring as reconciler_room
from meshd.reconciler.deps import ReconcilerDeps
from meshd.reconciler.loop import Reconciler
from meshd.state_files import Of, StateFile, StateFiles
from meshd.supervise.cgroups import Cgroups
from meshd.systemd import ServiceManager


class Node:
    """All parts that depend on this node's identity. After `leave` another one is built."""

    def __init__(
        self,
        config: Config,
        manager: ServiceManager | None = None,
        groups: Cgroups | None = None,
        operations: Operations | None = None,
    ) -> None:
        """Blocks: reads and creates state. operations: the predecessor's. Raises MeshError BAD_STATE."""
        self.config = config
        self.manager = manager or ServiceManager()
        self.guard = TaskGuard()
        self.state_files = StateFiles(config.state, (StateFile("lock", Of.MACHINE),))
        self.overlay = Overlay(config.overlay, ZeroTier(config.overlay.zerotier))
        self.engine_room = EngineRoom(config, groups)
        self.mesh = Mesh(config, self.overlay, self.engine_room)
        self.pins = Pins(
            PinsDeps(
                config=config,
                store=self.mesh.store,
                peers=self.mesh.peers,
                kubo=self.engine_room.kubo,
                cluster=self.engine_room.cluster,
                datastore=self.engine_room.datastore,
                content=(config.state / "kubo", config.state / "cluster", config.state),
                peer_states=self.mesh.heartbeats.states,
                ready=self.engine_room.services.is_ready,
            )
        )
        self.pins.follow(self.mesh.heartbeats)
        self.health = Health(
            config=config,
            overlay=self.overlay,
            engine_room=self.engine_room,
            mesh=self.mesh,
            pins=self.pins,
            state_files=self.state_files,
            guard=self.guard,
        )
        self.peer = Peer(config, self.mesh, self.pins)
        self.reconciler = Reconciler(
            ReconcilerDeps(
                config=config,
                overlay=self.overlay,
                engine_room=self.engine_room,
                mesh=self.mesh,
                pins=self.pins,
                readiness=self.health.readiness,
                peer_server=self.peer.server,
                manager=self.manager,
            )
        )
        self.joining = Joining(
            self.mesh.membership, self.mesh.store, self.health.readiness, self.pins.catalogue
        )
        self.leaving = Leaving(
            store=self.mesh.store,
            membership=self.mesh.membership,
            services=self.engine_room.services,
            readiness=self.health.readiness,
            pins=self.pins,
            zerotier=self.overlay.zerotier,
            cleanup=Cleanup(self.mesh.store, self.mesh.secret_store, self.state_files),
        )
        self.operations = operations or Operations(config.state / FILE)
        self.control = Control(
            ControlDeps(
                config=config,
                overlay=self.overlay,
                engine_room=self.engine_room,
                mesh=self.mesh,
                pins=self.pins,
                health=self.health,
                approval=self.peer.approval,
                joining=self.joining,
                leaving=self.leaving,
                operations=self.operations,
            )
        )
        self.components = self._components()

    def _components(self) -> tuple[Component, ...]:
        """The components from the lowest to the highest: they start in this order and stop in reverse."""
        control = self.control.component()
        parts = (
            Component(name="memory", loops=(Loop("memory", memory.give_back, "memory is not given back"),)),
            overlay_room.component(self.overlay),
            self.mesh.component(),
            self.engine_room.component(),
            self.pins.component(),
            self.health.component(),
            self.peer.component(),
            reconciler_room.component(self.reconciler, self.health.readiness),
            OperationsRoom(self.operations, self.mesh.store, self.pins, self.leaving.left).component(),
            metrics_room.component(self.config.metrics.listen, control.routes),
            control,
        )
        for part in parts:
            self.state_files.declare(part.state_files, part.release)
        self.control.serve(parts)
        self.peer.serve(parts)
        self.diagnosis = Diagnosis(parts, self.health.board, self.guard)
        return (*parts, self.diagnosis.component())

    def reload(self, config: Config) -> None:
        """Apply the keys of `config` that can change while the node runs: RELOADED names them."""
        self.pins.storage.reserve = config.storage.reserve
        self.pins.storage.offer = config.storage.offer

    async def retire(self, *, replaced: bool) -> None:
        """Close the control socket. replaced: another node answers on it now."""
        self.leaving.replaced.set()
        await self.control.server.stop(replaced=replaced)
