"""The backend of the peer API: what members may ask of this node's content."""

from __future__ import annotations

import time
from collections.abc import Callable

from meshd import __version__
from meshd.http.route import Route
from meshd.http.verbs import answered
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.protocol import PROTOCOL
from meshd.mesh.store import MeshStore
from meshd.pins.copies import Copies
from meshd.pins.remove import Remover
from meshd.pins.storage import Storage
from meshd.pins.trash import Journal
from meshd.principal import Principal
from meshd.wire import (
    Confirmed,
    ConfirmRequest,
    Heartbeat,
    Member,
    Nothing,
    Released,
    ReleaseRequest,
    Removals,
    RemovalsAfter,
    verbs,
)

_PART = 1000  # removals a response


class PeerBackend:
    """Answers members, and fetches the removals that a peer has recorded."""

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

    async def facts(self) -> Heartbeat:
        """This node's heartbeat."""
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

    def routes(self) -> tuple[Route, ...]:
        """The routes for members."""
        return (
            answered(verbs.CONFIRM, self.confirm),
            answered(verbs.REMOVALS, self.removals),
            answered(verbs.TELL_REMOVALS, self.take_removals),
            answered(verbs.RELEASE, self.release),
        )

    async def confirm(self, _: Principal, asked: ConfirmRequest) -> Confirmed:
        """Which of these CIDs this node holds durably."""
        return await self._copies.local(asked.cids)

    async def removals(self, _: Principal, asked: RemovalsAfter) -> Removals:
        """Removals recorded here with numbers above `after`, the oldest first; total: the last number among them."""
        return self._journal.after(asked.after, most=_PART)

    async def take_removals(self, caller: Principal, told: Removals) -> Nothing:
        """Take removals that a member reports."""
        await self._remover.take_removals(told.removals, caller.member())
        return Nothing()

    async def release(self, caller: Principal, asked: ReleaseRequest) -> Released:
        """Unpin an entry at once, for a member; only its owner may ask."""
        return await self._remover.release(asked.cid, caller.member())

    async def fetch_removals(self, member: Member, count: int) -> None:
        """Fetch the removals that a member has recorded since the last time. count: its last number.

        Raises MeshError.
        """
        taken = self._taken.get(member.fingerprint, 0)
        if count < taken:
            taken = 0  # that node was set up anew
        while taken < count:
            answer = await self._peers.call(member, verbs.REMOVALS, RemovalsAfter(after=taken))
            await self._remover.take_removals(answer.removals, member.fingerprint)
            if answer.total <= taken:
                break
            taken = answer.total
            self._taken[member.fingerprint] = taken
