"""Parsers of typed references: a name, an older one (name@2) or a CID; where allowed, with a path inside it."""

from __future__ import annotations

from meshctl import hints
from meshctl.errors import usage
from meshctl.render import safe

LONGEST = 300  # bytes: a name has at most 255, then @ and a number
LONGEST_PATH = 2000  # bytes; percent-encoded three times as long, which still fits a request


def split(reference: str, verb: str) -> tuple[str, str]:
    """Split into the entry and the path inside it, which may be empty. Raises MeshctlError (usage)."""
    entry, _, path = reference.partition("/")
    _check(entry, reference, verb)
    path = path.strip("/")
    if any(step in {".", ".."} for step in path.split("/")):
        why = "a path inside an entry goes down only: it has no . and no .."
        raise usage(f"cannot {verb} {safe(reference)}", why, hints.command("ls", entry))
    if len(path.encode(errors="surrogateescape")) > LONGEST_PATH:
        why = f"its path is longer than {LONGEST_PATH} bytes"
        raise usage(f"cannot {verb} {_short(reference)}", why, hints.command("ls", entry))
    return entry, path


def whole(reference: str, verb: str) -> str:
    """The entry, where no path is allowed; photos/ is photos. Raises MeshctlError (usage)."""
    entry, path = split(reference, verb)
    if path:
        why = f"it is in {safe(entry)}, and what is one entry stays together"
        raise usage(f"cannot {verb} {safe(reference)}", why, hints.command("ls", entry))
    return entry


def _check(entry: str, reference: str, verb: str) -> None:
    look = "meshctl ls"
    why = ""
    if not reference:
        why = "no name was given"
    elif entry in {"", ".", ".."}:
        why = "that is a path of this machine, and no name in the mesh"
    elif any("\udc80" <= character <= "\udcff" for character in reference):
        why = "it is not valid UTF-8, so nothing in the mesh has that name"
    elif len(entry.encode(errors="surrogateescape")) > LONGEST:
        why = "it is longer than any name"
    if why:
        raise usage(f"cannot {verb} {_short(reference) or 'nothing'}", why, look)


def _short(reference: str) -> str:
    return safe(reference if len(reference) <= 80 else f"{reference[:77]}...")
