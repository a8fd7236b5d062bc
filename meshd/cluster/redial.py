"""When to restart a running cluster so that it dials members at new addresses.

ipfs-cluster reads its peers' addresses at its start only, and its REST API takes no new ones (`POST /peers` does
nothing under CRDT; read in 1.1.6). A single member that moves needs no restart of the others as a rule: it restarts
its own cluster and dials them, and a peer that is dialled learns the caller's address. Where several have moved at
once, nobody dials anybody; and where an address vanished from its interface, the others hold a dead connection for up
to a minute.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import structlog

from meshd.cluster.service import ClusterProgram
from meshd.errors import MeshError

UNHEARD_S = 6.0  # a member answers at its new address, unheard, for so long; one that moved dials within 2 s
YIELD_S = 25.0  # the same for the higher id where both have moved: both at once would dial into nothing
AGAIN_S = 60.0  # at least, between two restarts
_LOG = structlog.get_logger(part="cluster")


@dataclass(frozen=True, slots=True)
class Redial:
    """The state of the decision.

    count: restarts decided until now. since: (id, multiaddr) of a member that is not heard there -> since when. last:
    the last restart. Times are monotonic seconds.
    """

    count: int = 0
    since: Mapping[tuple[str, str], float] = field(default_factory=dict)
    last: float = -math.inf


def unheard(peers: Mapping[str, str], dialled: Collection[str], heard: Collection[str]) -> dict[str, str]:
    """Those of `peers` (cluster id -> multiaddr) that the cluster neither hears nor has ever dialled there. Pure."""
    return {i: where for i, where in peers.items() if where not in dialled and i not in heard}


def decide(known: Redial, own: str, silent: Mapping[str, str], now: float, *, moved: bool) -> Redial:
    """Debounce: the next state, with a higher `count` where the cluster must restart. Pure.

    own: this node's cluster id. silent: as `unheard` returns it. moved: this node is at a new address, too. A new
    address restarts the wait, so a flapping one restarts no cluster.
    """
    since = {key: known.since.get(key, now) for key in silent.items()}
    late = [
        i for (i, _), began in since.items() if now - began >= (YIELD_S if moved and own > i else UNHEARD_S)
    ]
    if not late or now - known.last < AGAIN_S:
        return replace(known, since=since)
    return Redial(known.count + 1, {}, now)


class Redialer:
    """Call `look` periodically. The program's `redials` is part of its settings, so a new one restarts it."""

    def __init__(self, program: ClusterProgram) -> None:
        self._program = program
        self._known = Redial()

    async def look(self, own: str, peers: Mapping[str, str], *, moved: bool) -> bool:
        """Whether the cluster must restart. Queries it only while a member is where it has never dialled.

        own: this node's cluster id. peers: cluster id -> multiaddr of the members whose meshd answers, and reports that
        its cluster runs. moved: whether this node's address differs from the one that the others last heard of.
        """
        place = self._program.place
        if place is None:
            return False
        silent = unheard(peers, place.peers, ())
        if silent:
            try:
                silent = unheard(silent, (), await self._program.rest.heard())
            except MeshError:  # it does not run; its service state says so
                return False
        before = self._known
        self._known = decide(before, own, silent, time.monotonic(), moved=moved)
        if self._known.count == before.count:
            return False
        _LOG.info("the cluster is to dial members at new addresses", members=sorted(silent.values()))
        self._program.redials = self._known.count
        return True
