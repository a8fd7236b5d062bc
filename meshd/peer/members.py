"""What a node answers to members only."""

from __future__ import annotations

from collections.abc import Callable

from meshd.mesh.store import MeshStore
from meshd.peer.call import Call, Done
from meshd.peer.holder import Holder
from meshd.wire import Confirmed, ConfirmRequest, Heartbeat, Released, ReleaseRequest, Removals, Roster


class Members:
    """POST /beat, GET and POST /roster, POST /confirm, GET and POST /removals, POST /release."""

    def __init__(
        self, store: MeshStore, holder: Holder, on_heartbeat: Callable[[str, Heartbeat], None]
    ) -> None:
        """on_beat(fingerprint, beat): called in the loop for each beat that comes in."""
        self._store = store
        self._holder = holder
        self._on_heartbeat = on_heartbeat

    async def beat(self, call: Call) -> Heartbeat:
        """Take the peer's facts, give ours."""
        self._on_heartbeat(call.member().fingerprint, call.read(Heartbeat))
        return await self._holder.beat()

    async def roster(self, call: Call) -> Roster:
        """All statements."""
        return self._store.roster()

    async def take_roster(self, call: Call) -> Roster:
        """Merge the peer's statements; ours afterwards."""
        await self._store.merge(call.read(Roster))
        return self._store.roster()

    async def confirm(self, call: Call) -> Confirmed:
        """What is held durably here."""
        return await self._holder.confirm(call.read(ConfirmRequest).cids)

    async def removals(self, call: Call) -> Removals:
        """The removals recorded here, without the first `after`."""
        return self._holder.removals(call.count("after"))

    async def take_removals(self, call: Call) -> Done:
        """Removals that the peer recorded."""
        await self._holder.take_removals(call.read(Removals).removals, call.member().fingerprint)
        return Done()

    async def release(self, call: Call) -> Released:
        """Let go at once, where the caller is the owner."""
        return await self._holder.release(call.read(ReleaseRequest).cid, call.member().fingerprint)
