"""Bounds and returns memory: a daemon that is busy for a minute and idle for years must be small while idle."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

from meshd import files

_M_ARENA_MAX = -8  # malloc.h
_TRIM_EVERY_S = 30.0
_LEAST = 256 * 1024**2
# Files of a cgroup, and the word before the bytes in them. Version 1 without a limit has a number that no machine
# reaches; its memory.stat has the least limit of all its ancestors, too, those that are not mounted here included.
_LIMITS = (("memory.max", ""), ("memory.limit_in_bytes", ""), ("memory.stat", "hierarchical_memory_limit "))


def use_one_arena() -> None:
    """Have glibc use one malloc arena for all threads, as each one keeps what a burst took. No-op on another libc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def bound_for(share: float, *, total: int | None = None) -> str:
    """GOMEMLIMIT of a Go program that may use that share of this machine's memory: bytes, at least 256 MiB.

    It is soft: near it the program collects its garbage more often. Kubo at rest takes 90 MB, the cluster 60, and the
    cluster of a node that has just pinned 1,000 entries 430 (measured): on 4 GB it slows neither down.
    total: bytes, for tests; by default `available`.
    """
    return str(max(_LEAST, int((available() if total is None else total) * share)))


def available(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the machine's memory, or the least limit of its cgroup and its ancestors.

    `MemoryMax=` of a unit and the limit of a container are such limits. Reads cgroups of both versions, as a system of
    version 1, or a hybrid one, limits memory by version 1 only. root: the root of /proc and the mounts, for tests.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        membership, mounts = (
            (root / "proc/self" / name).read_text(errors="surrogateescape")
            for name in ("cgroup", "mountinfo")
        )
    except OSError:  # no cgroups in this kernel
        return limits[0]
    for folder in _groups(membership, mounts):
        below = root / folder.relative_to("/")
        limits += [limit for name, said in _LIMITS for limit in _limit(below / name, said)]
    return min(limits)


def _groups(membership: str, mounts: str) -> Iterator[Path]:
    """Folders of the cgroups, of either version, that may limit this process: its own and each ancestor.

    membership, mounts: /proc/self/cgroup and /proc/self/mountinfo, see cgroups(7) and proc(5). Where only a part of
    the tree is mounted, as in a container, that part's root is the last one. `membership` may name a cgroup outside
    that part: its folder does not exist, and limits nothing.
    """
    names = {}
    for line in filter(None, membership.split("\n")):
        number, controllers, name = line.split(":", 2)
        if number == "0" or "memory" in controllers.split(","):
            names["cgroup2" if number == "0" else "cgroup"] = name
    for line in filter(None, mounts.split("\n")):  # splitlines() splits at more, which a name may have
        place, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        if kind not in names or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        part, at = (Path(files.unescaped(field)) for field in place.split(" ")[3:5])
        mine = Path(names[kind])
        own = at / mine.relative_to(part) if mine.is_relative_to(part) else at
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(at))


def _limit(path: Path, said: str) -> Iterator[int]:
    """The number after `said` in a file of a cgroup; none where there is no such file or no limit."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(said) and line.removeprefix(said).isdigit():
                yield int(line.removeprefix(said))


async def give_back() -> None:
    """Collect garbage cycles periodically, as long as the daemon lives, and return free pages to the kernel.

    It first freezes what exists at the start, modules and types that never go, so that a collection costs next to
    nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    gc.collect()
    gc.freeze()
    while True:
        await asyncio.sleep(_TRIM_EVERY_S)
        gc.collect()
        if trim is not None:
            trim(0)
