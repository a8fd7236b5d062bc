"""What this room says of itself to the health checks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PinFacts:
    """full: why nothing more may be stored, or "". unreadable: why the disk of the content cannot be asked, or "".
    unwritable: why the state folder takes no writes, or "".

    trash: removed entries that can be restored here. short: entries with fewer copies than there could be. lost: names of
    some entries whose nodes are all gone; lost_count: how many there are.
    """

    full: str = ""
    unreadable: str = ""
    unwritable: str = ""
    trash: int = 0
    short: int = 0
    lost: tuple[str, ...] = ()
    lost_count: int = 0
