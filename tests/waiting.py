"""How tests wait: for a condition, with a time-out, and never for a while."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable

_LOOK_EVERY_S = 0.01


async def until(condition: Callable[[], object | Awaitable[object]], seconds: float = 30.0) -> None:
    """Return when `condition` (a function or a coroutine function) holds; TimeoutError after `seconds`.

    For what no event tells us of: other processes, the kernel's tables, files.
    """
    nobody_sets_it = asyncio.Event()
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(nobody_sets_it.wait(), _LOOK_EVERY_S)
