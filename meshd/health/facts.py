"""The facts of this room for the health checks."""

from __future__ import annotations

from dataclasses import dataclass

from meshd.errors import MeshError


@dataclass(frozen=True, slots=True)
class AuditFacts:
    """The findings of the audit.

    drift: rules of the private swarm that the running kubo violates. strangers: swarm peers outside the roster, as
    `id at address`. open_files: secrets that others may read. unusable: why an engine's program cannot run. joined:
    (name, who admitted it, how) of members whose notice nobody has read yet.
    """

    drift: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    open_files: tuple[str, ...] = ()
    unusable: MeshError | None = None
    joined: tuple[tuple[str, str, str], ...] = ()
