"""The rules of the reconcile loop: decide(snapshot) -> actions. Pure: no I/O, no clock but the snapshot's.

Every rule about order and privacy is here:

- nothing runs without an overlay address, outside a mesh, or once the mesh has forgotten this node;
- a service that leaks is killed at once, and backs off before its next start;
- a service that met a full disk is restarted once there is room: the cluster's leveldb never writes again after one
  failed write, and reports nothing (measured);
- the cluster starts after kubo is ready and stops before it;
- a service whose settings differ from those wanted is stopped, and the next pass starts it again.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshd.model import Phase, ServiceState, Snapshot

ORDER = ("kubo", "cluster")  # started in this order, stopped in the other
GRACE_WITHOUT_ADDRESS = 5.0  # seconds: the sockets are dead already
LOOK_AGAIN = 5.0


@dataclass(frozen=True, slots=True)
class Start:
    service: str

    @property
    def key(self) -> str:
        return self.service


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a service. grace: seconds until SIGKILL; None: the program's own."""

    service: str
    why: str
    grace: float | None = None

    @property
    def key(self) -> str:
        return self.service


@dataclass(frozen=True, slots=True)
class Fail:
    """Kill a service at once and count it as a failure, so that the next start backs off."""

    service: str
    why: str

    @property
    def key(self) -> str:
        return self.service


@dataclass(frozen=True, slots=True)
class Listen:
    """Serve the peer API on this address; None: stop it."""

    address: str | None

    @property
    def key(self) -> str:
        return "peer-api"


@dataclass(frozen=True, slots=True)
class Link:
    """Have kubo hold peerings with exactly these multiaddrs."""

    links: frozenset[str]

    @property
    def key(self) -> str:
        return "peering"


@dataclass(frozen=True, slots=True)
class Recover:
    """kubo is back: have the cluster retry its failed pins, and clean up after uploads that were cut off."""

    @property
    def key(self) -> str:
        return "recover"


Action = Start | Stop | Fail | Listen | Link | Recover


@dataclass(frozen=True, slots=True)
class Decision:
    """The actions to begin now, and the latest time of the next pass (seconds from the snapshot's now)."""

    actions: tuple[Action, ...]
    look_again_s: float


def decide(snapshot: Snapshot) -> Decision:
    """Decide one pass. An action whose key is under way is left out, but for a stop that must cut a start short."""
    blocked = why_not_run(snapshot)
    actions: list[Action] = []
    for name in ORDER:
        action = _service(snapshot, name, blocked)
        if action is not None and _may_begin(snapshot, action):
            actions.append(action)
    others = (_listen(snapshot, blocked), _link(snapshot), _recover(snapshot))
    actions += [a for a in others if a is not None and a.key not in snapshot.under_way]
    return Decision(tuple(actions), _look_again(snapshot))


def why_not_run(snapshot: Snapshot) -> str:
    """The reason why no service may run now, or ""."""
    if snapshot.stopping:
        return "meshd is stopping"
    if not snapshot.in_mesh:
        return "this node is in no mesh"
    if snapshot.forgotten:
        return "the mesh has forgotten this node"
    if snapshot.overlay.address is None:
        return "there is no overlay address"
    return ""


def _service(snapshot: Snapshot, name: str, blocked: str) -> Action | None:
    state = snapshot.services[name]
    if blocked:
        return _halt(snapshot, state, blocked)
    if state.phase in (Phase.STARTING, Phase.READY) and state.leak:
        return Fail(name, f"it had a socket where none may be: {state.leak}")
    if state.phase is Phase.READY and not state.healthy:
        return Fail(name, "it runs but does not answer")
    if state.phase is Phase.READY and state.starved and not snapshot.disk_full:
        return Stop(name, "its disk was full, which it does not get over by itself")
    wanted = snapshot.wanted_settings.get(name, "")
    if state.phase in (Phase.STARTING, Phase.READY) and state.settings != wanted:
        return Stop(name, "its settings have changed")
    if state.phase is Phase.STOPPED or (
        state.phase is Phase.BACKOFF and (snapshot.now >= state.retry_at or state.settings != wanted)
    ):
        return Start(name) if _base_ready(snapshot, name) else None
    return None


def _halt(snapshot: Snapshot, state: ServiceState, why: str) -> Action | None:
    if state.phase in (Phase.STOPPED, Phase.STOPPING):
        return None
    cluster_runs = snapshot.services["cluster"].phase not in (Phase.STOPPED, Phase.BACKOFF)
    orderly = snapshot.overlay.address is not None
    if orderly and state.name == "kubo" and cluster_runs:
        return None  # the cluster first
    return Stop(state.name, why, None if orderly else GRACE_WITHOUT_ADDRESS)


def _base_ready(snapshot: Snapshot, name: str) -> bool:
    return name == "kubo" or snapshot.services["kubo"].phase is Phase.READY


def _may_begin(snapshot: Snapshot, action: Action) -> bool:
    """Whether its key is free, or it is a stop that cuts a start short: a lost address cannot wait for a readiness."""
    if action.key not in snapshot.under_way:
        return True
    return isinstance(action, (Stop, Fail)) and snapshot.services[action.key].phase is Phase.STARTING


def _listen(snapshot: Snapshot, blocked: str) -> Listen | None:
    """Where to serve the peer API. It outlives kubo: others must hear the truth. It ends with the address or node."""
    # A forgotten node goes on answering the others.
    answers = snapshot.forgotten and snapshot.in_mesh and not snapshot.stopping
    wanted = None if blocked and not answers else snapshot.overlay.address
    if snapshot.stopping and any(s.phase is not Phase.STOPPED for s in snapshot.services.values()):
        wanted = snapshot.listening
    if wanted == snapshot.listening or (wanted is not None and snapshot.now < snapshot.listen_retry_at):
        return None
    return Listen(wanted)


def _link(snapshot: Snapshot) -> Link | None:
    if snapshot.stopping or snapshot.services["kubo"].phase is not Phase.READY:
        return None
    return Link(snapshot.links) if snapshot.links != snapshot.linked else None


def _recover(snapshot: Snapshot) -> Recover | None:
    ready = all(snapshot.services[name].phase is Phase.READY for name in ORDER)
    generation = (snapshot.services["kubo"].pid, snapshot.services["cluster"].pid)
    return Recover() if ready and not snapshot.stopping and generation != snapshot.recovered_for else None


def _look_again(snapshot: Snapshot) -> float:
    waits = [
        s.retry_at - snapshot.now
        for s in snapshot.services.values()
        if s.phase is Phase.BACKOFF and s.retry_at > snapshot.now and _base_ready(snapshot, s.name)
    ]
    if snapshot.listening is None and snapshot.listen_retry_at > snapshot.now:
        waits.append(snapshot.listen_retry_at - snapshot.now)
    return max(0.05, min([LOOK_AGAIN, *waits]))
