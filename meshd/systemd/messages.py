"""MESSAGE_ID of each condition, and the journal's catalogue: what `journalctl -x` prints below a message.

An id derives from the condition's code, so it is stable across versions and needs no list.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

_SPACE = uuid.UUID("0a7f46d6-6f27-4d6c-9b0e-5a0a2f1d7c43")
DOCUMENTATION = "man:meshctl(1)"


def raised_id(code: str) -> str:
    """MESSAGE_ID of a condition that comes: 128 bits in hex, see sd_journal_send(3)."""
    return uuid.uuid5(_SPACE, code).hex


def cleared_id(code: str) -> str:
    """MESSAGE_ID of a condition that goes, as `raised_id`."""
    return uuid.uuid5(_SPACE, f"{code} cleared").hex


def catalogue(codes: Iterable[str]) -> str:
    """The journal's catalogue of these conditions: the text for /usr/lib/systemd/catalog/, see journalctl(1).

    journalctl replaces @FIELD@ by that field of the message.
    """
    entries = []
    for code in codes:
        head = f"Defined-By: meshd\nDocumentation: {DOCUMENTATION}\n"
        entries.append(
            f"-- {raised_id(code)}\nSubject: @MESHD_TITLE@\n{head}\n"
            f"Cause: @MESHD_CAUSE@\nTry: @MESHD_HINT@\n\n"
            f"The condition {code} holds until its cause is gone. To see all that hold: meshctl status\n"
        )
        entries.append(
            f"-- {cleared_id(code)}\nSubject: No more: @MESHD_TITLE@\n{head}\n"
            f"The condition {code} is over; there is nothing to do.\n"
        )
    return "\n".join(entries)
