"""The facts of this room for the health checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshd.model import PeerState


@dataclass(frozen=True, slots=True)
class MeshFacts:
    """The state of the membership.

    forgotten_by: a name; empty while this node is a member. moved_from: this node's previous address, where it has got
    another one since meshd started. deauthorized: fingerprint -> ZeroTier address of members that are not authorized
    on the network, as far as this node can know.
    """

    in_mesh: bool = False
    mesh_name: str = ""
    leaving: bool = False
    forgotten_by: str = ""
    moved_from: str = ""
    peers: tuple[PeerState, ...] = ()
    deauthorized: Mapping[str, str] = field(default_factory=dict)
