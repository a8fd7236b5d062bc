"""Notices of new members, `X joined, approved by A`: in every node's status until a person has read it there."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path

from meshd import files
from meshd.errors import MeshError
from meshd.mesh.store import MeshStore
from meshd.wire import Member


class Notices:
    """Stores, in one small file, of which members a person on this node has read the notice."""

    def __init__(self, path: Path, store: MeshStore) -> None:
        self._path = path
        self._store = store
        self._marking = threading.Lock()
        self._read: set[str] = self._load()

    def _load(self) -> set[str]:
        try:
            document = files.read_json(self._path)
        except (FileNotFoundError, MeshError):  # at worst a person reads a notice twice
            return set()
        return {str(f) for f in document} if isinstance(document, list) else set()

    def unread(self) -> tuple[tuple[str, str, str], ...]:
        """(name, name of the member that admitted it, how) of members that joined after this node, still unread."""
        mesh = self._store.mesh
        if mesh is None:
            return ()
        spent = {record.used_by for record in mesh.invites.values()}
        return tuple(
            (
                self._store.name_of(m.fingerprint),
                self._store.name_of(m.admitted_by),
                _how(m, self._store.fingerprint, spent),
            )
            for m in self._store.peers()
            if m.fingerprint not in self._read and m.admitted > mesh.joined
        )

    def mark_read(self, names: Collection[str]) -> None:
        """Mark the notices of these members as read. Blocks for one small write. Thread-safe."""
        known = {m.fingerprint: self._store.name_of(m.fingerprint) for m in self._store.peers()}
        shown = {fingerprint for fingerprint, name in known.items() if name in names}
        with self._marking:
            if shown - self._read:
                self._read = (self._read | shown) & known.keys()
                files.write_json(self._path, sorted(self._read))


def _how(member: Member, me: str, spent: Collection[str]) -> str:
    """How a member joined. Only the node that admitted it knows of an invite: the roster says who admitted, not how."""
    if member.admitted_by != me:
        return "let in"
    return "invited" if member.fingerprint in spent else "approved"
