"""The version of what two nodes say to each other. Protocol N speaks with N-1."""

from __future__ import annotations

PROTOCOL = 1
OLDEST = 1


def speaks(protocol: int) -> bool:
    """Whether this node understands a node of that protocol. The next version still understands this one."""
    return OLDEST <= protocol <= PROTOCOL + 1
