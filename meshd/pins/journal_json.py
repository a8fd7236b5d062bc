"""Migration of the journal of removals of meshd 0.1, `trash.json`: read once, for the database."""

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
    """The file. clock: seconds of `uptime_clock`, as of `uptime` seconds after the boot with the id `boot`."""

    version: int = 1
    last: int = 0
    clock: float = 0.0
    boot: str = ""
    uptime: float = 0.0
    removals: list[Numbered] = []


def path_beside(path: Path) -> Path:
    """The path of the old file, from that of the database."""
    return path.with_name("trash.json")


def read(path: Path) -> File | None:
    """Read the old file; None where there is none. Blocks. Raises MeshError BAD_STATE for a damaged one."""
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
    """Remove the old file, once all of it is durable elsewhere. Raises MeshError BAD_STATE."""
    try:
        path.unlink(missing_ok=True)
        files.sync_directory(path.parent)
    except OSError as exc:
        raise files.unusable(exc, f"cannot remove {path}") from exc
