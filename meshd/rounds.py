"""What is done again and again for as long as the node runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from meshd.errors import MeshError

_LONGEST_S = 60.0
_LOG = structlog.get_logger(part="daemon")


async def every(seconds: float, work: Callable[[], Awaitable[None]], *, share: float = 1.0) -> None:
    """Do `work` again and again, `seconds` apart, and longer where it would take more than `share` of the time.

    A round that fails says nothing about that: it may have waited for an engine that hangs.
    """
    said = ""
    while True:
        began, took = time.monotonic(), 0.0
        try:
            await work()
            said = ""
            took = time.monotonic() - began  # one that failed says nothing of how long one takes
        except MeshError as exc:
            if str(exc) != said:  # the same fault is told once
                said = str(exc)
                _LOG.warning("cannot finish a round", error=said)
        except Exception:  # noqa: BLE001 - a mistake, or a full disk, ends the round and not the node
            _LOG.exception("a round failed")
        await asyncio.sleep(max(seconds, min(took / share, _LONGEST_S)))
