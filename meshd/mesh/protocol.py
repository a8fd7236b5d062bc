"""The version of the protocol between nodes. Version N is compatible with N-1."""

from __future__ import annotations

PROTOCOL = 1
OLDEST = 1


def speaks(protocol: int) -> bool:
    """Whether this node is compatible with that version. The next one must still be compatible with ours."""
    return OLDEST <= protocol <= PROTOCOL + 1
