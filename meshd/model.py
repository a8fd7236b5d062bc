"""The domain model: immutable facts that all rooms share. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

Replicas = int | Literal["all"]


REPLICAS_MOST = 1000


def parse_wanted(text: str) -> Replicas:
    """Parse a number of copies as an entry or its metadata has it. Raises ValueError."""
    if text == "all":
        return "all"
    number = int(text)
    if not 1 <= number <= REPLICAS_MOST:
        raise ValueError(f"{number} copies")
    return number


class Severity(StrEnum):
    ERROR = "error"  # something does not work
    WARNING = "warning"  # something will fail before long, or works less well than asked
    INFO = "info"  # something a person should know once


@dataclass(frozen=True, slots=True)
class Condition:
    """An active health warning.

    code: stable, e.g. `overlay-down`. subject: what it is about (a service, a peer), may be empty.
    title: what is wrong. cause: why. hint: what to type. since: wall clock, seconds; 0 until the board stamps it.
    visible_after_s: seconds that it must last until it is shown, where it is no trouble while it is short.
    depends_on: codes of the conditions that cause it: while one of them holds, this one is not shown.
    """

    code: str
    severity: Severity
    title: str
    cause: str = ""
    hint: str = ""
    subject: str = ""
    since: float = 0.0
    visible_after_s: float = 0.0
    depends_on: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return (self.code, self.subject)


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed part of meshd itself. error: one line. io_error: the kernel refused it a file, or the disk.

    meanwhile: for a person, what is not done while it fails.
    """

    part: str
    error: str
    io_error: bool = False
    meanwhile: str = ""


@dataclass(frozen=True, slots=True)
class OverlayState:
    """This machine's address on the private network; None while there is none that can be bound.

    network, network_status, node: on ZeroTier the network's id, what the service says of it, and this machine's own
    ZeroTier address.
    """

    address: str | None = None
    interface: str = ""
    why: str = ""  # how the address was chosen, as one sentence
    problem: Condition | None = None
    network: str = ""
    network_status: str = ""
    node: str = ""

    def having(self, *, address: str | None = None, problem: Condition | None = None) -> OverlayState:
        """A copy with that address or problem."""
        return replace(self, address=address, problem=problem)


class Phase(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    BACKOFF = "backoff"  # it exited or did not become ready; waits before the next start


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The state of one supervised child. Times are monotonic seconds."""

    name: str
    phase: Phase = Phase.STOPPED
    since: float = 0.0
    pid: int | None = None
    settings: str = ""  # fingerprint of the settings it was started with
    restarts: int = 0
    retry_at: float = 0.0
    healthy: bool = True  # False: frozen, it runs and does not answer
    unhealthy_since: float = 0.0
    missed: int = 0  # failed health probes in a row
    last_exit: str = ""  # its last exit, with its last lines of output
    advice: str = ""  # what to type about that
    leak: str = ""  # a socket where none may be
    starved: str = ""  # its output when the disk was full; it may never write again, even once there is room


@dataclass(frozen=True, slots=True)
class PeerState:
    """Another node of the mesh, as this node sees it. last_seen: wall clock seconds, 0 for never."""

    fingerprint: str
    name: str
    address: str
    site: str = ""
    reachable: bool = False
    last_seen: float = 0.0
    seen_at: float = 0.0  # monotonic
    away_since: float = 0.0  # monotonic: when it was last reached, or first looked for where it never was
    rtt_s: float | None = None
    ready: bool = False  # its services answer
    accepts: bool = True  # has room for more content
    free_bytes: int = 0  # above its reserve and within its offer
    roster_digest: str = ""
    version: str = ""
    ahead_s: float = 0.0  # clock skew: seconds ahead of this node's clock; negative: behind
    swarm_connected: bool = False
    problem: str = ""
    admitted: float = 0.0  # wall clock seconds
    leaving: bool = False  # it drains, and leaves the mesh


@dataclass(frozen=True, slots=True)
class Pin:
    """The cluster's record of an entry. size: bytes of content. time: wall clock seconds of the request."""

    cid: str
    name: str
    owner: str  # fingerprint of the node that pinned it
    root: str
    size: int
    time: float
    wanted: Replicas
    directory: bool = False
    allocations: tuple[str, ...] = ()  # cluster peer ids; empty: everywhere
    files: int = 1
    tags: tuple[str, ...] = ()  # of the record alone: the entry's block has none, so a restore has none


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All input of decide(). now: monotonic seconds."""

    now: float
    overlay: OverlayState
    in_mesh: bool
    forgotten: bool = False
    stopping: bool = False
    services: dict[str, ServiceState] = field(default_factory=dict)
    wanted_settings: dict[str, str] = field(default_factory=dict)  # service -> fingerprint
    links: frozenset[str] = frozenset()  # multiaddrs of the other members' kubos, as the roster has them
    linked: frozenset[str] = frozenset()  # those that kubo has as peerings since it started
    listening: str | None = None  # the address of the peer API
    listen_retry_at: float = 0.0
    recovered_for: tuple[int | None, int | None] = (
        None,
        None,
    )  # pids of kubo and the cluster at the last recovery
    under_way: dict[str, float] = field(default_factory=dict)  # action key -> since
    disk_full: bool = False
