"""/v1/mesh, /v1/invites, /v1/peers: who belongs to the mesh."""

from __future__ import annotations

from aiohttp import web

from meshd import wire
from meshd.control import query
from meshd.control.server import json_answer, read_request
from meshd.control.status import StatusApi
from meshd.control.streams import EventStream, stream
from meshd.errors import MeshError
from meshd.joining import Joining
from meshd.leaving import Leaving
from meshd.mesh.network_admin import NetworkAdmin
from meshd.mesh.seeds import Seeds
from meshd.mesh.store import MeshStore


class MeshApi:
    def __init__(
        self,
        joining: Joining,
        store: MeshStore,
        status: StatusApi,
        leaving: Leaving,
        admin: NetworkAdmin,
        seeds: Seeds,
    ) -> None:
        self._joining = joining
        self._store = store
        self._status = status
        self._leaving = leaving
        self._admin = admin
        self._seeds = seeds

    async def init(self, request: web.Request) -> web.StreamResponse:
        wanted = await read_request(request, wire.InitRequest)

        async def work(events: EventStream) -> None:
            await self._joining.init(wanted.name, (wanted.network or "").lower(), events.emit)

        return await stream(request, work)

    async def join(self, request: web.Request) -> web.StreamResponse:
        wanted = await read_request(request, wire.JoinRequest)

        async def work(events: EventStream) -> None:
            if wanted.network is not None:
                await self._joining.join_network(
                    wanted.network.lower(), wanted.name, events.emit, confirm=wanted.confirm
                )
            else:
                await self._joining.join(wanted.invite or "", wanted.name, events.emit)

        return await stream(request, work)

    async def confirm(self, request: web.Request) -> web.StreamResponse:
        """Answer the `confirm` event of a join by network"""
        self._joining.confirm(await read_request(request, wire.ConfirmAdmission))
        return json_answer(wire.Heard())

    async def leave(self, request: web.Request) -> web.StreamResponse:
        """?force=1: also where content would be lost; ?network=1: leave the ZeroTier network too"""
        force, network = query.flag(request, "force"), query.flag(request, "network")

        async def work(events: EventStream) -> None:
            await self._leaving.leave(events.emit, force=force, network=network)

        return await stream(request, work)

    async def invites(self, request: web.Request) -> web.StreamResponse:
        return json_answer(wire.Invites(invites=self._store.invites()))

    async def invite(self, request: web.Request) -> web.StreamResponse:
        wanted = await read_request(request, wire.InviteRequest)
        made = await self._store.issue_invite(wanted.expires_s)
        made.note = await self._onto_network(wanted.node)
        return json_answer(made)

    async def _onto_network(self, node: str | None) -> str:
        """What is still to be done so that the invited machine gets onto the mesh's network, "" for nothing."""
        network = self._admin.network
        if not network:
            return "" if node is None else "this mesh is on no ZeroTier network: nothing was to be authorized"
        if node is None:
            return (
                f"the one who joins waits until it is authorized on the network {network}; with its ZeroTier address:"
                " meshctl approve ADDRESS"
            )
        try:
            await self._admin.authorize(node.lower())
        except MeshError as exc:
            return f"{node} is not authorized on the network {network} yet ({exc.detail}): {exc.hint}"
        return f"{node} is authorized on the network {network}"

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        await self._store.revoke(request.match_info["id"])
        return json_answer(wire.Invites(invites=self._store.invites()))

    async def peers(self, request: web.Request) -> web.StreamResponse:
        return json_answer(wire.Peers(peers=await self._status.peers()))

    async def set_address(self, request: web.Request) -> web.StreamResponse:
        """Call that member at this address, once it was seen there"""
        wanted = await read_request(request, wire.PeerAddressRequest)
        return json_answer(await self._seeds.set_address(request.match_info["name"], wanted.address))

    async def forget(self, request: web.Request) -> web.StreamResponse:
        """?force=1: also where it holds the last copy of something"""
        name, force = request.match_info["name"], query.flag(request, "force")
        return json_answer(await self._leaving.forget(name, force=force))
