"""`X joined, approved by A`: told in every node's status until somebody has read it there."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path

from meshd import files
from meshd.errors import MeshError
from meshd.mesh.store import MeshStore
from meshd.wire import Member


class Notices:
    """Remembers, in one small file, which members a person on this node has read about."""

    def __init__(self, path: Path, store: MeshStore) -> None:
        self._path = path
        self._store = store
        self._marking = threading.Lock()
        self._read: set[str] = self._load()

    def _load(self) -> set[str]:
        try:
            document = files.read_json(self._path)
        except (FileNotFoundError, MeshError):  # at worst a person reads it a second time
            return set()
        return {str(f) for f in document} if isinstance(document, list) else set()

    def unread(self) -> tuple[tuple[str, str, str], ...]:
        """(name, name of who admitted it, how) of members that joined after this node and were not read about."""
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
        """A person has seen what was said of these members. Blocks for one small write. Threads may call it."""
        known = {m.fingerprint: self._store.name_of(m.fingerprint) for m in self._store.peers()}
        shown = {fingerprint for fingerprint, name in known.items() if name in names}
        with self._marking:
            if shown - self._read:
                self._read = (self._read | shown) & known.keys()
                files.write_json(self._path, sorted(self._read))


def _how(member: Member, me: str, spent: Collection[str]) -> str:
    """Only the node that admitted it knows whether it had an invite: the roster says who it was, not how."""
    if member.admitted_by != me:
        return "let in"
    return "invited" if member.fingerprint in spent else "approved"
