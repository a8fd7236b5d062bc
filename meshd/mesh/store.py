"""The mesh's durable state, in one file: the write that admits a node spends its token, too.

Readers see memory, which changes only after a write has succeeded. Writers queue.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeVar

import structlog

from meshd import files
from meshd.errors import Code, MeshError
from meshd.mesh import admission, invites, roster, state, transitions
from meshd.mesh.state import MeshState, need
from meshd.wire import Admitted, Invite, Joiner, Member, Roster

_T = TypeVar("_T")
_LOG = structlog.get_logger(part="mesh")


class MeshStore:
    """`mesh.json` in the state folder. For one event loop; one store a folder."""

    def __init__(self, folder: Path, fingerprint: str, *, now: Callable[[], float] = time.time) -> None:
        """Blocks (reads the file). fingerprint: this node's. Raises MeshError BAD_STATE that names the file."""
        self._path = folder / "mesh.json"
        self._fingerprint = fingerprint
        self._now = now
        self._show(state.read(self._path, fingerprint))
        self._own: Joiner | None = None  # this node's last document
        self._leaving = 0.0  # since when this node leaves; the mark of an interrupted leave is taken back
        self._writing = asyncio.Lock()
        self._commits: set[asyncio.Task[object]] = set()
        self._subscribers: list[Callable[[], None]] = []

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def mesh(self) -> MeshState | None:
        """The whole state, immutable; None while this node is in no mesh."""
        return self._state

    @property
    def fingerprint(self) -> str:
        """This node's own fingerprint."""
        return self._fingerprint

    @property
    def forgotten(self) -> bool:
        """Whether the mesh has forgotten this node."""
        return self._state is not None and self._state.entries[self._fingerprint].forgotten

    def members(self) -> list[Member]:
        """The live members, this node included, in the order of admission."""
        return list(self._members)

    def peers(self) -> list[Member]:
        """The live members but this node."""
        return [member for member in self._members if member.fingerprint != self._fingerprint]

    def staying(self, without: str) -> list[Member]:
        """The members whose copies count once the node of that fingerprint is gone: see `roster.staying`."""
        return roster.staying(self._state.entries, without) if self._state else []

    def me(self) -> Member:
        """This node's own statement. Raises MeshError NO_MESH."""
        return need(self._state).entries[self._fingerprint]

    def by_fingerprint(self, fingerprint: str) -> Member | None:
        """The statement about that node, even where it is forgotten."""
        return self._state.entries.get(fingerprint) if self._state else None

    def by_name(self, name: str) -> Member | None:
        """The live member of that name (as `name_of` gives it; case does not matter)."""
        if self._state is None:
            return None
        for fingerprint, called in self._names.items():
            if called.casefold() == name.casefold():
                return self._state.entries[fingerprint]
        return None

    def name_of(self, fingerprint: str) -> str:
        """The unique name of that node; the beginning of its fingerprint where it is unknown."""
        called = self._names.get(fingerprint)
        known = self._state.entries.get(fingerprint) if self._state else None
        return called or (known.name if known else fingerprint[:16])

    def roster(self) -> Roster:
        """All statements, the forgotten ones included."""
        entries = self._state.entries if self._state else {}
        return Roster(members=[entries[key] for key in sorted(entries)])

    def digest(self) -> str:
        """The digest of the roster, equal where rosters are equal; "" while in no mesh."""
        return self._digest

    def invites(self) -> list[Invite]:
        """The invites that this node issued and nobody revoked, oldest first, without tokens. used_by: a name."""
        records = self._state.invites.values() if self._state else []
        return [
            Invite(
                id=record.id,
                created=record.created,
                expires=record.expires,
                used_by=self.name_of(record.used_by) if record.used_by else None,
            )
            for record in sorted(records, key=lambda record: (record.created, record.id))
            if not record.revoked
        ]

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the event loop after each change. It must neither block nor raise."""
        self._subscribers.append(callback)

    # -- becoming a member, and no longer being one ----------------------------------------------------------------

    async def create(self, mesh_name: str, own: Joiner, secrets_digest: str = "", network: str = "") -> None:
        """Found a mesh with this node as its only member.

        secrets_digest: of the secrets that were saved for it. network: id of its ZeroTier network, "" for none.

        Raises MeshError BAD_NAME, IN_OTHER_MESH, BAD_REQUEST.
        """

        def change(current: MeshState | None) -> tuple[MeshState, None]:
            founded = transitions.found(
                current,
                own,
                name=mesh_name,
                mesh_id=secrets.token_hex(16),
                secrets_digest=secrets_digest,
                network=network,
                me=self._fingerprint,
                now=self._now(),
            )
            return founded, None

        await self._commit(change)
        self._own = own

    async def adopt(self, admitted: Admitted, secrets_digest: str = "", network: str = "") -> bool:
        """Become a member, by another node's admission response; False where this node is in that mesh already.

        Save the secrets before. secrets_digest, network: see `create`. Raises MeshError IN_OTHER_MESH, BAD_REQUEST
        (the response cannot be used).
        """
        members = _valid(admitted.roster.members)
        return await self._commit(
            lambda current: transitions.adopt(
                current,
                admitted,
                members,
                secrets_digest=secrets_digest,
                network=network,
                me=self._fingerprint,
                now=self._now(),
            )
        )

    async def clear(self) -> None:
        """Remove the file: this node is in no mesh then. Raises MeshError BAD_STATE where it cannot be removed."""
        await self._commit(lambda _: (None, None))
        self._own, self._leaving = None, 0.0

    # -- the roster ------------------------------------------------------------------------------------------------

    async def merge(self, theirs: Roster) -> bool:
        """Merge another member's roster; whether anything is new. Logs invalid statements and leaves them out.

        Where the roster has a statement about this node that it did not make, it states itself anew. Raises MeshError
        NO_MESH.
        """
        valid = _valid(theirs.members)
        return await self._commit(
            lambda current: transitions.merge(
                current,
                valid,
                own=self._own,
                leaving=self._leaving,
                me=self._fingerprint,
                now=self._now(),
            )
        )

    async def update_self(self, own: Joiner) -> bool:
        """Update this node's statement (address, ports, ids, name, site); whether that changes it.

        Raises MeshError NO_MESH, BAD_REQUEST.
        """
        news = await self._commit(
            lambda current: transitions.restate(
                current, own, leaving=self._leaving, me=self._fingerprint, now=self._now()
            )
        )
        self._own = own
        return news

    async def set_leaving(self, leaving: bool) -> None:
        """State that this node leaves, or that it stays after all. Raises MeshError NO_MESH, BAD_STATE."""
        self._leaving = self._now() if leaving else 0.0

        def change(current: MeshState | None) -> tuple[MeshState, None]:
            marked = transitions.mark_leaving(current, self._leaving, me=self._fingerprint, now=self._now())
            return marked, None

        try:
            await self._commit(change)
        except MeshError:
            # So this node's next statement takes back what this write could not.
            self._leaving = 0.0
            raise

    async def forget(self, fingerprint: str, by: str, relying_on: Collection[str] = ()) -> bool:
        """State that a node is no member any more, for good (a tombstone); False where it was forgotten before.

        by: fingerprint of the node that states it. relying_on: fingerprints of those that hold the node's content.
        Raises MeshError NOT_FOUND, NO_MESH; and BUSY where one of these does not stay any more (see `staying`): then
        find out anew who holds it.
        """
        return await self._commit(
            lambda current: transitions.forget(
                current, fingerprint, by=by, relying_on=relying_on, now=self._now()
            )
        )

    # -- invites ---------------------------------------------------------------------------------------------------

    async def issue_invite(self, expires_s: float, addresses: Iterable[str] = ()) -> Invite:
        """Issue an invite, with its line in `invite` (only here), and with the mesh's ZeroTier network.

        addresses: "ip:port" of this node's peer API; default: by its own statement. Raises MeshError NO_MESH,
        FORGOTTEN.
        """

        def change(current: MeshState | None) -> tuple[MeshState, Invite]:
            known = self._member_state(current)
            changed, record, token = admission.issue(known, expires_s, self._now())
            me = known.entries[self._fingerprint]
            reached_at = tuple(addresses) or (invites.host_port(me.address, me.peer_port),)
            line = admission.line(known, record, token, issuer=self._fingerprint, addresses=reached_at)
            return changed, Invite(id=record.id, created=record.created, expires=record.expires, invite=line)

        return await self._commit(change)

    async def revoke(self, invite_id: str) -> None:
        """Revoke an invite: it admits nobody any more. Raises MeshError NOT_FOUND, NO_MESH."""
        await self._commit(lambda current: (admission.revoke(need(current), invite_id), None))

    async def admit(self, invite_id: str, token: str, joiner: Joiner) -> tuple[Member, bool]:
        """Admit the holder of a token, durably; the member, and whether it is new. Raises as `admission.admit`.

        The caller has verified that the joiner has the key of its certificate.
        """

        def change(current: MeshState | None) -> tuple[MeshState, tuple[Member, bool]]:
            changed, member, new = admission.admit(
                self._member_state(current), invite_id, token, joiner, me=self._fingerprint, now=self._now()
            )
            return changed, (member, new)

        return await self._commit(change)

    async def admit_asked(self, joiner: Joiner) -> tuple[Member, bool]:
        """Admit a node that a person approved, as `admit` does. Raises as `admission.admit_asked`."""

        def change(current: MeshState | None) -> tuple[MeshState, tuple[Member, bool]]:
            known = self._member_state(current)
            changed, member, new = admission.admit_asked(known, joiner, me=self._fingerprint, now=self._now())
            return changed, (member, new)

        return await self._commit(change)

    async def settled(self) -> None:
        """Return when no write is under way: the write of a cancelled caller goes on without it."""
        await asyncio.gather(*self._commits, return_exceptions=True)

    # -- the one way to change -------------------------------------------------------------------------------------

    async def _commit(self, change: Callable[[MeshState | None], tuple[MeshState | None, _T]]) -> _T:
        """Write the state that `change` returns, then publish it. Cancelling the caller does not interrupt it."""
        task = asyncio.create_task(self._apply(change), name="mesh.json")
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        return await asyncio.shield(task)

    async def _apply(self, change: Callable[[MeshState | None], tuple[MeshState | None, _T]]) -> _T:
        async with self._writing:
            changed, answer = change(self._state)
            if changed is self._state:
                return answer
            try:
                if changed is None:
                    await asyncio.to_thread(state.remove, self._path)
                else:
                    await asyncio.to_thread(state.write, self._path, changed)
            except OSError as exc:
                raise files.unusable(exc, f"cannot write {self._path}") from exc
            self._show(changed)
        for callback in self._subscribers:
            callback()
        return answer

    def _show(self, changed: MeshState | None) -> None:
        """Publish a state, with what derives from its roster computed once: readers ask several times a second."""
        entries = changed.entries if changed else {}
        self._state = changed
        self._digest = roster.digest(entries) if changed else ""
        self._members = roster.live(entries)
        self._names = roster.names(entries)

    def _member_state(self, current: MeshState | None) -> MeshState:
        known = need(current)
        if known.entries[self._fingerprint].forgotten:
            raise MeshError(
                Code.FORGOTTEN,
                f"cannot let anybody into {known.name}",
                "this node was forgotten by the mesh",
                "type meshctl leave here, then join again with an invite of a member",
            )
        return known


def _valid(members: Iterable[Member]) -> list[Member]:
    """The statements that can be used. Logs the others."""
    valid: list[Member] = []
    for member in members:
        try:
            roster.check_member(member)
            valid.append(member)
        except ValueError as exc:
            _LOG.warning(
                "a statement of the roster was refused",
                fingerprint=member.fingerprint[:64],
                cause=str(exc),
            )
    return valid
