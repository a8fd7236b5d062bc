"""Reads entries: listings of directories, and bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from meshd import wire
from meshd.errors import Code, MeshError, quoted
from meshd.kubo.rpc import LONG, Kubo, Stat
from meshd.pins.catalogue import Catalogue
from meshd.pins.entries import NumberedPin

_TAR_END = bytes(1024)  # two zero blocks


@dataclass(frozen=True, slots=True)
class Found:
    """A file or directory inside an entry, with its name."""

    numbered: NumberedPin
    path: str
    name: str
    stat: Stat
    ipfs_path: str


class Content:
    """Reads entries. kubo fetches from the members what is not on this node, and verifies every block's hash."""

    def __init__(self, kubo: Kubo, catalogue: Catalogue) -> None:
        self._kubo = kubo
        self._catalogue = catalogue

    async def find(self, reference: str, path: str = "") -> Found:
        """Resolve a reference and a path inside it. Raises MeshError NOT_FOUND for either."""
        numbered = await self._catalogue.find(reference)
        parts = [part for part in path.split("/") if part]
        if any(part in (".", "..") for part in parts):
            raise MeshError(
                Code.BAD_REQUEST,
                f"cannot look for {path}",
                "a path inside an entry has no '.' or '..'",
                f"meshctl ls {quoted(numbered.reference + '/')}",
            )
        ipfs_path = "/".join(["", "ipfs", numbered.pin.root, *parts])
        try:
            stat = await self._kubo.stat(ipfs_path)
        except MeshError as exc:
            if exc.code is Code.NOT_FOUND:
                raise MeshError(
                    Code.NOT_FOUND,
                    f"cannot find {path} in {numbered.reference}",
                    "there is no such file or directory in it",
                    f"meshctl ls {quoted(numbered.reference + '/')}",
                ) from exc
            raise MeshError(
                exc.code,
                f"cannot read {numbered.reference}",
                f"no reachable node gives its content ({exc.detail})",
                f"meshctl peers shows which nodes are away; and which hold it: meshctl ls {quoted(numbered.reference)}",
            ) from exc
        return Found(numbered, "/".join(parts), parts[-1] if parts else numbered.pin.name, stat, ipfs_path)

    async def listing(self, reference: str, path: str = "") -> wire.Listing:
        """List a directory, by name; a file is its own only item."""
        found = await self.find(reference, path)
        view = self._catalogue.view(found.numbered)
        if not found.stat.directory:
            items = [wire.Item(name=found.name, size=found.stat.size, directory=False)]
        else:
            links = await self._kubo.list(found.ipfs_path)
            items = [
                wire.Item(name=i.name, size=i.size, directory=i.directory, target=i.target) for i in links
            ]
        return wire.Listing(
            entry=view,
            path=found.path,
            directory=found.stat.directory,
            items=sorted(items, key=lambda i: i.name),
        )

    async def read(self, found: Found) -> AsyncGenerator[bytes, None]:
        """Stream the bytes of a file, or a tar of a directory. Raises MeshError where kubo sends less than there is.

        kubo reports a failure after the first byte in a trailer, which aiohttp does not expose: so the bytes are
        counted.
        """
        if found.stat.directory:
            tail = b""
            async with self._kubo.call("get", [found.ipfs_path], timeout=LONG, archive="true") as answer:
                async for chunk in answer.content.iter_any():
                    tail = (tail + chunk)[-len(_TAR_END) :]
                    yield chunk
            whole = tail == _TAR_END
        else:
            count = 0
            async with self._kubo.call("cat", [found.ipfs_path], timeout=LONG) as answer:
                async for chunk in answer.content.iter_any():
                    count += len(chunk)
                    yield chunk
            whole = count == found.stat.size
        if not whole:
            raise MeshError(
                Code.PEER_UNREACHABLE,
                f"cannot read all of {found.name}",
                "the nodes that hold the rest do not answer",
                "meshctl peers",
            )
