"""Requests and answers of the control API. Sizes are bytes; times are seconds since 1970 (`_s`: a span in seconds)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from meshd.wire.base import Replicas, Request, Wire


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
    """network: id of the ZeroTier network that it is on, "" for another overlay."""

    name: str
    id: str
    members: int
    joined: float
    replicas: Replicas
    network: str = ""


class OverlayView(Wire):
    """network, network_status, zerotier: on ZeroTier the network's id, what the service says of it, and this machine's
    ZeroTier address."""

    kind: str
    address: str | None
    interface: str
    why: str
    network: str = ""
    network_status: str = ""
    zerotier: str = ""


class Storage(Wire):
    total: int
    free: int
    reserve: int
    offer: int | None
    content: int
    accepts: bool


class Peer(Wire):
    """path: "direct" or "relayed" as ZeroTier says, "" where it does not, or where it is not the overlay. latency_ms: by
    ZeroTier's measure."""

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
    path: Literal["", "direct", "relayed"] = ""
    latency_ms: int | None = None
    zerotier: str = ""
    leaving: bool = False  # it hands over what it holds, and goes


class PinCounts(Wire):
    """here: entries that are allocated to this node. short: with fewer copies than there could be."""

    entries: int
    size: int
    here: int
    short: int
    trash: int
    trash_size: int


class SecretsAtRest(Wire):
    """How the mesh's secrets lie on this node's disk.

    kept: files, plain ones that only meshd may read; credentials, in no file of meshd's, as somebody hands them over;
    encrypted, with systemd-creds and by the key named in `key`: host, tpm2, host+tpm2, "" for another.
    encrypted: whether that key is in a TPM. A host key lies on the same disk, and so does not count.
    by: who hands them over: systemd, or environment, where whoever started meshd set CREDENTIALS_DIRECTORY, as a
    container does; "" where nobody does, and from 0.1.0.
    """

    kept: Literal["files", "credentials", "encrypted"]
    key: str
    encrypted: bool
    by: Literal["", "systemd", "environment"] = ""


class Status(Wire):
    node: Node
    mesh: Mesh | None
    overlay: OverlayView
    services: list[Service]
    peers: list[Peer]
    conditions: list[Condition]
    storage: Storage | None  # null while its disk cannot be asked
    pins: PinCounts | None
    secrets: SecretsAtRest | None
    ready: bool


class Peers(Wire):
    peers: list[Peer]


class Finding(Wire):
    """One rule that was looked at. held: None where it could not be seen now, which `found` explains."""

    area: str
    rule: str
    why: str
    held: bool | None
    found: str
    hint: str


class Doctor(Wire):
    findings: list[Finding]


class Invite(Wire):
    """note: what is still to be done so that the one who has it can join, e.g. on the network's admin page."""

    id: str
    created: float
    expires: float
    used_by: str | None = None
    invite: str | None = None  # only in the answer that makes it
    note: str = ""


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
    copies: list[Copy] = Field(default_factory=list)


class Entries(Wire):
    """One page. total: of all pages. next: where the next one begins, to be handed back as `after`; it means nothing else."""

    entries: list[Entry]
    total: int
    next: str | None = None


class Item(Wire):
    """target: where a symlink points; empty for what is none."""

    name: str
    size: int
    directory: bool
    target: str = ""


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


class PeerAddress(Wire):
    """Where a member answered, and is called from now on."""

    name: str
    address: str
    port: int


_NetworkId = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{16}$")]


class InitRequest(Request):
    """network: the ZeroTier network to be on; joined first where it is not."""

    name: str = "mesh"
    network: _NetworkId | None = None


class JoinRequest(Request):
    """Either an invite, or the network on which members are found and asked.

    confirm: by network, whether a person says which member was the right one (see ConfirmEvent); else the first that
    admits this node is taken, whoever it is.
    """

    invite: str | None = None
    network: _NetworkId | None = None
    name: str | None = None
    confirm: bool = True

    @model_validator(mode="after")
    def _either(self) -> JoinRequest:
        if (self.invite is None) == (self.network is None):
            raise ValueError("expected either invite or network")
        return self


class InviteRequest(Request):
    """node: the ZeroTier address of the machine that it is for, which is authorized on the network at once."""

    expires_s: Annotated[float, Field(gt=0, le=30 * 86400)] = 86400.0
    node: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{10}$")] | None = None


class PeerAddressRequest(Request):
    """address: a host name or an address, with or without a port, as in [mesh] seeds."""

    address: str


class PinRequest(Request):
    name: str
    replicas: Replicas | None = None
    detach: bool = False
