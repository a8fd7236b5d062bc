"""What the parts of the bench stand on: a mesh or stock engines that are there for a while, content, and the report."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts import nodes as three
from scripts.nodes import Node, NodeError

PREFIX = "meshd-bench-"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done. Times in seconds, sizes in bytes."""

    pins: int = 1000
    burst_runs: int = 3
    stock_limit_s: float = 300.0
    small_runs: int = 10
    client_runs: int = 40
    large_runs: int = 3
    large_b: int = 256 * 1024**2
    idle_s: float = 60.0
    memory_b: int = 2 * 1024**3
    entries: int = 100_000


QUICK = Scale(
    pins=200,
    burst_runs=1,
    stock_limit_s=150.0,
    small_runs=3,
    client_runs=10,
    large_runs=1,
    large_b=32 * 1024**2,
    idle_s=15.0,
    memory_b=256 * 1024**2,
    entries=10_000,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report. wanted: what the figure should be; met: whether it is."""

    what: str
    meshd: str
    other: str
    figure: str
    wanted: str = ""
    met: bool = True


def table(rows: list[Row]) -> str:
    """The report as columns."""
    lines = [("", "MESHD", "COMPARED WITH", "FIGURE", "WANTED")]
    for row in rows:
        wanted = f"{row.wanted}{'' if row.met else '   NOT MET'}"
        lines.append((row.what, row.meshd, row.other, row.figure, wanted))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def seconds(times: list[float]) -> str:
    """The median of some times, as it is shown."""
    middle = statistics.median(times)
    return f"{middle * 1000:.0f} ms" if middle < 1 else f"{middle:.1f} s"


@contextlib.contextmanager
def mesh(folder: Path) -> Iterator[list[Node]]:
    """Three nodes that have met, stopped and removed afterwards. Raises NodeError."""
    nodes = three.make_nodes(folder)
    three.check_ports([node.address for node in nodes])
    try:
        three.start(nodes)
        three.found_mesh(nodes, "bench")
        yield nodes
    except NodeError as error:
        if error.node is not None:
            print("\n".join(error.node.last_lines()))
        raise
    finally:
        three.stop(nodes)
        for node in nodes:
            three.remove(node.folder)


def write_random(path: Path, size: int) -> Path:
    """A file that no other run has, so that nothing is spared because its blocks are there already."""
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(random.randbytes(min(size, 1 << 20)))
        file.flush()
        os.fsync(file.fileno())  # writing it back later would be on somebody's clock
    return path


def need_room(folder: Path, needed: int) -> None:
    """Raises NodeError where the disk is too full."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NodeError(
            f"cannot measure in {folder}: {free / 1e9:.1f} GB are free and {needed / 1e9:.1f} GB are needed;"
            " free some, or: TMPDIR=/var/tmp make bench, or: make bench ARGS=--quick"
        )
