"""The content of mesh.json as values, and its reading and writing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meshd import files
from meshd.errors import Code, MeshError
from meshd.mesh import roster
from meshd.wire import Member

VERSION = 1


class InviteRecord(BaseModel):
    """The issuer's record of an invite. token_hash: sha256 hex. Times: seconds since 1970. used_by: fingerprint."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    token_hash: str
    created: float
    expires: float
    used_by: str = ""
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class MeshState:
    """The mesh as this node knows it. entries: by fingerprint. created, joined: seconds since 1970.

    secrets: digest of the mesh's secrets, "" where an older meshd wrote the file. network: id of the ZeroTier network
    by which this node reaches the mesh, "" for another overlay.
    """

    name: str
    id: str
    created: float
    joined: float
    entries: Mapping[str, Member]
    invites: Mapping[str, InviteRecord]
    secrets: str = ""
    network: str = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: Literal[1]
    name: str
    id: str
    created: float
    joined: float
    roster: list[Member]
    invites: list[InviteRecord]
    secrets: str = ""
    network: Annotated[str, Field(pattern=r"^([0-9a-f]{16})?$")] = ""


def read(path: Path, fingerprint: str) -> MeshState | None:
    """The state in `path`, None where there is no file. fingerprint: this node's, which must be in the roster.

    Blocks. Raises MeshError BAD_STATE that names the file and what to do.
    """
    try:
        document = files.read_json(path)
    except FileNotFoundError:
        return None
    except MeshError as exc:
        raise unusable(path, exc.detail) from None
    version = document.get("version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise MeshError(
            Code.BAD_STATE,
            f"cannot use {path}",
            f"a newer meshd wrote it (format {version}; this one reads {VERSION})",
            "install the meshd that this machine had before, or a newer one",
        )
    try:
        held = _File.model_validate(document)
        for member in held.roster:
            roster.check_member(member)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise unusable(path, f"the file is damaged ({where}: {first['msg']})") from None
    except ValueError as exc:
        raise unusable(path, f"the file is damaged (a member: {exc})") from None
    entries = roster.merge({}, held.roster)
    if fingerprint not in entries:
        raise unusable(path, "the file is another node's: this node's key is not among the members in it")
    invites = {record.id: record for record in held.invites}
    return MeshState(
        held.name, held.id, held.created, held.joined, entries, invites, held.secrets, held.network
    )


def write(path: Path, state: MeshState) -> None:
    """Replace the file by `state`. Blocks (fsync). Raises OSError."""
    files.write_json(
        path,
        {
            "version": VERSION,
            "name": state.name,
            "id": state.id,
            "created": state.created,
            "joined": state.joined,
            "secrets": state.secrets,
            "network": state.network,
            "roster": [state.entries[key].model_dump() for key in sorted(state.entries)],
            "invites": [state.invites[key].model_dump() for key in sorted(state.invites)],
        },
    )


def remove(path: Path) -> None:
    """Remove the file durably. Blocks (fsync). Raises OSError."""
    path.unlink(missing_ok=True)
    files.sync_directory(path.parent)


def unusable(path: Path, cause: str, hint: str = "") -> MeshError:
    """The error for a state file that must not be replaced by a guess. path: in the state folder, or below it."""
    folder = path.parent.parent if path.parent.name in ("kubo", "cluster") else path.parent
    return MeshError(
        Code.BAD_STATE,
        f"cannot use {path}",
        cause,
        hint
        or f"restore {folder} as a whole from a backup; or move it away and join as a new node: on another member type"
        " meshctl forget NODE, then meshctl invite; here meshctl join",
    )


def need(current: MeshState | None) -> MeshState:
    """The state. Raises MeshError NO_MESH where there is none."""
    if current is None:
        raise MeshError(
            Code.NO_MESH,
            "cannot do that",
            "this node is in no mesh",
            "found one: meshctl init; or join one: meshctl join",
        )
    return current


def in_a_mesh(current: MeshState) -> MeshError:
    """The error for a node that joins or founds a mesh and is in one already."""
    return MeshError(
        Code.IN_OTHER_MESH,
        "cannot join or found a mesh",
        f"this node is in the mesh {current.name}",
        "meshctl leave",
    )
