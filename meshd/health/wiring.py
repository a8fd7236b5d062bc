"""Builds this room's parts and connects them. What the daemon needs of them is a field of `Health`."""

from __future__ import annotations

from meshd.cluster.wiring import EngineRoom
from meshd.component import Component, Loop
from meshd.conditions import FactSource
from meshd.config import Config
from meshd.health.audit import Audit, EngineProbe
from meshd.health.board import Board
from meshd.health.checks import all_checks
from meshd.health.doctor import Doctor
from meshd.health.facts import AuditFacts
from meshd.health.notices import Notices
from meshd.health.notify_command import NotifyCommand
from meshd.health.readiness import Readiness
from meshd.mesh.wiring import Mesh
from meshd.overlay.monitor import Overlay
from meshd.periodic import TaskGuard
from meshd.pins.wiring import Pins
from meshd.state_files import StateFile, StateFiles

STATE_FILES = (StateFile("notices.json"),)


class Health:
    """The whole room. `board` is empty until meshd.diagnosis puts on it what the checks find."""

    def __init__(
        self,
        *,
        config: Config,
        overlay: Overlay,
        engine_room: EngineRoom,
        mesh: Mesh,
        pins: Pins,
        state_files: StateFiles,
        guard: TaskGuard,
    ) -> None:
        services, store = engine_room.services, mesh.store
        self._node_name = config.node.name
        self._store = store
        self.readiness = Readiness(store, overlay, services, engine_room.engines.kubo)
        self.probe = EngineProbe(engine_room.engines, store)
        self.board = Board()
        self.notify_command = NotifyCommand(config.notify.command, self._who)
        self.board.listeners.append(self.notify_command.heard)
        self.notices = Notices(config.state / "notices.json", store)
        self.audit = Audit(
            services=services,
            settings=mesh.settings,
            overlay=overlay,
            kubo=engine_room.kubo,
            storage=pins.storage,
            state_files=state_files,
            guard=guard,
        )
        self.doctor = Doctor(
            services=services,
            settings=mesh.settings,
            overlay=overlay,
            kubo=engine_room.kubo,
            store=store,
            state_files=state_files,
            board=self.board,
        )

    def component(self) -> Component:
        """This room as a component."""
        audit = self.audit
        facts = {
            "drift": lambda: audit.drift,
            "strangers": lambda: audit.strangers,
            "open_files": lambda: audit.open_files,
            "unusable": lambda: self.probe.unusable,
            "joined": self.notices.unread,
        }
        return Component(
            name="health",
            loops=(
                Loop("audit", audit.run, "leaks, strangers and open secrets are not looked for"),
                Loop("notify", self.notify_command.run, "the command of [notify] is not run"),
                Loop("programs", self.probe.run, "whether kubo and ipfs-cluster can be run is not looked at"),
            ),
            facts=(FactSource(AuditFacts, facts),),
            checks=all_checks(),
            state_files=STATE_FILES,
        )

    def _who(self) -> dict[str, str]:
        """The node and the mesh, for the command of [notify]."""
        mesh = self._store.mesh
        return {
            "node": self._store.me().name if mesh else self._node_name,
            "mesh": mesh.name if mesh else "",
        }
