"""What this room says of itself to the health checks."""

from __future__ import annotations

from dataclasses import dataclass

from meshd.errors import MeshError


@dataclass(frozen=True, slots=True)
class AuditFacts:
    """drift: rules of the private swarm that the running kubo does not hold. strangers: swarm peers outside the roster, as
    `id at address`. open_files: secrets that others may read. unusable: why an engine's program cannot be run.

    joined: (name, who admitted it, how) of members that nobody has read about yet.
    """

    drift: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    open_files: tuple[str, ...] = ()
    unusable: MeshError | None = None
    joined: tuple[tuple[str, str, str], ...] = ()
