"""Gives memory back. A daemon that is busy for a minute and quiet for years should be small in the quiet."""

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
# Files of a control group, and what stands before the bytes in them. Version 1 without a limit has a number that no
# machine reaches; its memory.stat has the least of all above it, too, those that are not mounted here included.
_LIMITS = (("memory.max", ""), ("memory.limit_in_bytes", ""), ("memory.stat", "hierarchical_memory_limit "))


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


def available(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the machine's, or the least limit of its control group and those above it.

    Read are both versions of control groups, as a system of version 1, or a hybrid one, limits memory by version 1 only.
    root: where /proc and the mounts are looked for, for tests.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        membership, mounts = (
            (root / "proc/self" / name).read_text(errors="surrogateescape")
            for name in ("cgroup", "mountinfo")
        )
    except OSError:  # no control groups in this kernel
        return limits[0]
    for folder in _groups(membership, mounts):
        below = root / folder.relative_to("/")
        limits += [limit for name, said in _LIMITS for limit in _limit(below / name, said)]
    return min(limits)


def _groups(membership: str, mounts: str) -> Iterator[Path]:
    """Folders of the control groups of either version that may limit this process: its own, and each above it.

    membership, mounts: /proc/self/cgroup and /proc/self/mountinfo, see cgroups(7) and proc(5). Where only a part of the
    tree is mounted, as in a container, that part's own root is the last; its own group may be another than the one that
    `membership` names, which is then nowhere, and a folder that does not exist limits nothing.
    """
    names = {}
    for line in filter(None, membership.split("\n")):
        number, controllers, name = line.split(":", 2)
        if number == "0" or "memory" in controllers.split(","):
            names["cgroup2" if number == "0" else "cgroup"] = name
    for line in filter(None, mounts.split("\n")):  # a name may have what else Python takes for a line's end
        place, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        if kind not in names or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        part, at = (Path(files.unescaped(field)) for field in place.split(" ")[3:5])
        mine = Path(names[kind])
        own = at / mine.relative_to(part) if mine.is_relative_to(part) else at
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(at))


def _limit(path: Path, said: str) -> Iterator[int]:
    """The number behind `said` in a file of a control group; none where there is no such file or no limit."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(said) and line.removeprefix(said).isdigit():
                yield int(line.removeprefix(said))


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
