"""What must be seen to before a node goes: that nothing goes with it."""

from __future__ import annotations

import dataclasses

from meshd import wire
from meshd.cluster.rest import Cluster
from meshd.errors import Code, MeshError
from meshd.mesh.store import MeshStore
from meshd.model import Pin
from meshd.pins import place
from meshd.pins.copies import Copies
from meshd.pins.keep import Emit, Keeper

_SHOWN = 5


class Departure:
    """Asks who else holds what the leaving node holds, and has copies made where nobody does."""

    def __init__(self, cluster: Cluster, store: MeshStore, copies: Copies, keeper: Keeper) -> None:
        self._cluster = cluster
        self._store = store
        self._copies = copies
        self._keeper = keeper

    async def drain(self, emit: Emit) -> None:
        """Before this node leaves: every entry is on another node. Raises MeshError LAST_COPY."""
        me = self._store.fingerprint
        while alone := await self._only_on(me):  # until a fresh look finds nothing: it may take long
            await self._copy_away(alone, me, emit)

    async def _copy_away(self, alone: list[Pin], me: str, emit: Emit) -> None:
        others = [c for c in self._keeper.candidates() if c.fingerprint != me]
        lost: list[Pin] = []
        for pin in alone:
            wanted = place.target(pin.wanted, len(others))
            new = place.choose(max(1, wanted), pin.cid, pin.size, others)
            if not new:
                lost.append(pin)
                continue
            await emit(wire.StepEvent(message=f"copying {pin.name} to another node first"))
            union = tuple(dict.fromkeys((self._store.me().cluster_id, *new)))
            kept = await self._keeper.see(
                await self._keeper.commit(dataclasses.replace(pin, allocations=union), before=pin), _silent
            )
            if not set(kept.held) - {self._store.me().name}:
                lost.append(pin)
        if lost:
            raise _last_copies(lost, "leave", "meshctl leave --force (their content is gone then)")

    async def check_forget(self, name: str) -> None:
        """Before a member is forgotten. Raises MeshError LAST_COPY where only it holds something."""
        member = self._store.by_name(name)
        if member is None:
            return  # whoever forgets it says so
        alone = await self._only_on(member.fingerprint)
        if alone:
            raise _last_copies(
                alone,
                f"forget {name}",
                f"start {name} again so that the others can copy it; or: meshctl forget {name} --force",
            )

    async def _only_on(self, fingerprint: str) -> list[Pin]:
        """Entries that no other reachable member holds."""
        pins = await self._cluster.allocations()
        others = [m for m in self._store.members() if m.fingerprint != fingerprint]
        table = await self._copies.table([p.cid for p in pins], others)
        return [p for p in pins if not any(c.state == "held" for c in table[p.cid])]


async def _silent(_: wire.Wire) -> None:
    """Nobody listens."""


def _last_copies(pins: list[Pin], what: str, hint: str) -> MeshError:
    names = ", ".join(p.name for p in pins[:_SHOWN])
    more = f" and {len(pins) - _SHOWN} more" if len(pins) > _SHOWN else ""
    return MeshError(
        Code.LAST_COPY, f"cannot {what}", f"no other node that can be reached holds {names}{more}", hint
    )
