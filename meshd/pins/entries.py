"""Entries: pinned root blocks with metadata, so that the same bytes of two people stay apart. Pure.

An entry is a small dag-cbor node that links the content's root, and is pinned in its place. The cluster's pinset is
keyed by CID: were roots pinned, a second person who adds the same bytes would overwrite the first one's name, and a
removal would take the file from both.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from meshd import names, wire
from meshd.errors import Code, MeshError
from meshd.model import Pin, parse_wanted

VERSION = 1
_VERSIONED = re.compile(r"(?P<name>.+)@(?P<number>[1-9][0-9]{0,8})")
_CID = re.compile(r"b[a-z2-7]{20,120}|Qm[1-9A-HJ-NP-Za-km-z]{44}")


@dataclass(frozen=True, slots=True)
class NumberedPin:
    """A pin and its version among those of its name: 1 is the newest."""

    pin: Pin
    version: int

    @property
    def reference(self) -> str:
        """The reference that a person types for it: `name`, or `name@2` for an older one."""
        return self.pin.name if self.version == 1 else f"{self.pin.name}@{self.version}"


def check_name(name: str) -> str:
    """Check that a name can be shown, typed and written as a file. Raises MeshError BAD_NAME."""
    problem = ""
    if not name or name in (".", ".."):
        problem = "it is empty or only dots"
    elif name.startswith("meshd:"):
        problem = "names that begin with 'meshd:' are its own"
    elif "/" in name:
        problem = "it has a '/', which separates an entry from a path inside it"
    elif len(name.encode("utf-8", "surrogateescape")) > names.NAME_BYTES:
        problem = f"it is longer than {names.NAME_BYTES} bytes"
    elif names.has_unseen(name):
        problem = "it has characters that do not show (control, direction or zero-width marks)"
    if problem:
        raise MeshError(
            Code.BAD_NAME,
            f"cannot use {name!a} as a name",
            problem,
            "give another one: meshctl pin PATH --name NAME",
        )
    return name


def is_cid(text: str) -> bool:
    """Whether it has the form of a CID, in its canonical spelling. Only kubo knows whether it is one."""
    return _CID.fullmatch(text) is not None and (text.startswith("Q") or _spelled_as_usual(text))


def _spelled_as_usual(text: str) -> bool:
    """Whether base32's unused bits are zero. kubo accepts any spelling, and here two would be two names."""
    letters = text[1:].upper()
    try:
        raw = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except binascii.Error:
        return False
    return base64.b32encode(raw).decode().rstrip("=") == letters


def to_node(pin: Pin) -> dict[str, Any]:
    """Encode an entry as dag-json. The nonce keeps apart what is otherwise equal."""
    return {
        "v": VERSION,
        "name": pin.name,
        "owner": pin.owner,
        "time": round(pin.time * 1000),
        "nonce": secrets.token_hex(16),
        "root": {"/": pin.root},
        "size": pin.size,
        "files": pin.files,
        "directory": pin.directory,
        "wanted": str(pin.wanted),
    }


def from_node(cid: str, node: object) -> Pin | None:
    """Decode an entry from dag-json; None for anything else, such as a CID pinned by another program."""
    if not isinstance(node, dict) or node.get("v") != VERSION:
        return None
    try:
        pin = Pin(
            cid=cid,
            name=check_name(str(node["name"])),
            owner=str(node["owner"]),
            root=str(node["root"]["/"]),
            size=int(node["size"]),
            time=int(node["time"]) / 1000,
            wanted=parse_wanted(str(node["wanted"])),
            directory=bool(node["directory"]),
            files=int(node["files"]),
        )
        return pin if pin.size >= 0 and pin.files >= 0 and pin.time >= 0 else None
    except (KeyError, TypeError, ValueError, MeshError):
        return None


def number(pins: Iterable[Pin]) -> list[NumberedPin]:
    """All pins sorted by name, the newest of a name first, with version 1."""
    ordered = sorted(pins, key=lambda p: (p.name, -p.time, p.cid))
    result: list[NumberedPin] = []
    for pin in ordered:
        same = bool(result) and result[-1].pin.name == pin.name
        result.append(NumberedPin(pin, result[-1].version + 1 if same else 1))
    return result


def version_meant(reference: str) -> tuple[str, int] | None:
    """The name and the version of a reference like `name@2`; None for any other."""
    match = _VERSIONED.fullmatch(reference)
    return (match["name"], int(match["number"])) if match else None


def resolve(
    reference: str, pins: Iterable[Pin], *, where: str = "the mesh", listed_by: str = "meshctl ls"
) -> NumberedPin:
    """Resolve a reference: a name (its newest entry), `name@2` (an older one), or an entry's CID.

    where, listed_by: what `pins` are, and the command that lists them. Raises MeshError NOT_FOUND.
    """
    numbered = number(pins)
    for candidate in numbered:
        if reference in (candidate.pin.cid, candidate.pin.name):
            return candidate
    of_name: list[NumberedPin] = []
    if (versioned := version_meant(reference)) is not None:
        of_name = [n for n in numbered if n.pin.name == versioned[0]]
        for candidate in of_name:
            if candidate.version == versioned[1]:
                return candidate
    raise not_found(reference, len(of_name), where=where, listed_by=listed_by)


def not_found(
    reference: str, versions: int, *, where: str = "the mesh", listed_by: str = "meshctl ls"
) -> MeshError:
    """The error for an unknown reference. versions: the number of entries with the name before an `@2`."""
    what = f"cannot find {reference}"
    if versions and (meant := version_meant(reference)) is not None:
        name, _ = meant
        hint = f"meshctl ls --name={shlex.quote(name)}" if listed_by == "meshctl ls" else listed_by
        return MeshError(
            Code.NOT_FOUND, what, f"{name} has {versions} version{'s' if versions > 1 else ''}", hint
        )
    return MeshError(Code.NOT_FOUND, what, f"nothing in {where} has that name", listed_by)


def view(numbered: NumberedPin, owner_name: str, *, mine: bool) -> wire.Entry:
    """The entry as the API shows it, without copies."""
    pin = numbered.pin
    return wire.Entry(
        cid=pin.cid,
        name=pin.name,
        version=numbered.version,
        owner=owner_name,
        mine=mine,
        root=pin.root,
        size=pin.size,
        files=pin.files,
        directory=pin.directory,
        time=pin.time,
        wanted=pin.wanted,
    )
