"""This room as a component of the daemon."""

from __future__ import annotations

import time

from meshd.component import Component, Loop, Stop, StopPhase
from meshd.conditions import FactSource
from meshd.overlay.health import CHECKS, OverlayFacts
from meshd.overlay.monitor import Overlay

_SETTLED_S = 15.0  # from a start, or a new address, until peers that were not polled yet may count as away


def component(overlay: Overlay) -> Component:
    """The overlay as a component."""
    facts = {
        "state": lambda: overlay.state,
        "settled": lambda: time.monotonic() - overlay.address_since > _SETTLED_S,
    }
    return Component(
        name="overlay",
        start=(overlay.look,),
        loops=(Loop("overlay", overlay.run, "a change of the private network is not noticed"),),
        stops=(Stop("the client of ZeroTier", StopPhase.CLIENTS, overlay.zerotier.close),),
        facts=(FactSource(OverlayFacts, facts),),
        checks=CHECKS,
    )
