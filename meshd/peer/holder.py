"""What the peer API asks of the rooms that keep content."""

from __future__ import annotations

from typing import Protocol

from meshd.wire import Confirmed, Heartbeat, Released, Removal, Removals


class Holder(Protocol):
    """This node as its peers see it. Each may raise MeshError, which the peer is answered."""

    async def beat(self) -> Heartbeat:
        """The facts of the moment."""
        ...

    async def confirm(self, cids: list[str]) -> Confirmed:
        """Which of these (2,000 at most) this node holds durably."""
        ...

    def removals(self, after: int) -> Removals:
        """The recorded removals without the first `after` ones, as many as fit one answer."""
        ...

    async def take_removals(self, removals: list[Removal], from_: str) -> None:
        """A member (fingerprint `from_`) says that these entries were removed."""
        ...

    async def release(self, cid: str, caller: str) -> Released:
        """A member (fingerprint `caller`) asks to let go of an entry at once; only its owner may."""
        ...
