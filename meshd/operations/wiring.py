"""Builds the room of operations of one node; the registry itself outlives a node that leaves."""

from __future__ import annotations

import asyncio
import time

import structlog

from meshd.component import Component, Loop, Stop, StopPhase
from meshd.errors import MeshError
from meshd.mesh.store import MeshStore
from meshd.operations.aftermath import Aftermath
from meshd.operations.api import OperationsApi
from meshd.operations.registry import FILE, Operations
from meshd.pins.wiring import Pins
from meshd.state_files import StateFile

_EXPLAIN_EVERY_S = 2.0
SETTLE_S = 60.0
"""Seconds to retry for the outcome of an operation, while members that may hold replicas are not reachable."""
_LOG = structlog.get_logger(part="operations")


class OperationsRoom:
    """Explains interrupted operations, and ends running ones when the node ends."""

    def __init__(
        self,
        operations: Operations,
        store: MeshStore,
        pins: Pins,
        left: asyncio.Event,
        *,
        settle_s: float = SETTLE_S,
    ) -> None:
        """left: set when this node has left; the leave itself goes on until the next node answers."""
        self._operations = operations
        self._aftermath = Aftermath(store, pins.catalogue, pins.journal)
        self._left = left
        self._settle_s = settle_s
        self._looked_at: dict[str, float] = {}  # id -> monotonic seconds of the first attempt

    def component(self) -> Component:
        """This room as a component."""
        return Component(
            name="operations",
            start=(self._operations.open,),
            loops=(
                Loop(
                    "operations",
                    self.explain,
                    "what became of operations that were interrupted is not said",
                    period_s=_EXPLAIN_EVERY_S,
                ),
            ),
            stops=(
                Stop("operations that are under way", StopPhase.WORK, self._stop),
                Stop("the record of operations", StopPhase.CLIENTS, self._operations.close),
            ),
            routes=OperationsApi(self._operations).routes(),
            state_files=(StateFile(FILE, database=True),),
            release=self._operations.release,
        )

    async def explain(self) -> None:
        """Set the outcome of each interrupted operation, as soon as it can be known."""
        if not self._operations.accepting:
            return  # operations that are being cancelled now are explained after the next start
        for id_ in list(self._operations.unexplained):
            record = self._operations.record_of(id_)
            if record is None:
                continue
            try:
                outcome = await self._aftermath.look(record)
            except MeshError as exc:
                _LOG.debug("cannot see yet what became of an operation", id=id_, error=str(exc))
                continue
            now = time.monotonic()
            first = self._looked_at.setdefault(id_, now)
            settled = outcome.settled or now - first > self._settle_s
            await self._operations.explain(id_, outcome.detail, outcome.hint, settled=settled)

    async def _stop(self) -> None:
        await self._operations.stop(sparing=("leave",) if self._left.is_set() else ())
