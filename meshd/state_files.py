"""The files of the state folder, as the rooms that own them declare them: what leave removes, and which are secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from meshd import files

_BESIDE_A_DATABASE = ("-wal", "-shm")  # of SQLite, while it is open and after it was killed


class Of(StrEnum):
    MESH = "mesh"  # leave removes it
    # It says who this node is in the mesh. Its own part removes it, once all else is gone.
    IDENTITY = "identity"
    MACHINE = "machine"  # stays


@dataclass(frozen=True, slots=True)
class StateFile:
    """name: within the state folder; one that ends with "/" is a folder with all that is in it.

    secret: nobody else may read it. proves_mesh: where it is, this node belonged to a mesh, which knows it by its key.
    database: of SQLite, which has more files beside it.
    """

    name: str
    of: Of = Of.MESH
    secret: bool = False
    proves_mesh: bool = False
    database: bool = False


class StateFiles:
    """All that are declared in one state folder."""

    def __init__(self, folder: Path, declared: Iterable[StateFile] = ()) -> None:
        self.folder = folder
        self._declared = list(declared)
        self._release: list[Callable[[], None]] = []

    def declare(self, declared: Iterable[StateFile], release: Callable[[], None] = lambda: None) -> None:
        """release: closes them, before they are removed; may block."""
        self._declared += declared
        self._release.append(release)

    def __iter__(self) -> Iterator[StateFile]:
        return iter(self._declared)

    def secrets(self) -> list[Path]:
        """Those that nobody else may read. Links are left out: they lead into this unit's memory."""
        paths = (self.folder / declared.name for declared in self._declared if declared.secret)
        return [path for path in paths if not path.is_symlink()]

    def remove_those_of_the_mesh(self) -> None:
        """But for those that say who this node is. Content first: a mesh that is joined later must not be served from it.

        Blocks. Raises OSError; then it can be done again.
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
