"""The outcome of an interrupted operation, as far as this node can find out afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from meshd import wire
from meshd.errors import Code, MeshError, quoted
from meshd.mesh.store import MeshStore
from meshd.operations.store import Record
from meshd.pins import entries, trash
from meshd.pins.catalogue import Catalogue
from meshd.pins.trash import Journal

_OF_AN_ENTRY = ("pin", "restore", "recover")
_EARLIER_S = 1.0  # an entry's time is taken a moment after its operation began, by the same clock


@dataclass(frozen=True, slots=True)
class Outcome:
    """detail, hint: for a person. settled: another look later would find nothing more."""

    detail: str
    hint: str
    settled: bool = True


class Aftermath:
    """Finds the outcome in the pinset, the trash and the roster. Read-only."""

    def __init__(self, store: MeshStore, catalogue: Catalogue, journal: Journal) -> None:
        self._store = store
        self._catalogue = catalogue
        self._journal = journal

    async def look(self, record: Record) -> Outcome:
        """The outcome of an operation. Raises MeshError where it cannot be known yet."""
        if record.verb in _OF_AN_ENTRY:
            return await self._of_entry(record)
        mesh = self._store.mesh
        name = "" if mesh is None else mesh.name
        if record.verb == "leave":
            return of_leave(name, forgotten=self._store.forgotten)
        return of_join(record.verb, "" if self._store.forgotten else name)

    async def _of_entry(self, record: Record) -> Outcome:
        lying = None if record.cid else self._lying(record)
        found = await self._found(record, lying)
        if found is None:
            return of_no_entry(record, in_trash=lying is not None)
        view = self._catalogue.view(found)
        await self._catalogue.fill_copies([view])
        return of_entry(record, view, members=len(self._store.members()))

    def _lying(self, record: Record) -> str | None:
        """CID of the entry that an interrupted restore had not put back yet; None where the trash has it no more."""
        if record.verb != "restore":
            return None
        removed = [trash.pin_of(removal) for removal in self._journal.all()]
        try:
            return entries.resolve(
                record.subject, removed, where="the trash", listed_by="meshctl trash"
            ).pin.cid
        except MeshError:
            return None

    async def _found(self, record: Record, lying: str | None) -> entries.NumberedPin | None:
        """The operation's entry in the pinset, as it is now."""
        try:
            found = await self._catalogue.find(record.cid or lying or record.subject)
        except MeshError as exc:
            if exc.code is not Code.NOT_FOUND:
                raise
            return None
        pin = found.pin
        if record.verb == "pin" and not record.cid:
            # It was interrupted before it was recorded which entry is its own: an older one of that name is not.
            mine = pin.owner == self._store.fingerprint and pin.time >= record.began - _EARLIER_S
            return found if mine else None
        return found


def of_entry(record: Record, view: wire.Entry, *, members: int) -> Outcome:
    """The outcome for an entry in the pinset. Pure. members: their number, which `all` replicas means."""
    wanted, held = (members if view.wanted == "all" else view.wanted), view.held or 0
    kept = f"{_SINCE}{view.name} is {'back' if record.verb == 'restore' else 'kept'}"
    look = f"meshctl ls {quoted(view.name)}"
    if held >= wanted:
        return Outcome(f"{kept}, with {'its one copy' if wanted == 1 else f'all its {wanted} copies'}", look)
    if held >= members:
        return Outcome(f"{kept}, with {held} of {wanted} copies, as many as there can be now", look)
    away = sorted(c.node for c in view.copies if c.state == "unknown")
    lacks = f"; {', '.join(away)} cannot be asked" if away else ""
    detail = f"{kept}, with {held} of {wanted} copies{lacks}; the mesh makes the others by itself"
    return Outcome(detail, look, settled=not away)


def of_no_entry(record: Record, *, in_trash: bool) -> Outcome:
    """The outcome for an entry that is not in the pinset. Pure."""
    name = record.subject
    if in_trash:
        return Outcome(f"{_SINCE}{name} is in the trash still", f"meshctl restore {quoted(name)}")
    if record.verb == "pin":
        return Outcome(f"{_SINCE}{name} is not kept, and nothing of it stays pinned", "the same again")
    return Outcome(f"{_SINCE}{name} is not kept any more", "meshctl ls; meshctl trash")


def of_join(verb: str, mesh: str) -> Outcome:
    """The outcome of init and join. Pure. mesh: the one that this node is a member of, "" for none."""
    if mesh:
        return Outcome(f"{_SINCE}this node is a member of {mesh}", "meshctl status")
    return Outcome(f"{_SINCE}this node is in no mesh, as before", f"meshctl {verb}")


def of_leave(mesh: str, *, forgotten: bool) -> Outcome:
    """The outcome of leave. Pure. forgotten: the mesh knows already that this node is no member."""
    if not mesh:
        return Outcome(f"{_SINCE}this node left, and nothing of the mesh is here any more", "meshctl status")
    if forgotten:
        return Outcome(
            f"{_SINCE}this node is no member of {mesh} any more, and what it held is here still",
            "meshctl leave",
        )
    return Outcome(f"{_SINCE}this node is a member of {mesh} still, and stays", "meshctl leave")


_SINCE = "it was interrupted; "
