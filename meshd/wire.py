"""Every request and response of the control API and of the peer API, in one place.

Sizes are bytes; times are seconds since 1970 (`_s`: a span in seconds). What takes long answers
`application/x-ndjson`: one event a line, the last one `done` or `error`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Replicas = Annotated[int, Field(ge=1, le=1000)] | Literal["all"]


class Wire(BaseModel):
    """Answers may grow: a reader ignores members it does not know."""

    model_config = ConfigDict(extra="ignore", defer_build=True)


class Request(BaseModel):
    """Requests are closed: a member that nobody knows is a mistake of the caller and is said."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


# -- control API: answers ------------------------------------------------------------------------------------------


class Condition(Wire):
    code: str
    severity: Literal["error", "warning", "info"]
    subject: str
    title: str
    cause: str
    hint: str
    since: float


class Service(Wire):
    name: str
    phase: Literal["stopped", "starting", "ready", "stopping", "backoff"]
    healthy: bool
    pid: int | None
    since_s: float
    restarts: int
    version: str
    last_exit: str


class Node(Wire):
    name: str
    fingerprint: str
    version: str
    site: str
    uptime_s: float
    state: str


class Mesh(Wire):
    name: str
    id: str
    members: int
    joined: float
    replicas: Replicas


class OverlayView(Wire):
    kind: str
    address: str | None
    interface: str
    why: str


class Storage(Wire):
    total: int
    free: int
    reserve: int
    offer: int | None
    content: int
    accepts: bool


class Peer(Wire):
    name: str
    fingerprint: str
    address: str
    site: str
    this_node: bool
    reachable: bool
    last_seen: float
    rtt_s: float | None
    ready: bool
    free: int
    accepts: bool
    version: str
    problem: str
    admitted_by: str
    admitted: float


class PinCounts(Wire):
    entries: int
    size: int
    trash: int
    trash_size: int


class Status(Wire):
    node: Node
    mesh: Mesh | None
    overlay: OverlayView
    services: list[Service]
    peers: list[Peer]
    conditions: list[Condition]
    storage: Storage
    pins: PinCounts | None
    ready: bool


class Peers(Wire):
    peers: list[Peer]


class Invite(Wire):
    id: str
    created: float
    expires: float
    used_by: str | None = None
    invite: str | None = None  # only in the answer that makes it


class Invites(Wire):
    invites: list[Invite]


class Copy(Wire):
    node: str
    state: Literal["held", "fetching", "missing", "refused", "unknown"]
    detail: str = ""


class Entry(Wire):
    """One thing that someone asked the mesh to keep. version: 1 is the newest of its name, 2 the one before."""

    cid: str
    name: str
    version: int
    owner: str
    mine: bool
    root: str
    size: int
    files: int
    directory: bool
    time: float
    wanted: Replicas
    held: int | None = None  # copies that were seen; None where nobody looked
    copies: list[Copy] = []


class Entries(Wire):
    entries: list[Entry]
    total: int
    next: str | None = None


class Item(Wire):
    name: str
    size: int
    directory: bool


class Listing(Wire):
    """What is inside a directory entry at `path`; for a file one item with its own name."""

    entry: Entry
    path: str
    directory: bool
    items: list[Item]


class TrashEntry(Wire):
    cid: str
    name: str
    version: int
    owner: str
    root: str
    size: int
    directory: bool
    time: float
    removed: float
    removed_by: str
    expires: float


class Trash(Wire):
    entries: list[TrashEntry]


class NodeOutcome(Wire):
    node: str
    state: Literal["trashed", "released", "refused", "unreachable"]
    detail: str = ""


class Removed(Wire):
    entry: Entry
    nodes: list[NodeOutcome]
    restore_until: float | None


class Forgotten(Wire):
    name: str


class MeshResult(Wire):
    """The last event of init and join. created: False where the node was in that mesh already."""

    event: Literal["done"] = "done"
    mesh: Mesh
    node: str
    created: bool


# -- control API: requests -----------------------------------------------------------------------------------------


class InitRequest(Request):
    name: str = "mesh"


class JoinRequest(Request):
    invite: str
    name: str | None = None


class InviteRequest(Request):
    expires_s: Annotated[float, Field(gt=0, le=30 * 86400)] = 86400.0


class PinRequest(Request):
    name: str
    replicas: Replicas | None = None
    detach: bool = False


# -- events of a stream --------------------------------------------------------------------------------------------


class StepEvent(Wire):
    event: Literal["step"] = "step"
    message: str


class ProgressEvent(Wire):
    """Bytes of content that kubo has taken so far."""

    event: Literal["progress"] = "progress"
    bytes: int


class AddedEvent(Wire):
    event: Literal["added"] = "added"
    root: str
    size: int
    files: int


class EntryEvent(Wire):
    """The entry is in the mesh's pinset; from here on it is made whole even if the caller goes."""

    event: Literal["entry"] = "entry"
    cid: str
    name: str
    wanted: int


class CopyEvent(Wire):
    """One more node was asked and holds it durably."""

    event: Literal["copy"] = "copy"
    node: str
    held: int
    wanted: int


class PinDoneEvent(Wire):
    """degraded: fewer copies than asked; `missing` says which nodes do not hold it and why."""

    event: Literal["done"] = "done"
    entry: Entry
    degraded: bool
    missing: list[Copy] = []


class LogEvent(Wire):
    event: Literal["line"] = "line"
    time: float
    service: str
    text: str


class LeftEvent(Wire):
    """The last event of leave."""

    event: Literal["done"] = "done"
    mesh: str


class ErrorEvent(Wire):
    event: Literal["error"] = "error"
    problem: dict[str, Any]


# -- peer API ------------------------------------------------------------------------------------------------------


class Hello(Wire):
    """All that a stranger may learn."""

    protocol: int
    fingerprint: str


class Challenge(Wire):
    nonce: str  # hex, single use


class Member(Wire):
    """One statement of the roster. stamp: the newest statement about a fingerprint wins; forgotten wins over all."""

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
    admitted_by: str = ""  # fingerprint
    admitted: float = 0.0
    stamp: float = 0.0
    forgotten: bool = False
    forgotten_by: str = ""  # fingerprint


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


class PeerJoinRequest(Request):
    """signature: hex, Ed25519 over the nonce, the server's fingerprint and the token (see mesh/invites.py)."""

    protocol: int
    invite_id: str
    token: str
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


class Beat(Wire):
    """The facts that two members exchange every few seconds, in both directions."""

    protocol: int
    fingerprint: str
    version: str
    roster_digest: str
    removals: int  # how many removals this node has recorded
    free: int
    accepts: bool
    ready: bool


class ConfirmRequest(Request):
    cids: Annotated[list[str], Field(max_length=2000)]


class Confirmed(Wire):
    states: dict[str, Literal["held", "fetching", "missing", "refused"]]
    details: dict[str, str] = {}  # why, for those that were refused


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


class ReleaseRequest(Request):
    """rm --now: let go at once. Only the entry's owner may ask."""

    cid: str


class Released(Wire):
    released: bool
    detail: str = ""
