"""The journal of removals as meshd 0.1 wrote it, `trash.json`: read once, and taken over into the database."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from meshd import files, wire
from meshd.errors import Code, MeshError


class Numbered(BaseModel):
    """One removal, as in `trash`."""

    number: int
    removal: wire.Removal
    at: float = 0.0
    gone: bool = False


class File(BaseModel):
    """clock: seconds (see `uptime_clock`), as it was in the run `boot` of the machine when that was `uptime` seconds old."""

    version: int = 1
    last: int = 0
    clock: float = 0.0
    boot: str = ""
    uptime: float = 0.0
    removals: list[Numbered] = []


def path_beside(path: Path) -> Path:
    """Where it is, from where the database is or will be."""
    return path.with_name("trash.json")


def read(path: Path) -> File | None:
    """None where there is none. Blocks. Raises MeshError BAD_STATE for a damaged one: it is not taken for an empty one."""
    hint = f"move {path} away: what was removed then stays on this node until it is removed again"
    try:
        return File.model_validate(files.read_json(path, hint=hint))
    except FileNotFoundError:
        return None
    except ValidationError as exc:
        raise MeshError(
            Code.BAD_STATE, f"cannot use {path}", "it is not a journal of removals", hint
        ) from exc


def remove(path: Path) -> None:
    """Once all of it is durable elsewhere. Raises MeshError BAD_STATE."""
    try:
        path.unlink(missing_ok=True)
        files.sync_directory(path.parent)
    except OSError as exc:
        raise files.unusable(exc, f"cannot remove {path}") from exc
