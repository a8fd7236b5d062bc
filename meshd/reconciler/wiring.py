"""This room as a component of the daemon."""

from __future__ import annotations

from meshd.component import Component, Loop
from meshd.conditions import FactSource
from meshd.health.readiness import Readiness
from meshd.reconciler.health import CHECKS, ReconcilerFacts
from meshd.reconciler.loop import Reconciler

_REDIAL_EVERY_S = 2.0


def component(reconciler: Reconciler, readiness: Readiness) -> Component:
    """The reconciler as a component. Its passes are not among its loops: where they fail, they end the node."""
    return Component(
        name="reconciler",
        loops=(
            Loop(
                "redial",
                reconciler.redial,
                "the cluster is not restarted for members at new addresses",
                period_s=_REDIAL_EVERY_S,
                when_ready=True,
            ),
        ),
        facts=(FactSource(ReconcilerFacts, {"listen_error": lambda: readiness.listen_error}),),
        checks=CHECKS,
    )
