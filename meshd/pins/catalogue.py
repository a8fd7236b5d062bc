"""What the mesh keeps: the cluster's pinset, read. There is no second catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from meshd import wire
from meshd.cluster.rest import Cluster
from meshd.errors import Code, MeshError
from meshd.mesh.store import MeshStore
from meshd.model import PeerState, Pin
from meshd.pins import entries
from meshd.pins.copies import Copies

PAGE_MOST = 500


class Catalogue:
    """Lists and finds entries. Every answer is read from the cluster when it is asked for."""

    def __init__(
        self,
        cluster: Cluster,
        store: MeshStore,
        copies: Copies,
        peer_states: Callable[[], Iterable[PeerState]],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._copies = copies
        self._peer_states = peer_states

    async def all(self) -> list[Pin]:
        """Every entry. Raises MeshError NO_MESH, NOT_READY."""
        self.need_mesh()
        return await self._cluster.allocations()

    async def count(self) -> int:
        """How many entries there are; 0 where the cluster cannot be asked."""
        try:
            return len(await self._cluster.allocations())
        except MeshError:
            return 0

    def need_mesh(self) -> None:
        """Raises MeshError NO_MESH where this node is in no mesh, FORGOTTEN where it was one's member."""
        if self._store.mesh is None:
            raise MeshError(
                Code.NO_MESH,
                "cannot do that yet",
                "this node is in no mesh",
                "begin one: meshctl init; or join one: meshctl join INVITE",
            )
        if self._store.forgotten:
            raise MeshError(
                Code.FORGOTTEN,
                "cannot do that",
                "this node was forgotten by its mesh",
                "meshctl leave, then ask a member for: meshctl invite",
            )

    async def find(self, reference: str) -> entries.NumberedPin:
        """The entry that `reference` means. Raises MeshError NOT_FOUND."""
        if entries.is_cid(reference):
            self.need_mesh()
            pin = await self._cluster.allocation(reference)
            if pin is not None:
                same = [n for n in entries.number(await self.all()) if n.pin.cid == pin.cid]
                return same[0] if same else entries.NumberedPin(pin, 1)
        return entries.resolve(reference, await self.all())

    def view(self, numbered: entries.NumberedPin) -> wire.Entry:
        owner = numbered.pin.owner
        return entries.view(
            numbered,
            self._store.name_of(owner) if owner else "unknown",
            mine=owner == self._store.fingerprint,
        )

    async def page(
        self,
        *,
        name: str = "",
        owner: str = "",
        limit: int = PAGE_MOST,
        after: str = "",
        copies: bool = False,
    ) -> wire.Entries:
        """One page, by name and then age. name: substring; owner: a node's name; after: `next` of the page before."""
        every = entries.number(await self.all())
        wanted = [
            n
            for n in every
            if name.casefold() in n.pin.name.casefold()
            and (not owner or self._store.name_of(n.pin.owner) == owner)
        ]
        start = next((i + 1 for i, n in enumerate(wanted) if n.pin.cid == after), 0) if after else 0
        chosen = wanted[start : start + max(1, min(limit, PAGE_MOST))]
        views = [self.view(n) for n in chosen]
        if copies:
            await self.fill_copies(views)
        more = start + len(chosen) < len(wanted)
        return wire.Entries(
            entries=views, total=len(wanted), next=chosen[-1].pin.cid if more and chosen else None
        )

    async def fill_copies(self, views: list[wire.Entry]) -> None:
        """Ask every member which of these it holds, and write the answers into the views."""
        away = {p.fingerprint: p for p in self._peer_states() if not p.reachable}
        members = self._store.members()
        table = await self._copies.table(
            [v.cid for v in views], [m for m in members if m.fingerprint not in away]
        )
        for v in views:
            v.copies = [c for c in table[v.cid] if c.state != "missing"]
            v.copies += [
                wire.Copy(node=m.name, state="unknown", detail=away[m.fingerprint].problem or "it is away")
                for m in members
                if m.fingerprint in away
            ]
            v.held = sum(c.state == "held" for c in v.copies)
