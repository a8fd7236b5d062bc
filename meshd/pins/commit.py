"""Commit of an allocation: writes the record into the pinset, reads it back, and syncs the disk."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection

from meshd.cluster.rest import RoomUnknownError
from meshd.errors import Code, MeshError
from meshd.files import Disk
from meshd.model import Pin
from meshd.pins.engine_api import ClusterApi
from meshd.pins.nodes import Nodes

COMMIT_TIMEOUT = 30.0  # the cluster's batch is 25 ms; a busy disk may take seconds
_UNKNOWN_FOR_S = 15.0  # just after a join or a start the cluster does not know every node's free space yet


class Committer:
    """Commits records to the pinset.

    Both calls return the committed record: its allocations are the cluster's, which may keep a node that it sees
    alive. Both raise MeshError; then the record may exist or not, and `cluster.allocation` says which.
    """

    def __init__(self, cluster: ClusterApi, nodes: Nodes, disk: Disk) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._disk = disk

    async def commit(self, pin: Pin) -> Pin:
        """Commit a new record, on nodes whose free space the cluster knows (`Nodes.await_room`)."""
        return await self._write(pin, None)

    async def change(self, before: Pin, allocations: tuple[str, ...]) -> Pin:
        """Replace the allocations of `before`. Raises MeshError NOT_FOUND where it was removed or changed since."""
        await self._nodes.await_room(allocations)
        current = await self._cluster.allocation(before.cid)
        if current is None or set(current.allocations) != set(before.allocations):
            raise MeshError(
                Code.NOT_FOUND,
                f"cannot change the copies of {before.name}",
                "it was removed or changed meanwhile",
            )
        return await self._write(dataclasses.replace(before, allocations=allocations), before)

    async def _write(self, pin: Pin, before: Pin | None) -> Pin:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + COMMIT_TIMEOUT
        await self._post(pin)
        pause = 0.03  # its batch closes after 25 ms
        await asyncio.sleep(pause)
        while True:
            found = await self._cluster.allocation(pin.cid)
            if found is not None and (before is None or set(found.allocations) != set(before.allocations)):
                await self._disk.sync()
                return found
            if loop.time() > deadline:
                raise MeshError(
                    Code.NOT_READY,
                    f"cannot keep {pin.name}",
                    "the cluster did not record it in time",
                    "meshctl logs cluster",
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    async def _post(self, pin: Pin) -> None:
        """Post a record. The cluster refuses a node of unknown free space: retry for some seconds, then without it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _UNKNOWN_FOR_S
        while True:
            try:
                return await self._cluster.pin(pin)
            except RoomUnknownError:
                if loop.time() > deadline:
                    fewer = known_among(pin.allocations, await self._cluster.with_room())
                    if len(fewer) == len(pin.allocations):
                        raise
                    pin = dataclasses.replace(pin, allocations=fewer)
                    continue
            await asyncio.sleep(0.25)


def known_among(allocations: tuple[str, ...], with_room: Collection[str]) -> tuple[str, ...]:
    """The allocations whose free space is known; the first one where none is, as none means everywhere. Pure."""
    return tuple(a for a in allocations if a in with_room) or allocations[:1]
