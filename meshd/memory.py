"""Gives memory back. A daemon that is busy for a minute and quiet for years should be small in the quiet."""

from __future__ import annotations

import asyncio
import ctypes
import gc

_M_ARENA_MAX = -8  # malloc.h
_TRIM_EVERY_S = 30.0


def use_one_arena() -> None:
    """Have glibc keep one heap for all threads: each of the others keeps what a burst took. Nothing on another libc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


async def give_back() -> None:
    """For as long as the daemon lives: collect the cycles that a burst left, and return free pages to the kernel.

    What is there at the start is modules and types, which never go: frozen, a collection costs next to nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    gc.collect()
    gc.freeze()
    while True:
        await asyncio.sleep(_TRIM_EVERY_S)
        gc.collect()
        if trim is not None:
            trim(0)
