"""/v1/mesh, /v1/invites, /v1/peers: who belongs to the mesh."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from meshd import wire
from meshd.control import query
from meshd.control.server import json_answer, read_request
from meshd.control.status import StatusApi
from meshd.control.streams import EventStream, stream
from meshd.mesh.membership import Membership
from meshd.mesh.store import MeshStore
from meshd.pins.depart import Departure


class MeshApi:
    """reset: called when this node has left, to begin anew as a node of no mesh."""

    def __init__(
        self,
        membership: Membership,
        departure: Departure,
        store: MeshStore,
        status: StatusApi,
        leave: Callable[[EventStream, bool], Awaitable[None]],
    ) -> None:
        self._membership = membership
        self._departure = departure
        self._store = store
        self._status = status
        self._leave = leave

    async def init(self, request: web.Request) -> web.StreamResponse:
        wanted = await read_request(request, wire.InitRequest)

        async def work(events: EventStream) -> None:
            await self._membership.init(wanted.name, events.emit)

        return await stream(request, work)

    async def join(self, request: web.Request) -> web.StreamResponse:
        wanted = await read_request(request, wire.JoinRequest)

        async def work(events: EventStream) -> None:
            await self._membership.join(wanted.invite or "", wanted.name, events.emit)

        return await stream(request, work)

    async def leave(self, request: web.Request) -> web.StreamResponse:
        """?force=1: also where content would be lost"""
        force = query.flag(request, "force")

        async def work(events: EventStream) -> None:
            await self._leave(events, force)

        return await stream(request, work)

    async def invites(self, request: web.Request) -> web.StreamResponse:
        return json_answer(wire.Invites(invites=self._store.invites()))

    async def invite(self, request: web.Request) -> web.StreamResponse:
        wanted = await read_request(request, wire.InviteRequest)
        return json_answer(await self._store.issue_invite(wanted.expires_s))

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        await self._store.revoke(request.match_info["id"])
        return json_answer(wire.Invites(invites=self._store.invites()))

    async def peers(self, request: web.Request) -> web.StreamResponse:
        return json_answer(wire.Peers(peers=self._status.peers()))

    async def forget(self, request: web.Request) -> web.StreamResponse:
        """?force=1: also where it holds the last copy of something"""
        name = request.match_info["name"]
        if not query.flag(request, "force"):
            await self._departure.check_forget(name)
        return json_answer(await self._membership.forget(name))
