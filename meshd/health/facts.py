"""All that the checks may look at, at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshd.errors import MeshError
from meshd.model import Fault, OverlayState, PeerState, ServiceState
from meshd.pins.storage import Room


@dataclass(frozen=True, slots=True)
class Facts:
    """now: wall clock, seconds. joined: (name, who admitted it, how) of members that nobody has read about yet.

    deauthorized: fingerprint -> ZeroTier address of members that are not authorized on the network, as far as this node
    can know. unusable: why an engine's program cannot be run.
    """

    now: float
    in_mesh: bool = False
    # False just after the start, or after the address came back: the peers are not asked yet.
    settled: bool = True
    leaving: bool = False
    forgotten_by: str = ""  # a name; empty while this node is a member
    overlay: OverlayState = field(default_factory=OverlayState)
    moved_from: str = ""  # this node's address before the one that it has got since meshd started
    services: dict[str, ServiceState] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)  # see history.py; the board fills it in
    peers: tuple[PeerState, ...] = ()
    joined: tuple[tuple[str, str, str], ...] = ()
    deauthorized: Mapping[str, str] = field(default_factory=dict)
    unusable: MeshError | None = None
    asking: tuple[tuple[str, str, str], ...] = ()  # (id, name, address) of nodes that ask to join
    room: Room | None = None
    full: str = ""
    unreadable: str = ""  # why the disk of the content cannot be asked
    trash: int = 0  # removed entries that can be restored here
    unwritable: str = ""  # why the state folder takes no writes
    drift: tuple[str, ...] = ()  # rules of the private swarm that the running kubo does not hold
    strangers: tuple[str, ...] = ()  # swarm peers outside the roster, as `id at address`
    open_files: tuple[str, ...] = ()  # secrets that others may read
    listen_error: MeshError | None = None
    short: int = 0  # entries with fewer copies than there could be
    lost: tuple[str, ...] = ()  # names of entries whose nodes are all gone
    mesh_name: str = ""
    faults: tuple[Fault, ...] = ()  # parts of meshd itself that fail
