"""What this room answers to members: heartbeats and the roster."""

from __future__ import annotations

from meshd.http.route import Route
from meshd.http.verbs import answered
from meshd.mesh.heartbeat import Heartbeats
from meshd.mesh.store import MeshStore
from meshd.principal import Principal
from meshd.wire import Nothing, Roster, verbs


class MemberCalls:
    """The failure detector's beats, and the anti-entropy exchange of rosters."""

    def __init__(self, store: MeshStore, heartbeats: Heartbeats) -> None:
        self._store = store
        self._heartbeats = heartbeats

    def routes(self) -> tuple[Route, ...]:
        """For the peer API."""
        return (
            answered(verbs.BEAT, self._heartbeats.answer),
            answered(verbs.ROSTER, self.roster),
            answered(verbs.EXCHANGE_ROSTERS, self.exchange_rosters),
        )

    async def roster(self, _: Principal, __: Nothing) -> Roster:
        """All statements."""
        return self._store.roster()

    async def exchange_rosters(self, _: Principal, theirs: Roster) -> Roster:
        """Merge the peer's statements; ours afterwards."""
        await self._store.merge(theirs)
        return self._store.roster()
