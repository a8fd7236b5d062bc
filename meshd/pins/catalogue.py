"""What the mesh keeps: the cluster's pinset, as a person asks for it."""

from __future__ import annotations

import asyncio
import base64
import functools
import itertools
import json
import time
from collections.abc import Callable, Iterable

from meshd import wire
from meshd.errors import Code, MeshError
from meshd.mesh.store import MeshStore
from meshd.model import PeerState
from meshd.pins import entries
from meshd.pins.copies import Copies
from meshd.pins.pinset import Key, Pinset, PinsetSnapshot, key_of

PAGE_MOST = 500
_STEP = 2000  # entries that are looked at before others have their turn in the event loop


class Catalogue:
    """Lists and finds entries: what `Pinset` read, which may be some seconds old where the list is large."""

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

    async def all(self) -> PinsetSnapshot:
        """Every entry. Raises MeshError NO_MESH, NOT_READY."""
        self.need_mesh()
        return await self._pinset.read()

    async def count(self) -> int:
        """How many entries there are; 0 where the cluster cannot be asked."""
        try:
            return len(await self._pinset.read())
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

    async def find(self, reference: str, *, anew: bool = False) -> entries.NumberedPin:
        """The entry that `reference` means, as it is now. Raises MeshError NOT_FOUND.

        anew: read the list again, so that the newest entry of a name is the newest now and not ten seconds ago.
        """
        self.need_mesh()
        asked = time.monotonic()
        snapshot = await self._pinset.read(anew=anew)
        if snapshot.at < asked:
            try:
                found = snapshot.resolve(reference)
            except MeshError:
                pass  # another node may have pinned it since
            else:
                pin = await self._pinset.look(found.pin.cid)
                if pin is not None and pin.name == found.pin.name:
                    return entries.NumberedPin(pin, found.version)
            snapshot = await self._pinset.read(anew=True)
        return snapshot.resolve(reference)

    async def exists(self, cid: str) -> bool:
        """Whether that is in the pinset now. Raises MeshError."""
        return await self._pinset.look(cid) is not None

    def view(self, numbered: entries.NumberedPin, owner_name: str | None = None) -> wire.Entry:
        """owner_name: where it is known already."""
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
        """One page, by name and then age. name: substring; owner: a node's name; after: `next` of the page before.

        Raises MeshError BAD_REQUEST for an `after` that is none.
        """
        snapshot = await self.all()
        start = _key(after, snapshot) if after else None
        name_of = functools.cache(self._owner_name)  # which takes long in a large mesh
        size = max(1, min(limit, PAGE_MOST))
        if not name and not owner:
            total, chosen = len(snapshot), list(itertools.islice(snapshot.keys(start), size + 1))
        else:
            total, chosen = 0, []
            wanted = name.casefold()
            owners = {o for o in snapshot.owners if owner and o and name_of(o) == owner}
            for count, key in enumerate(snapshot.keys(), 1):
                if count % _STEP == 0:
                    await asyncio.sleep(0)
                if wanted in key[0].casefold() and (not owner or snapshot.pins[key[2]].owner in owners):
                    total += 1
                    if len(chosen) <= size and (start is None or key > start):
                        chosen.append(key)
        shown = chosen[:size]
        numbered = [snapshot.numbered(key) for key in shown]
        views = [self.view(n, name_of(n.pin.owner)) for n in numbered]
        if copies:
            await self.fill_copies(views)
        more = len(chosen) > len(shown)
        return wire.Entries(entries=views, total=total, next=_cursor(shown[-1]) if more else None)

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


def _cursor(key: Key) -> str:
    """Where a page ended, as text that means nothing to whoever hands it back. It holds also when the entry goes."""
    text = json.dumps(key, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode()


def _key(cursor: str, snapshot: PinsetSnapshot) -> Key:
    """Where the page before ended. Raises MeshError BAD_REQUEST."""
    if entries.is_cid(cursor) and (pin := snapshot.pins.get(cursor)) is not None:
        return key_of(pin)  # what meshd 0.1 gave out
    try:
        name, when, cid = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
        return (str(name), float(when), str(cid))
    except (ValueError, TypeError, RecursionError):
        raise MeshError(
            Code.BAD_REQUEST,
            "cannot go on with that list",
            f"no page ended at {cursor[:80]!a}",
            "begin anew, without `after`; then hand on `next` of each page as it is",
        ) from None
