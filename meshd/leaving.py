"""Leaving the mesh: drain, say goodbye, stop, remove all that belonged to it. Can be interrupted and repeated."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from meshd import wire
from meshd.errors import Code, MeshError
from meshd.health.readiness import Readiness
from meshd.mesh import identity as identities
from meshd.mesh.membership import Membership
from meshd.mesh.secret_store import SecretStore
from meshd.mesh.state import MeshState
from meshd.mesh.store import MeshStore
from meshd.overlay.zerotier import ZeroTier
from meshd.pins.wiring import Pins
from meshd.state_files import StateFiles
from meshd.supervise.services import Services

_STOP_S = 60.0
_LOG = structlog.get_logger(part="leaving")


class Cleanup:
    """Removes all that belonged to the mesh. Interrupted anywhere, it can be repeated."""

    def __init__(self, store: MeshStore, secret_store: SecretStore, state_files: StateFiles) -> None:
        self._store = store
        self._secret_store = secret_store
        self._state_files = state_files

    async def run(self) -> None:
        """Remove the content first, and this node's identity last."""
        await asyncio.to_thread(self._state_files.remove_those_of_the_mesh)
        await self._store.clear()
        await asyncio.to_thread(self._remove_identity)

    def _remove_identity(self) -> None:
        self._secret_store.erase()
        identities.discard(self._state_files.folder)


class Leaving:
    """The verbs leave and forget.

    left: set when nothing of the mesh is here any more. replaced: awaited after that, until the next node answers on
    the control socket.
    """

    def __init__(
        self,
        *,
        store: MeshStore,
        membership: Membership,
        services: Services,
        readiness: Readiness,
        pins: Pins,
        zerotier: ZeroTier,
        cleanup: Cleanup,
    ) -> None:
        self.left = asyncio.Event()
        self.replaced = asyncio.Event()
        self._store = store
        self._membership = membership
        self._services = services
        self._readiness = readiness
        self._pins = pins
        self._zerotier = zerotier
        self._cleanup = cleanup
        self._under_way = asyncio.Lock()
        self._going: asyncio.Task[None] | None = None

    async def leave(
        self,
        emit: wire.Emit,
        *,
        force: bool,
        network: bool,
        stated: Callable[[], None] = lambda: None,
    ) -> None:
        """Leave the mesh. force: even where content would be lost. network: leave the ZeroTier network too.

        stated: called once the roster states that this node is no member; from there on there is no way back.

        Raises MeshError NO_MESH, NOT_READY, BUSY, LAST_COPY, FEWER_COPIES; then all is as before.
        """
        if self._under_way.locked():
            raise MeshError(
                Code.BUSY,
                "cannot leave now",
                "another leave is under way here",
                "see how it went: meshctl status",
            )
        await self._under_way.acquire()
        try:
            mesh = self._store.mesh
            if mesh is None:
                raise MeshError(Code.NO_MESH, "cannot leave", "this node is in no mesh", "meshctl status")
            cut_off = None if self._store.forgotten else await self._hand_over(emit, force=force)
        except BaseException:
            self._under_way.release()
            raise
        stated()
        self._going = asyncio.create_task(self._go(mesh, _detached(emit), network=network), name="leave")
        self._going.add_done_callback(self._gone)
        if cut_off is not None:
            raise cut_off
        await asyncio.shield(self._going)

    async def _hand_over(self, emit: wire.Emit, *, force: bool) -> BaseException | None:
        """Drain, until the roster states that this node is no member.

        Returns the exception that cancelled the caller after that point, else None. Raises MeshError, and what cancels
        the caller before it; then all is as before.
        """
        if not force and not self._services.is_ready():
            raise MeshError(
                Code.NOT_READY,
                "cannot leave yet",
                f"whether the others hold what is here cannot be seen: {self._readiness.why_not()}",
                "meshctl status; or: meshctl leave --force (what only this node holds is gone then)",
            )
        self._pins.uploads.closed = True
        resign = self._membership.resign
        try:
            await self._pins.uploads.abort_all()
            if force:
                await resign()
            else:
                await self._pins.pinner.wait_committed()  # else the drain would not see what is told as kept
                await self._pins.drain.hand_over(emit, self._membership.exchange, resign)
        except MeshError:
            self._pins.uploads.closed = False
            raise
        except BaseException as exc:
            await self._store.settled()
            if self._store.forgotten:
                return exc
            self._pins.uploads.closed = False
            raise
        return None

    async def _go(self, mesh: MeshState, emit: wire.Emit, *, network: bool) -> None:
        """Do the rest, from which there is no way back. Goes on when the caller disconnects."""
        # Where others had forgotten this node they know it, and answer no more.
        if self._store.me().forgotten_by == self._store.fingerprint:
            await self._membership.say_goodbye(emit)
        await emit(wire.StepEvent(message="stopping kubo and the cluster"))
        async with asyncio.timeout(_STOP_S):
            await self._services.wait_stopped()
        await self._cleanup.run()
        if network and mesh.network:
            await self._leave_network(mesh.network, emit)
        self.left.set()
        async with asyncio.timeout(_STOP_S):
            await self.replaced.wait()  # so that a client that reads `done` finds the new node
        await emit(wire.LeftEvent(mesh=mesh.name))

    def _gone(self, going: asyncio.Task[None]) -> None:
        self._under_way.release()
        if not going.cancelled() and (failure := going.exception()) is not None:
            _LOG.error("cannot finish the leave; it can be typed again", error=str(failure), exc_info=failure)

    async def forget(self, name: str, *, force: bool) -> wire.Forgotten:
        """Have the mesh forget a member. Raises MeshError NOT_FOUND; and, unless `force`, LAST_COPY, BUSY."""
        member = self._membership.other(name)  # resolved once: the name may be another member's in a moment
        if force:
            return await self._membership.forget(member)
        return await self._pins.drain.forget(member, self._membership.exchange, self._membership.forget)

    async def _leave_network(self, network: str, emit: wire.Emit) -> None:
        try:
            await self._zerotier.leave(network)
            said = f"left the ZeroTier network {network}"
        except MeshError as exc:
            said = f"could not leave the ZeroTier network ({exc.detail}): sudo zerotier-cli leave {network}"
        await emit(wire.StepEvent(message=said))


def _detached(emit: wire.Emit) -> wire.Emit:
    """`emit` for a client that may disconnect: the work goes on without it."""

    async def said(event: wire.Wire) -> None:
        with contextlib.suppress(ConnectionError):
            await emit(event)

    return said
