"""When a running cluster is started anew to dial members at new addresses.

ipfs-cluster reads the addresses of the others at its start only, and its REST API takes no new ones (`POST /peers` does
nothing under CRDT; read in 1.1.6). One member that moves needs no restart of the others as a rule: it starts its own cluster
anew and dials them, and who is dialled knows where the caller is. Where several have moved at once nobody dials anybody; and
where an address vanished from its interface, the others hold on to a connection that is dead for up to a minute.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import structlog

from meshd.cluster.service import ClusterProgram
from meshd.errors import MeshError

UNHEARD_S = 6.0  # that a member must answer at its new address, and not be heard; who moved dials within 2 s
YIELD_S = 25.0  # the same where both have moved, for the one with the higher id: both at once would dial into nothing
AGAIN_S = 60.0  # between two restarts
_LOG = structlog.get_logger(part="cluster")


@dataclass(frozen=True, slots=True)
class Redial:
    """count: how many restarts were decided. since: (id, multiaddr) of who is not heard there -> since when.

    last: the last restart. Both times are monotonic seconds.
    """

    count: int = 0
    since: Mapping[tuple[str, str], float] = field(default_factory=dict)
    last: float = -math.inf


def unheard(peers: Mapping[str, str], dialled: Collection[str], heard: Collection[str]) -> dict[str, str]:
    """Those of `peers` (cluster id -> multiaddr) that the cluster does not hear, and has never dialled there. Pure."""
    return {i: where for i, where in peers.items() if where not in dialled and i not in heard}


def decide(known: Redial, own: str, silent: Mapping[str, str], now: float, *, moved: bool) -> Redial:
    """One look. own: this node's cluster id. silent: as `unheard` gives it. moved: this node is at a new address, too.

    An address that changes again begins to wait anew, so one that flaps restarts nobody. Pure.
    """
    since = {key: known.since.get(key, now) for key in silent.items()}
    late = [
        i for (i, _), began in since.items() if now - began >= (YIELD_S if moved and own > i else UNHEARD_S)
    ]
    if not late or now - known.last < AGAIN_S:
        return replace(known, since=since)
    return Redial(known.count + 1, {}, now)


class Redialer:
    """`look` again and again; the program's `redials` is part of what it is started with."""

    def __init__(self, program: ClusterProgram) -> None:
        self._program = program
        self._known = Redial()

    async def look(self, own: str, peers: Mapping[str, str], *, moved: bool) -> bool:
        """Whether the cluster is to be started anew. Asks it only while somebody is where it has never dialled.

        own: this node's cluster id. peers: cluster id -> multiaddr of the members whose meshd answers, and says that its
        cluster runs. moved: whether this node is at another address than when the others last heard of it.
        """
        place = self._program.place
        if place is None:
            return False
        silent = unheard(peers, place.peers, ())
        if silent:
            try:
                silent = unheard(silent, (), await self._program.rest.heard())
            except MeshError:  # it does not run, which its own state tells
                return False
        before = self._known
        self._known = decide(before, own, silent, time.monotonic(), moved=moved)
        if self._known.count == before.count:
            return False
        _LOG.info("the cluster is to dial members at new addresses", members=sorted(silent.values()))
        self._program.redials = self._known.count
        return True
