"""Gives memory back. A daemon that is busy for a minute and quiet for years should be small in the quiet."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
from pathlib import Path

_M_ARENA_MAX = -8  # malloc.h
_TRIM_EVERY_S = 30.0
_LEAST = 256 * 1024**2


def use_one_arena() -> None:
    """Have glibc keep one heap for all threads: each of the others keeps what a burst took. Nothing on another libc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def bound_for(share: float, *, total: int | None = None) -> str:
    """GOMEMLIMIT of a Go program that may have that share of this machine's memory, in bytes and at least 256 MiB.

    It is soft: near it the program collects its garbage more often. Kubo at rest takes 90 MB, the cluster 60, and the
    cluster of a node that has just pinned 1,000 entries 430 (measured): on 4 GB neither is held up.
    total: bytes, for tests; default: what the machine has, or less where `MemoryMax=` of the unit or a container says so.
    """
    return str(max(_LEAST, int((available() if total is None else total) * share)))


def available(tree: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that this process may use: the machine's, or the least limit of its control group and those above it.

    tree: where control groups of version 2 are mounted; membership: see cgroups(7).
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    lines = membership.read_text(errors="surrogateescape").splitlines()
    own = next((line[4:] for line in lines if line.startswith("0::/")), "")
    for group in (tree / own, *(tree / own).parents):
        if group.is_relative_to(tree):
            with contextlib.suppress(OSError, ValueError):  # no such file, no controller of memory, or "max"
                limits.append(int((group / "memory.max").read_text()))
    return min(limits)


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
