"""Membership changes: init, join, forget and leave, as steps that a person can follow."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Iterable

import structlog

from meshd import files, wire
from meshd.cluster.wiring import Engines
from meshd.config import Config, check_node_name
from meshd.errors import Code, MeshError
from meshd.mesh import invites
from meshd.mesh.identity import Identity
from meshd.mesh.join_by_invite import join
from meshd.mesh.join_by_network import JoinByNetwork, unless_answered
from meshd.mesh.pairing import ask
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.secret_store import SecretStore
from meshd.mesh.secrets import Secrets
from meshd.mesh.state_check import JoinTransaction
from meshd.mesh.store import MeshStore
from meshd.model import OverlayState
from meshd.overlay.monitor import Overlay
from meshd.wire import verbs

_LOG = structlog.get_logger(part="membership")

_HINT = "mend that, then try again; what this machine has is shown by: meshctl status"


class Membership:
    """The steps of a membership change. Enter `alone` first: one init or join at a time."""

    def __init__(
        self,
        *,
        config: Config,
        identity: Identity,
        store: MeshStore,
        secret_store: SecretStore,
        peers: PeerClient,
        overlay: Overlay,
        engines: Engines,
    ) -> None:
        self._config = config
        self._identity = identity
        self._store = store
        self._secret_store = secret_store
        self._peers = peers
        self._overlay = overlay
        self._engines = engines
        self._by_network = JoinByNetwork(config, overlay)
        self.moved_from = ""  # the previous address, where this node has got another one since meshd started
        self._one_at_a_time = asyncio.Lock()
        self._questions: dict[str, asyncio.Future[bool]] = {}  # fingerprint -> whether it is the right member

    def mesh(self) -> wire.Mesh | None:
        """The mesh as the API shows it."""
        state = self._store.mesh
        if state is None:
            return None
        return wire.Mesh(
            name=state.name,
            id=state.id,
            members=len(self._store.members()),
            joined=state.joined,
            replicas=self._config.pins.replicas,
            network=state.network,
        )

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Exclude any other init or join here meanwhile. Raises MeshError BUSY where one is under way."""
        if self._one_at_a_time.locked():
            raise MeshError(
                Code.BUSY,
                "cannot begin now",
                "another init or join is under way on this node",
                "wait for it to end; see how it went: meshctl status",
            )
        async with self._one_at_a_time:
            yield

    async def init(self, name: str, network: str, emit: wire.Emit) -> int | None:
        """Found a mesh, on that ZeroTier network if one is given.

        Returns its number of entries, 0; None where this node is in a mesh of that name already. Raises MeshError
        IN_OTHER_MESH, NO_OVERLAY, BAD_CONFIG.
        """
        current = self._store.mesh
        if current is not None:
            if name not in (current.name, "mesh") or network not in (current.network, ""):
                raise _in_other_mesh(current.name, f"begin {name}")
            return None
        async with (
            self._attempt("cannot found a mesh"),
            self._by_network.on(network, emit, again=f"meshctl init --network {network}", founding=True),
        ):
            own = await self._own(self._config.node.name, emit)
            secrets = await asyncio.to_thread(self._secret_store.founding)
            await asyncio.to_thread(self._secret_store.save, secrets)
            await self._store.create(name, own, secrets.digest(), self._network())
        _LOG.info("mesh founded", mesh=name)
        return 0

    async def join(self, invite_text: str, node_name: str | None, emit: wire.Emit) -> int | None:
        """Join by invite; the mesh's number of entries, or None where this node is in it already.

        Raises MeshError BAD_INVITE, INVITE_*, NAME_TAKEN, ...
        """
        invitation = invites.decode(invite_text, 0.0)  # an expired invite to this very mesh is no error
        current = self._store.mesh
        if current is not None:
            if current.id != invitation.mesh_id:
                raise _in_other_mesh(current.name, f"join {invitation.mesh_name}")
            return None
        invites.decode(invite_text, time.time())  # begin nothing for an expired one
        name = self._config.node.name if node_name is None else _checked(node_name)
        async with (
            self._attempt(f"cannot join {invitation.mesh_name}"),
            self._by_network.on(invitation.network, emit, again="meshctl join"),
        ):
            own = await self._own(name, emit)
            asked = ", ".join(invitation.addresses)
            await emit(wire.StepEvent(message=f"asking {asked} to admit this node"))
            admitted = await join(invite_text, own, self._identity, self._peers)
            await self._become(admitted, name)
        return admitted.entries

    async def join_network(
        self, network: str, node_name: str | None, emit: wire.Emit, *, confirm: bool = True
    ) -> int | None:
        """Join the mesh on a ZeroTier network: find its members, ask them, and wait until a person there approves.

        confirm: wait, too, until a person here says that it was the right member. Returns the mesh's number of
        entries; None where this node is in a mesh on that network already. Raises MeshError IN_OTHER_MESH, NO_OVERLAY,
        BAD_CONFIG, and what `ask` raises.
        """
        current = self._store.mesh
        if current is not None:
            if current.network != network:
                raise _in_other_mesh(current.name, f"join the mesh on {network}")
            return None
        name = self._config.node.name if node_name is None else _checked(node_name)
        again = f"meshctl join {network}"
        async with (
            self._attempt(f"cannot join the mesh on {network}"),
            self._by_network.on(network, emit, again=again),
            self._by_network.seeker(network) as seeker,
        ):
            own = await self._own(name, emit)
            await emit(wire.StepEvent(message="looking for members of a mesh on it"))
            async with unless_answered(network, emit) as tell:
                admitted = await ask(
                    seeker.found,
                    own,
                    self._identity,
                    self._peers,
                    tell,
                    again=again,
                    confirm=self._confirmed if confirm else None,
                )
            await self._become(admitted, name)
        return admitted.entries

    def confirm(self, answer: wire.ConfirmAdmission) -> None:
        """Take a person's answer whether an admitting member is the right one. Raises MeshError NOT_FOUND."""
        question = self._questions.get(answer.fingerprint)
        if question is None or question.done():
            raise MeshError(
                Code.NOT_FOUND,
                "cannot confirm that",
                "no member of that fingerprint has admitted this node just now",
                "meshctl join",
            )
        question.set_result(answer.right)

    async def _confirmed(self, event: wire.ConfirmEvent) -> bool:
        question: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._questions[event.fingerprint] = question
        try:
            return await question
        finally:
            del self._questions[event.fingerprint]

    async def _become(self, admitted: wire.Admitted, name: str) -> None:
        """Become a member of the mesh that admitted this node: save the secrets first, then the state."""
        secrets = Secrets(admitted.swarm_key, admitted.cluster_secret)
        try:
            await asyncio.to_thread(self._secret_store.save, secrets)
        except MeshError as exc:  # the mesh's secrets are known only after the admission
            hint = f"{exc.hint}; then on a member: meshctl forget {name}; and join again"
            raise MeshError(exc.code, exc.title, exc.detail, hint) from None
        await self._store.adopt(admitted, secrets.digest(), self._network())
        _LOG.info("mesh joined", mesh=admitted.mesh_name)

    def _network(self) -> str:
        """Id of the ZeroTier network that this node is on now, "" for another overlay."""
        return self._overlay.state.network

    async def follow_address(self) -> None:
        """Update this node's address in the roster, if it has changed."""
        state = self._overlay.state
        if self._store.mesh is None or self._store.forgotten or state.address is None:
            return
        me = self._store.me()
        own = self._joiner(me.name, me.kubo_id, me.cluster_id, state)
        if me.address != state.address:
            self.moved_from = me.address
        if await self._store.update_self(own):
            _LOG.info("the roster says where this node is", address=state.address)

    def other(self, name: str) -> wire.Member:
        """The member of that name, other than this node. Raises MeshError NOT_FOUND, BAD_REQUEST."""
        member = self._store.by_name(name)
        if member is None:
            raise MeshError(
                Code.NOT_FOUND, f"cannot forget {name!a}", "no member has that name", "meshctl peers"
            )
        if member.fingerprint == self._store.fingerprint:
            raise MeshError(Code.BAD_REQUEST, f"cannot forget {name}", "it is this node", "meshctl leave")
        return member

    async def forget(self, member: wire.Member, relying_on: Collection[str] = ()) -> wire.Forgotten:
        """Remove a member from the mesh for good. relying_on: see `MeshStore.forget`. Raises MeshError BUSY."""
        name = self._store.name_of(member.fingerprint)
        await self._store.forget(member.fingerprint, by=self._store.fingerprint, relying_on=relying_on)
        await self.exchange(self._store.peers())
        return wire.Forgotten(name=name)

    async def resign(self, relying_on: Collection[str] = ()) -> None:
        """State that this node is no member any more. relying_on: see `MeshStore.forget`. Raises MeshError BUSY."""
        me = self._store.fingerprint
        await self._store.forget(me, by=me, relying_on=relying_on)

    async def exchange(self, members: Iterable[wire.Member]) -> set[str]:
        """Exchange rosters with those members at once; the fingerprints of those that have this node's now."""
        roster = self._store.roster()

        async def one(member: wire.Member) -> str:
            try:
                theirs = await self._peers.call(member, verbs.EXCHANGE_ROSTERS, roster)
            except MeshError:
                return ""  # it is away; a later beat brings it the roster
            if self._store.mesh is not None:
                await self._store.merge(theirs)
            return member.fingerprint

        return set(await asyncio.gather(*(one(m) for m in members))) - {""}

    async def say_goodbye(self, emit: wire.Emit) -> None:
        """Send the members the roster in which this node has left. emit must not raise: there is no way back."""
        everyone = self._store.peers()
        told = len(await self.exchange(everyone))
        if everyone:
            await emit(wire.StepEvent(message=f"told {told} of {len(everyone)} members"))
            if not told:
                hint = "on a member: meshctl forget " + self._config.node.name
                await emit(wire.StepEvent(message=f"nobody could be told; {hint}"))

    @contextlib.asynccontextmanager
    async def _attempt(self, title: str) -> AsyncIterator[None]:
        """A transaction around a join: a failure rolls the state folder back. Raises MeshError, also for an OSError.

        Looks for the engines first, so that nobody authorizes and approves a machine that cannot run them.
        """
        try:
            attempt = await asyncio.to_thread(JoinTransaction, self._config.state)
        except OSError as exc:
            raise files.unusable(exc, title) from exc
        try:
            await self._engines.find()
            yield
        except BaseException as exc:
            await self._store.settled()
            if self._store.mesh is None:
                await self._undo(attempt)
            if isinstance(exc, OSError) and not isinstance(exc, ConnectionError):  # that one is the caller's
                raise files.unusable(exc, title) from exc
            if (
                isinstance(exc, MeshError) and not exc.hint
            ):  # an engine's own output, whose last lines say why
                why = exc.detail.splitlines()[-1] if exc.detail else ""
                full = "no space left" in why or "disk quota exceeded" in why
                room = f"make room, then try again: df -h {self._config.state}; df -i {self._config.state}"
                raise MeshError(exc.code, f"{title}: {exc.title}", why, room if full else _HINT) from exc
            raise

    async def _undo(self, attempt: JoinTransaction) -> None:
        try:
            await asyncio.to_thread(attempt.undo)
        except OSError as exc:  # the first failure is reported; the next attempt cleans up
            _LOG.warning("cannot clear away what was begun", error=str(exc))

    async def _own(self, name: str, emit: wire.Emit) -> wire.Joiner:
        """This node's document for its admission. Makes the engines' folders first, for their ids."""
        state = self._overlay.state
        if state.address is None:
            problem = state.problem
            raise MeshError(
                Code.NO_OVERLAY,
                "cannot begin: " + (problem.title if problem else "there is no overlay address"),
                problem.cause if problem else "",
                problem.hint if problem else "meshctl status",
            )
        await emit(wire.StepEvent(message="preparing kubo and the cluster"))
        kubo_id, cluster_id = await self._engines.create()
        return self._joiner(name, kubo_id, cluster_id, state)

    def _joiner(self, name: str, kubo_id: str, cluster_id: str, state: OverlayState) -> wire.Joiner:
        ports = self._config.ports
        return wire.Joiner(
            name=name,
            certificate=self._identity.certificate,
            address=state.address or "",
            zerotier=state.node,
            peer_port=ports.peer,
            swarm_port=ports.swarm,
            cluster_port=ports.cluster,
            kubo_id=kubo_id,
            cluster_id=cluster_id,
            site=self._config.node.site,
        )


def _checked(name: str) -> str:
    try:
        return check_node_name(name)
    except ValueError as exc:
        raise MeshError(
            Code.BAD_NAME, f"cannot use {name!a} as this node's name", str(exc), "meshctl join --name attic"
        ) from exc


def _in_other_mesh(name: str, what: str) -> MeshError:
    return MeshError(
        Code.IN_OTHER_MESH,
        f"cannot {what}",
        f"this node is in the mesh {name}",
        "meshctl leave, then try again",
    )
