"""Nodes that the daemon's composition root has built, and that do not run."""

from __future__ import annotations

from meshd.component import StopPhase
from meshd.node import Node


async def close(node: Node) -> None:
    """Close its clients and its files: nothing else of it is open."""
    for component in node.components:
        component.release()
        for stop in component.stops:
            if stop.phase is StopPhase.CLIENTS:
                await stop.work()
