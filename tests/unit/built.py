"""Nodes that were built by the daemon's own composition root, and do not run."""

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
