"""This node as its peers see it: what the peer API asks of the rooms that keep content."""

from __future__ import annotations

import time
from collections.abc import Callable

from meshd import __version__
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.protocol import PROTOCOL
from meshd.mesh.store import MeshStore
from meshd.pins.copies import Copies
from meshd.pins.remove import Remover
from meshd.pins.storage import Storage
from meshd.pins.trash import Journal
from meshd.wire import Confirmed, Heartbeat, Member, Released, Removal, Removals

_PART = 1000  # removals in one answer


class PeerBackend:
    """peer.holder.Holder, and the way back: taking the removals that a peer has recorded."""

    def __init__(
        self,
        store: MeshStore,
        peers: PeerClient,
        copies: Copies,
        journal: Journal,
        remover: Remover,
        storage: Storage,
        ready: Callable[[], bool],
    ) -> None:
        self._store = store
        self._peers = peers
        self._copies = copies
        self._journal = journal
        self._remover = remover
        self._storage = storage
        self._ready = ready
        self._taken: dict[str, int] = {}  # fingerprint -> number of the last removal taken from it

    async def beat(self) -> Heartbeat:
        """The facts of the moment."""
        ready = self._ready()
        return Heartbeat(
            protocol=PROTOCOL,
            fingerprint=self._store.fingerprint,
            version=__version__,
            roster_digest=self._store.digest(),
            removals=self._journal.last,
            free=self._storage.free(),
            accepts=ready and self._storage.accepts(),
            ready=ready,
            now=time.time(),
        )

    async def confirm(self, cids: list[str]) -> Confirmed:
        """Which of these this node holds durably."""
        return await self._copies.local(cids)

    def removals(self, after: int) -> Removals:
        """Removals recorded here with numbers above `after`, the oldest first; total: the last number among them."""
        return self._journal.after(after, most=_PART)

    async def take_removals(self, removals: list[Removal], from_: str) -> None:
        """A member says that these entries were removed."""
        await self._remover.take_removals(removals, from_)

    async def release(self, cid: str, caller: str) -> Released:
        """A member asks to let go of an entry at once; only its owner may."""
        return await self._remover.release(cid, caller)

    async def fetch_removals(self, member: Member, count: int) -> None:
        """Take what `member` has recorded since the last time. count: its last number now. Raises MeshError."""
        taken = self._taken.get(member.fingerprint, 0)
        if count < taken:
            taken = 0  # it was set up anew
        while taken < count:
            answer = await self._peers.removals(member, taken)
            await self._remover.take_removals(answer.removals, member.fingerprint)
            if answer.total <= taken:
                break
            taken = answer.total
            self._taken[member.fingerprint] = taken
