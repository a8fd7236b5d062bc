"""The registry of the state folder's files, as their rooms declare them: what leave removes, and which are secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from meshd import files

_BESIDE_A_DATABASE = ("-wal", "-shm")  # SQLite's, while a database is open and after a kill


class Of(StrEnum):
    MESH = "mesh"  # leave removes it
    # This node's identity in the mesh. Its own room removes it, once all else is gone.
    IDENTITY = "identity"
    MACHINE = "machine"  # stays


@dataclass(frozen=True, slots=True)
class StateFile:
    """One declared file. name: within the state folder; one that ends with "/" is a folder with all that is in it.

    secret: nobody else may read it. proves_mesh: where it exists, this node belonged to a mesh, which knows it by its
    key. database: SQLite's, with more files beside it.
    """

    name: str
    of: Of = Of.MESH
    secret: bool = False
    proves_mesh: bool = False
    database: bool = False


class StateFiles:
    """All declared files of one state folder."""

    def __init__(self, folder: Path, declared: Iterable[StateFile] = ()) -> None:
        self.folder = folder
        self._declared = list(declared)
        self._release: list[Callable[[], None]] = []

    def declare(self, declared: Iterable[StateFile], release: Callable[[], None] = lambda: None) -> None:
        """Register files. release: closes them, before they are removed; may block."""
        self._declared += declared
        self._release.append(release)

    def __iter__(self) -> Iterator[StateFile]:
        return iter(self._declared)

    def secrets(self) -> list[Path]:
        """The secret files. Links are left out: they lead into this unit's memory."""
        paths = (self.folder / declared.name for declared in self._declared if declared.secret)
        return [path for path in paths if not path.is_symlink()]

    def remove_those_of_the_mesh(self) -> None:
        """Remove what belonged to the mesh, but for this node's identity.

        Content goes first: no mesh that is joined later may be served from it. Blocks. Raises OSError; it can be
        repeated.
        """
        for release in self._release:
            release()
        of_mesh = [declared for declared in self._declared if declared.of is Of.MESH]
        for declared in sorted(of_mesh, key=lambda one: not one.name.endswith("/")):
            path = self.folder / declared.name
            if declared.name.endswith("/"):
                files.empty(path)
                continue
            for suffix in ("", *(_BESIDE_A_DATABASE if declared.database else ())):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
