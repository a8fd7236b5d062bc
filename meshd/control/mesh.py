"""/v1/mesh, /v1/invites, /v1/peers: who belongs to the mesh."""

from __future__ import annotations

from meshd import wire
from meshd.control.status import StatusApi
from meshd.errors import MeshError
from meshd.http.request import Request
from meshd.http.route import Events
from meshd.joining import Joining
from meshd.leaving import Leaving
from meshd.mesh import invites
from meshd.mesh.network_admin import NetworkAdmin
from meshd.mesh.seeds import Seeds
from meshd.mesh.store import MeshStore
from meshd.operations.api import answer
from meshd.operations.registry import Operation, Operations, Work


class MeshApi:
    def __init__(
        self,
        *,
        joining: Joining,
        store: MeshStore,
        status: StatusApi,
        leaving: Leaving,
        admin: NetworkAdmin,
        seeds: Seeds,
        operations: Operations,
    ) -> None:
        self._joining = joining
        self._store = store
        self._status = status
        self._leaving = leaving
        self._admin = admin
        self._seeds = seeds
        self._operations = operations

    async def init(self, request: Request) -> Events:
        wanted = request.read(wire.InitRequest)

        async def work(operation: Operation) -> None:
            network = (wanted.network or "").lower()
            await self._joining.init(wanted.name, network, operation.emit, member=operation.untie)

        return self._begin(request, "init", wanted.name, work)

    async def join(self, request: Request) -> Events:
        wanted = request.read(wire.JoinRequest)

        async def by_network(operation: Operation) -> None:
            await self._joining.join_network(
                network, wanted.name, operation.emit, confirm=wanted.confirm, member=operation.untie
            )

        async def by_invite(operation: Operation) -> None:
            await self._joining.join(invite, wanted.name, operation.emit, member=operation.untie)

        network, invite = (wanted.network or "").lower(), wanted.invite or ""
        if network:
            return self._begin(request, "join", network, by_network)
        return self._begin(request, "join", invites.decode(invite, None).mesh_name, by_invite)

    async def confirm(self, request: Request) -> wire.Heard:
        """Answer the `confirm` event of a join by network"""
        self._joining.confirm(request.read(wire.ConfirmAdmission))
        return wire.Heard()

    async def leave(self, request: Request) -> Events:
        """?force=1: also where content would be lost; ?network=1: leave the ZeroTier network too"""
        force, network = request.query.flag("force"), request.query.flag("network")

        async def work(operation: Operation) -> None:
            await self._leaving.leave(operation.emit, force=force, network=network, stated=operation.untie)

        mesh = self._store.mesh
        return self._begin(request, "leave", "" if mesh is None else mesh.name, work)

    def _begin(self, request: Request, verb: str, subject: str, work: Work) -> Events:
        """These are undone where their caller goes away before they are committed."""
        return answer(self._operations.begin(verb, subject, request.principal.label, work, tied=True))

    async def invites(self, request: Request) -> wire.Invites:
        return wire.Invites(invites=self._store.invites())

    async def invite(self, request: Request) -> wire.Invite:
        wanted = request.read(wire.InviteRequest)
        made = await self._store.issue_invite(wanted.expires_s)
        made.note = await self._onto_network(wanted.node)
        return made

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

    async def revoke(self, request: Request) -> wire.Invites:
        await self._store.revoke(request.params["id"])
        return wire.Invites(invites=self._store.invites())

    async def peers(self, request: Request) -> wire.Peers:
        return wire.Peers(peers=await self._status.peers())

    async def set_address(self, request: Request) -> wire.PeerAddress:
        """Call that member at this address, once it was seen there"""
        wanted = request.read(wire.PeerAddressRequest)
        return await self._seeds.set_address(request.params["name"], wanted.address)

    async def forget(self, request: Request) -> wire.Forgotten:
        """?force=1: also where it holds the last copy of something"""
        name, force = request.params["name"], request.query.flag("force")
        return await self._leaving.forget(name, force=force)
