"""Joining: becomes a member of a mesh, then waits until kubo, the cluster and the catalogue serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from meshd import wire
from meshd.errors import Code, MeshError
from meshd.health.readiness import Readiness
from meshd.mesh.membership import Membership
from meshd.mesh.store import MeshStore
from meshd.pins.catalogue import Catalogue

READY_TIMEOUT = 120.0
CATALOGUE_TIMEOUT = 20.0  # then it is read in the background


class Joining:
    """The verbs init and join. One at a time: raises MeshError BUSY while another is under way."""

    def __init__(
        self, membership: Membership, store: MeshStore, readiness: Readiness, catalogue: Catalogue
    ) -> None:
        self._membership = membership
        self._store = store
        self._readiness = readiness
        self._catalogue = catalogue

    async def init(
        self, name: str, network: str, emit: wire.Emit, *, member: Callable[[], None] = lambda: None
    ) -> None:
        """Found a mesh, or report that this node is in it. Raises what `Membership.init` raises, and NOT_READY.

        member: called once this node is a member; from there on it only waits.
        """
        async with self._membership.alone():
            entries = await self._membership.init(name, network, emit)
        member()
        await self._serve(entries, emit)

    async def join(
        self,
        invite_text: str,
        node_name: str | None,
        emit: wire.Emit,
        *,
        member: Callable[[], None] = lambda: None,
    ) -> None:
        """Join by invite, or report that this node is in it. member: as for `init`.

        Raises what `Membership.join` raises, and NOT_READY.
        """
        async with self._membership.alone():
            entries = await self._membership.join(invite_text, node_name, emit)
        member()
        await self._serve(entries, emit)

    async def join_network(
        self,
        network: str,
        node_name: str | None,
        emit: wire.Emit,
        *,
        confirm: bool = True,
        member: Callable[[], None] = lambda: None,
    ) -> None:
        """Join the mesh on a ZeroTier network, or report that this node is in it. member: as for `init`.

        confirm, and the errors raised: see `Membership.join_network`.
        """
        async with self._membership.alone():
            entries = await self._membership.join_network(network, node_name, emit, confirm=confirm)
        member()
        await self._serve(entries, emit)

    def confirm(self, answer: wire.ConfirmAdmission) -> None:
        """See `Membership.confirm`."""
        self._membership.confirm(answer)

    async def _serve(self, entries: int | None, emit: wire.Emit) -> None:
        """Wait until this node serves. It is a member by now, whether it gets that far now or later.

        entries: how many the mesh keeps, as the admitting member says; None where nothing was done: then do not wait.
        """
        if entries is not None:
            await self._until_ready(emit)
            await self._until_read(entries, emit)
        mesh = self._membership.mesh()
        assert mesh is not None  # noqa: S101 - it was made or found
        await emit(wire.MeshResult(mesh=mesh, node=self._store.me().name, created=entries is not None))

    async def _until_ready(self, emit: wire.Emit) -> None:
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT
        said = ""
        while why := self._readiness.why_not():
            if why != said:
                said = why
                await emit(wire.StepEvent(message=why))
            if asyncio.get_running_loop().time() > deadline:
                raise MeshError(
                    Code.NOT_READY,
                    "cannot serve yet, though this node is a member now",
                    why,
                    "meshctl status; it goes on trying",
                )
            await asyncio.sleep(0.05)

    async def _until_read(self, entries: int, emit: wire.Emit) -> None:
        """Wait until the catalogue has replicated to this node: the others send it every five seconds."""
        deadline = asyncio.get_running_loop().time() + CATALOGUE_TIMEOUT
        said = False
        while await self._catalogue.count() < entries:
            if not said:
                said = True
                what = "1 entry" if entries == 1 else f"{entries} entries"
                await emit(wire.StepEvent(message=f"reading the catalogue: {what}"))
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.2)
