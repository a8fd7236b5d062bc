"""What the rooms that keep and delete content ask of kubo and ipfs-cluster: protocols, so that a fake is held to them by its type.

`meshd.kubo.rpc.Kubo` and `meshd.cluster.rest.Cluster` are the real ones, and say what each call does and raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from meshd.kubo.rpc import LocalPin, Stat
from meshd.model import Pin


class KuboApi(Protocol):
    """One kubo: blocks, and the pins that keep them. Every call raises MeshError NOT_READY where nobody answers."""

    async def put_entry(self, document: dict[str, Any], /) -> str: ...

    async def get_node(self, cid: str, /, *, seconds: float = ..., offline: bool = ...) -> Any: ...

    async def has(self, cid: str, /) -> bool: ...

    async def pin(self, cid: str, name: str = ..., /, *, timeout: float | None = ...) -> None: ...

    async def unpin(self, cid: str, /) -> bool: ...

    async def pinned(self, cids: Sequence[str], /) -> set[str]: ...

    async def pins(self) -> list[LocalPin]: ...

    async def stat(self, path: str, /, *, timeout: float = ...) -> Stat: ...

    async def collect_garbage(self) -> int: ...


class ClusterApi(Protocol):
    """One ipfs-cluster node: the pinset, and whose free space is known. Every call raises MeshError."""

    async def version(self) -> str: ...

    async def with_room(self) -> set[str]: ...

    async def pin(self, pin: Pin, /) -> None: ...

    async def unpin(self, cid: str, /) -> bool: ...

    async def allocation(self, cid: str, /) -> Pin | None: ...

    async def allocations(self) -> list[Pin]: ...
