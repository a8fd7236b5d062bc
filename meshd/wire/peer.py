"""Requests and answers of the peer API, between the members of a mesh."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from meshd.wire.base import Replicas, Request, Wire


class Hello(Wire):
    """All that a stranger may learn."""

    protocol: int
    fingerprint: str


class Challenge(Wire):
    nonce: str  # hex, single use


class Member(Wire):
    """One statement of the roster. stamp: the newest statement about a fingerprint wins; forgotten wins over all.

    leaving_since: since when the node leaves the mesh (wall clock seconds), 0 while it stays; leaving_stamp: the newest word on
    that wins, apart from all else, so that a meshd that does not know the mark cannot wipe it away.
    """

    fingerprint: str
    name: str
    certificate: str  # PEM
    address: str
    peer_port: int
    swarm_port: int
    cluster_port: int
    kubo_id: str
    cluster_id: str
    site: str = ""
    zerotier: str = ""  # its ZeroTier address, 10 hex digits, where that is the overlay
    admitted_by: str = ""  # fingerprint
    admitted: float = 0.0
    stamp: float = 0.0
    forgotten: bool = False
    forgotten_by: str = ""  # fingerprint
    leaving_since: float = 0.0
    leaving_stamp: float = 0.0


class Roster(Wire):
    members: list[Member]


class Joiner(Request):
    """What a node tells of itself when it asks to join, and again when it changes."""

    name: str
    certificate: str
    address: str
    peer_port: int
    swarm_port: int
    cluster_port: int
    kubo_id: str
    cluster_id: str
    site: str = ""
    zerotier: str = ""


class PeerJoinRequest(Request):
    """signature: hex, Ed25519 over the nonce, the server's fingerprint and the token (see mesh/invites.py).

    mesh_id: the mesh that the invite names; a token is not spent for another one.
    """

    protocol: int
    invite_id: str
    token: str
    mesh_id: str = ""
    nonce: str
    signature: str
    joiner: Joiner


class Admitted(Wire):
    mesh_name: str
    mesh_id: str
    created: float
    swarm_key: str
    cluster_secret: str
    roster: Roster
    entries: int = 0  # how many the pinset has, so that the joiner knows when it has read the whole catalogue


class Heartbeat(Wire):
    """The facts that two members exchange every few seconds, in both directions."""

    protocol: int
    fingerprint: str
    version: str
    roster_digest: str
    removals: int  # how many removals this node has recorded
    free: int
    accepts: bool
    ready: bool
    now: float = 0.0  # wall clock, seconds; 0 from a node that does not say


class ConfirmRequest(Request):
    cids: Annotated[list[str], Field(max_length=2000)]


class Confirmed(Wire):
    states: dict[str, Literal["held", "fetching", "missing", "refused"]]
    details: dict[str, str] = Field(default_factory=dict)  # why, for those that were refused
    fetched: dict[str, int] = Field(default_factory=dict)  # blocks so far, for those that are being fetched
    fetched_bytes: dict[str, int] = Field(default_factory=dict)  # the same in bytes; 0.1.0 does not say


class Removal(Wire):
    """An entry was taken out of the pinset. by: fingerprint of the node that did it, empty where unknown.

    now: its owner wants it let go at once; heeded only where the owner itself says so.
    """

    cid: str
    time: float
    by: str
    name: str = ""
    owner: str = ""
    root: str = ""
    size: int = 0
    files: int = 1
    directory: bool = False
    entry_time: float = 0.0
    wanted: Replicas = 3
    now: bool = False


class Removals(Wire):
    removals: list[Removal]
    total: int


class RemovalsAfter(Wire):
    """Which removals are asked for: those with numbers above `after`."""

    after: Annotated[int, Field(ge=0, lt=10**12)] = 0


class ReleaseRequest(Request):
    """rm --now: let go at once. Only the entry's owner may ask."""

    cid: str


class Released(Wire):
    released: bool
    detail: str = ""
