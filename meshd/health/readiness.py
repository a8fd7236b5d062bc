"""Readiness: whether this node serves, and what is missing until it does."""

from __future__ import annotations

from meshd.errors import MeshError
from meshd.kubo.service import KuboProgram
from meshd.mesh.store import MeshStore
from meshd.model import Phase
from meshd.overlay.monitor import Overlay
from meshd.supervise.services import Services


class Readiness:
    """The readiness of this node. listen_error: why the peer API cannot listen; set by the code that opens it."""

    def __init__(
        self, store: MeshStore, overlay: Overlay, services: Services, kubo_program: KuboProgram
    ) -> None:
        self.listen_error: MeshError | None = None
        self._store = store
        self._overlay = overlay
        self._services = services
        self._kubo_program = kubo_program

    @property
    def migration(self) -> str:
        """What kubo migrates before it is ready, as a sentence, as that may take long; else ""."""
        versions = self._kubo_program.migrating
        starting = self._services["kubo"].state.phase is Phase.STARTING
        return (
            f"it brings its repository from version {versions}, which may take long"
            if versions and starting
            else ""
        )

    def why_not(self) -> str:
        """What is missing until this node serves; "" when it does."""
        if self._store.mesh is None:
            return "this node is in no mesh"
        if self._store.forgotten:
            return "the mesh has forgotten this node"
        if self._overlay.state.address is None:
            return "waiting for the private network"
        if self.migration:
            return f"waiting for kubo: {self.migration}"
        for name, state in self._services.states.items():
            if state.phase is not Phase.READY:
                why = f": {state.last_exit}" if state.last_exit else ""
                return f"waiting for {name}{why}" + (f"; {state.advice}" if why and state.advice else "")
            if not state.healthy:
                return f"{name} runs but does not answer"
        return str(self.listen_error) if self.listen_error is not None else ""
