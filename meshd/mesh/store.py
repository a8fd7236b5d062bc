"""The mesh's durable state, in one file: the write that admits a node spends its token, too.

Readers see memory, which changes only after a write has succeeded. Writers queue.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeVar

import structlog

from meshd import files
from meshd.config import NODE_NAME
from meshd.errors import Code, MeshError
from meshd.mesh import admission, invites, roster, state
from meshd.mesh.state import MeshState, in_a_mesh, need
from meshd.wire import Admitted, Invite, Joiner, Member, Roster

_T = TypeVar("_T")
_LOG = structlog.get_logger(part="mesh")
_MESH_ID = re.compile(r"[0-9a-f]{32}")


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
        if not NODE_NAME.fullmatch(mesh_name):
            raise MeshError(
                Code.BAD_NAME,
                "cannot give the mesh that name",
                "a name is 1 to 63 of the letters a-z, A-Z, digits, '.', '_' and '-', and begins and ends with a letter or digit",
                "meshctl init --name archive",
            )
        self._check_own(own)

        def change(current: MeshState | None) -> tuple[MeshState, None]:
            if current is not None:
                raise in_a_mesh(current)
            now = self._now()
            member = roster.member_of(
                own,
                self._fingerprint,
                admitted_by=self._fingerprint,
                admitted=now,
                stamp=roster.next_stamp(now),
            )
            entries = {self._fingerprint: member}
            mesh_id = secrets.token_hex(16)
            return MeshState(mesh_name, mesh_id, now, now, entries, {}, secrets_digest, network), None

        await self._commit(change)
        self._own = own

    async def adopt(self, admitted: Admitted, secrets_digest: str = "", network: str = "") -> bool:
        """Become a member, by another node's admission response; False where this node is in that mesh already.

        Save the secrets before. secrets_digest, network: see `create`. Raises MeshError IN_OTHER_MESH, BAD_REQUEST
        (the response cannot be used).
        """
        entries = roster.merge({}, self._usable(admitted.roster.members))
        mine = entries.get(self._fingerprint)
        named = NODE_NAME.fullmatch(admitted.mesh_name) and _MESH_ID.fullmatch(admitted.mesh_id)
        if mine is None or mine.forgotten or not named:
            raise MeshError(
                Code.BAD_REQUEST,
                "cannot join",
                "the answer does not hold this node",
                "update meshd on both machines",
            )

        def change(current: MeshState | None) -> tuple[MeshState, bool]:
            if current is None:
                now = self._now()
                name, mesh_id = admitted.mesh_name, admitted.mesh_id
                state = MeshState(name, mesh_id, admitted.created, now, entries, {}, secrets_digest, network)
                return state, True
            if current.id != admitted.mesh_id:
                raise in_a_mesh(current)
            return dataclasses.replace(
                current, entries=roster.merge(current.entries, entries.values())
            ), False

        return await self._commit(change)

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
        now = self._now()
        usable = [roster.without_future_mark(member, now) for member in self._usable(theirs.members)]

        def change(current: MeshState | None) -> tuple[MeshState, bool]:
            known = need(current)
            entries = roster.merge(known.entries, usable)
            mine = entries[self._fingerprint]
            if self._own is not None and not mine.forgotten:
                entries[self._fingerprint] = self._said(mine, self._own)
            if entries == known.entries:
                return known, False
            return dataclasses.replace(known, entries=entries), True

        return await self._commit(change)

    async def update_self(self, own: Joiner) -> bool:
        """Update this node's statement (address, ports, ids, name, site); whether that changes it.

        Raises MeshError NO_MESH, BAD_REQUEST.
        """
        self._check_own(own)

        def change(current: MeshState | None) -> tuple[MeshState, bool]:
            known = need(current)
            mine = known.entries[self._fingerprint]
            said = mine if mine.forgotten else self._said(mine, own)
            if said is mine:
                return known, False
            return dataclasses.replace(known, entries={**known.entries, self._fingerprint: said}), True

        news = await self._commit(change)
        self._own = own
        return news

    def _said(self, mine: Member, own: Joiner) -> Member:
        """`mine` updated with this node's current document; the same object where nothing is new."""
        now = self._now()
        return roster.with_leaving_mark(roster.restated(mine, own, now), self._leaving, now)

    async def set_leaving(self, leaving: bool) -> None:
        """State that this node leaves, or that it stays after all. Raises MeshError NO_MESH, BAD_STATE."""
        self._leaving = self._now() if leaving else 0.0

        def change(current: MeshState | None) -> tuple[MeshState, None]:
            known = need(current)
            said = roster.with_leaving_mark(known.entries[self._fingerprint], self._leaving, self._now())
            return dataclasses.replace(known, entries={**known.entries, self._fingerprint: said}), None

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

        def change(current: MeshState | None) -> tuple[MeshState, bool]:
            known = need(current)
            member = known.entries.get(fingerprint)
            if member is None:
                raise MeshError(
                    Code.NOT_FOUND,
                    "cannot forget that node",
                    "the mesh does not know it",
                    "see who is there: meshctl peers",
                )
            if member.forgotten:
                return known, False
            stay = {m.fingerprint for m in roster.staying(known.entries, fingerprint)}
            if not stay.issuperset(relying_on):
                raise MeshError(
                    Code.BUSY,
                    "cannot forget that node now",
                    "others are leaving at this moment",
                    "meshctl peers",
                )
            gone = roster.forgotten(member, by, self._now())
            return dataclasses.replace(known, entries={**known.entries, fingerprint: gone}), True

        return await self._commit(change)

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

    def _usable(self, members: Iterable[Member]) -> list[Member]:
        usable: list[Member] = []
        for member in members:
            try:
                roster.check_member(member)
                usable.append(member)
            except ValueError as exc:
                _LOG.warning(
                    "a statement of the roster was refused",
                    fingerprint=member.fingerprint[:64],
                    cause=str(exc),
                )
        return usable

    def _check_own(self, own: Joiner) -> None:
        if roster.check_joiner(own) != self._fingerprint:
            raise MeshError(
                Code.BAD_REQUEST, "cannot speak for this node", "the certificate is another node's"
            )

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
