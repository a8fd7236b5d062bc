"""The facts of this room for the health checks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PinFacts:
    """full: why nothing more may be stored, or "". unreadable: why the content's disk cannot be read, or "".

    unwritable: why the state folder takes no writes, or "". trash: removed entries that can be restored here. short:
    entries with fewer replicas than there could be. lost: names of some entries whose nodes are all gone. lost_count:
    their number.
    """

    full: str = ""
    unreadable: str = ""
    unwritable: str = ""
    trash: int = 0
    short: int = 0
    lost: tuple[str, ...] = ()
    lost_count: int = 0
