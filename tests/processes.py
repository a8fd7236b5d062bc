"""What the kernel says of processes, asked for so often that it must take little: nothing here walks all of /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def held_by(pid: int) -> set[int]:
    """The inodes of the sockets that a process holds; none once it is gone."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - a path for each takes twice as long
            with contextlib.suppress(OSError):
                link = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115 - the same
                if link.startswith("socket:["):
                    found.add(int(link[8:-1]))
    return found


def descendants(pid: int) -> list[int]:
    """The processes that `pid` started, and those that they did, and so on."""
    found: list[int] = []
    todo = [pid]
    while todo:
        children = _children(todo.pop())
        found += children
        todo += children
    return found


def _children(pid: int) -> list[int]:
    """Where one ends while the kernel lists them it may leave another one out: so ask until it says the same twice."""
    before, now = None, _listed(pid)
    while now != before:
        before, now = now, _listed(pid)
    return now


def _listed(pid: int) -> list[int]:
    found: list[int] = []
    for thread in threads(pid):
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split())
    return found


def threads(pid: int) -> list[int]:
    """The threads of a process; none once it is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208 - asked for often, as above
    except OSError:
        return []
