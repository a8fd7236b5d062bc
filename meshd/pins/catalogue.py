"""The catalogue: queries of the cluster's pinset for people."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from functools import cache, partial

from meshd import wire
from meshd.errors import Code, MeshError
from meshd.mesh.store import MeshStore
from meshd.model import PeerState, Pin
from meshd.pins import entries
from meshd.pins.copies import Copies
from meshd.pins.index import CatalogueIndex, Key, Search, key_of
from meshd.pins.pinset import Pinset

PAGE_MOST = 500


class Catalogue:
    """Lists and finds entries, by `Pinset`'s last reading, which may be some seconds old where the list is large."""

    def __init__(
        self,
        pinset: Pinset,
        store: MeshStore,
        copies: Copies,
        peer_states: Callable[[], Iterable[PeerState]],
    ) -> None:
        self._pinset = pinset
        self._store = store
        self._copies = copies
        self._peer_states = peer_states

    async def count(self) -> int:
        """The number of entries; 0 where the cluster does not answer."""
        try:
            return (await self._pinset.ask(CatalogueIndex.sums)).entries
        except MeshError:
            return 0

    async def among(self, cids: Collection[str]) -> set[str]:
        """Those of `cids` that are entries. Raises MeshError NO_MESH, NOT_READY."""
        self.need_mesh()
        return await self._pinset.ask(partial(CatalogueIndex.among, cids=cids))

    async def of_root(self, root: str) -> AsyncGenerator[Pin]:
        """All entries with this root. Raises MeshError NO_MESH, NOT_READY."""
        self.need_mesh()
        await self._pinset.refresh()
        after = ""
        while part := await self._pinset.query(partial(CatalogueIndex.of_root, root=root, after=after)):
            for pin in part:
                yield pin
            after = part[-1].cid

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

    async def find(self, reference: str, *, anew: bool = False) -> entries.NumberedPin:
        """Resolve a reference to an entry, as it is now. Raises MeshError NOT_FOUND.

        anew: read the list again, so that the newest entry of a name is the newest now and not ten seconds ago.
        """
        self.need_mesh()
        meant = partial(resolve, reference=reference)
        if not await self._pinset.refresh(anew=anew):
            try:
                found = await self._pinset.query(meant)
            except MeshError as exc:
                if exc.code is not Code.NOT_FOUND:  # else another node may have pinned it since
                    raise
            else:
                pin = await self._pinset.look(found.pin.cid)
                if pin is not None and pin.name == found.pin.name:
                    return entries.NumberedPin(pin, found.version)
            await self._pinset.refresh(anew=True)
        return await self._pinset.query(meant)

    async def exists(self, cid: str) -> bool:
        """Whether a CID is in the pinset now. Raises MeshError."""
        return await self._pinset.look(cid) is not None

    def view(self, numbered: entries.NumberedPin, owner_name: str | None = None) -> wire.Entry:
        """An entry as the API shows it. owner_name: where it is known already."""
        owner = numbered.pin.owner
        if owner_name is None:
            owner_name = self._owner_name(owner)
        return entries.view(numbered, owner_name, mine=owner == self._store.fingerprint)

    def _owner_name(self, owner: str) -> str:
        return self._store.name_of(owner) if owner else "unknown"

    async def page(
        self,
        *,
        name: str = "",
        owner: str = "",
        limit: int = PAGE_MOST,
        after: str = "",
        copies: bool = False,
    ) -> wire.Entries:
        """One page, sorted by name, then age. name: substring. owner: a node's name. after: `next` of the page before.

        Raises MeshError BAD_REQUEST for an invalid `after`.
        """
        self.need_mesh()
        await self._pinset.refresh()
        name_of = cache(self._owner_name)  # slow in a large mesh
        owners = None
        if owner:
            every = await self._pinset.query(CatalogueIndex.owners)
            owners = tuple(o for o in every if o and name_of(o) == owner)
        found = await self._pinset.query(
            partial(
                CatalogueIndex.page,
                search=Search(name=name, owners=owners),
                limit=max(1, min(limit, PAGE_MOST)),
                after=await self._key(after) if after else None,
            )
        )
        views = [self.view(n, name_of(n.pin.owner)) for n in found.entries]
        if copies:
            await self.fill_copies(views)
        following = _cursor(key_of(found.entries[-1].pin)) if found.more else None
        return wire.Entries(entries=views, total=found.total, next=following)

    async def _key(self, cursor: str) -> Key:
        """The key at which the page before ended. Raises MeshError BAD_REQUEST."""
        if entries.is_cid(cursor):  # a cursor of meshd 0.1
            pin = await self._pinset.query(partial(CatalogueIndex.get, cid=cursor))
            if pin is not None:
                return key_of(pin)
        return _key(cursor)

    async def fill_copies(self, views: list[wire.Entry]) -> None:
        """Ask every member which of these it holds, and fill the answers into the views."""
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


def resolve(index: CatalogueIndex, reference: str) -> entries.NumberedPin:
    """Resolve a reference by the index, see `entries.resolve`. Raises MeshError NOT_FOUND. Blocks."""
    found = [n for n in (index.numbered(reference), index.newest(reference)) if n is not None]
    if found:
        return min(found, key=lambda n: key_of(n.pin))
    versions = 0
    if (meant := entries.version_meant(reference)) is not None:
        if (versioned := index.newest(*meant)) is not None:
            return versioned
        versions = index.versions(meant[0])
    raise entries.not_found(reference, versions)


def _cursor(key: Key) -> str:
    """The opaque cursor for a key at which a page ended. It stays valid when that entry is removed."""
    text = json.dumps(key, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode()


def _key(cursor: str) -> Key:
    """Decode a cursor. Raises MeshError BAD_REQUEST."""
    try:
        name, when, cid = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
        return (str(name), float(when), str(cid))
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise MeshError(
            Code.BAD_REQUEST,
            "cannot go on with that list",
            f"no page ended at {cursor[:80]!a}",
            "begin anew, without `after`; then hand on `next` of each page as it is",
        ) from None
