"""/v1/requests: nodes that ask to be let in, on the mesh's ZeroTier network and into the mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from meshd import wire
from meshd.config.zerotier import NODE_ADDRESS
from meshd.errors import Code, MeshError
from meshd.http.request import Request
from meshd.http.route import Events
from meshd.mesh.approval import Approval
from meshd.mesh.network_admin import NetworkAdmin
from meshd.wire import Emit

# An authorized node asks its controller again within seconds, and then looks for members, which takes a minute where the
# first look misses this one.
HELLO_S = 120.0
DOUBT_S = 20.0
BY_HAND_S = 600.0  # where a person authorizes it elsewhere first


class RequestsApi:
    """approval: the requests to join the mesh that this member has heard."""

    def __init__(self, approval: Callable[[], Approval], admin: NetworkAdmin) -> None:
        self._approval = approval
        self._admin = admin

    async def waiting(self, request: Request) -> wire.JoinRequests:
        """Who waits, on the network and for the mesh"""
        waiting = self._approval().views()
        why = ""
        try:
            waiting += await self._on_network({r.node for r in waiting})
        except MeshError as exc:
            why = f"{exc}; {exc.hint}"
        return wire.JoinRequests(requests=waiting, why_no_network=why)

    async def authorize(self, request: Request) -> Events:
        """Let a node onto the network, and wait until it asks to join the mesh; nothing is admitted by that"""
        ref = request.params["ref"]

        async def work(emit: Emit) -> None:
            if asking := self._asking(ref):
                await emit(wire.AuthorizedEvent(request=asking))
                return
            node = ref.lower()
            if not NODE_ADDRESS.fullmatch(node) or not self._admin.network:
                raise _unknown(ref)
            await self._let_onto_network(node, emit)
            await emit(await self._until_it_asks(node, emit))

        return Events(work)

    async def approve(self, request: Request) -> wire.Approved:
        """Admit the node whose code was compared"""
        wanted = request.read(wire.ApproveRequest)
        asked = self._id_of(request.params["ref"])
        return await self._approval().approve(asked, wanted.code)

    async def deny(self, request: Request) -> wire.JoinRequestView:
        """Tell a node that it is not let into the mesh"""
        return self._approval().deny(self._id_of(request.params["ref"]))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _asking(self, ref: str) -> wire.JoinRequestView | None:
        """The request of that id, name or ZeroTier address."""
        views = self._approval().views()
        for key in ("id", "node", "name"):
            found = [v for v in views if getattr(v, key).casefold() == ref.casefold()]
            if len(found) == 1:
                return found[0]
        return None

    def _id_of(self, ref: str) -> str:
        """Of that request; `ref` itself where none is found, for the answer to say so."""
        asking = self._asking(ref)
        return asking.id if asking else ref

    async def _on_network(self, asking: set[str]) -> list[wire.JoinRequestView]:
        waiting = [m for m in await self._admin.waiting() if m.address not in asking]
        seen_at = await self._admin.physical_addresses() if waiting else {}
        return [
            wire.JoinRequestView(
                id=m.address,
                stage="network",
                node=m.address,
                name=self._admin.member(m.address) or m.name,
                member=bool(self._admin.member(m.address)),
                address=seen_at.get(m.address, ""),
                since=m.since,
            )
            for m in waiting
        ]

    async def _let_onto_network(self, node: str, emit: Emit) -> None:
        network = self._admin.network
        if self._admin.has_right:
            await emit(wire.StepEvent(message=f"authorizing {node} on the network {network}"))
            await self._admin.authorize(node)
        else:
            elsewhere = self._admin.where_to_authorize(f"meshctl approve {node}")
            message = f"this node may not authorize {node} on {network}: {elsewhere}"
            await emit(wire.StepEvent(message=message))

    async def _until_it_asks(self, node: str, emit: Emit) -> wire.AuthorizedEvent:
        """Its request; or the member, where it is one already, or has an invite and does not ask."""
        if not self._admin.member(node):
            await emit(wire.StepEvent(message=f"waiting for {node} to ask to join"))
        join = f"meshctl join {self._admin.network}"
        began, doubted = asyncio.get_running_loop().time(), not self._admin.has_right
        patience = HELLO_S if self._admin.has_right else BY_HAND_S
        while True:
            if asking := self._asking(node):
                return wire.AuthorizedEvent(request=asking)
            if member := self._admin.member(node):
                return wire.AuthorizedEvent(member=member)
            waited = asyncio.get_running_loop().time() - began
            if waited > DOUBT_S and not doubted:
                doubted = True
                message = f"it has not asked yet; see that on that machine this still waits: {join}"
                await emit(wire.StepEvent(message=message))
            if waited > patience:
                raise MeshError(
                    Code.NOT_READY,
                    f"cannot approve {node} yet",
                    f"it may be on the network, and has not asked to join within {patience / 60:.0f} minutes",
                    f"on that machine type: {join}; then here again: meshctl approve {node}",
                )
            await asyncio.sleep(0.2)


def _unknown(ref: str) -> MeshError:
    return MeshError(
        Code.NOT_FOUND,
        f"cannot find a request of {ref}",
        "no node of that id, name or ZeroTier address asks",
        "meshctl requests",
    )
