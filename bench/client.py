"""The start of `meshctl`: against bare Python, and its look at the mesh against `ipfs-cluster-ctl peers ls`.

Wall time, and in brackets processor time, which other programs of the machine change less.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench import stock
from bench.ground import Row, Scale, mesh
from scripts import nodes as three
from scripts.nodes import NodeError

_TWICE = 2.0
_BARE = [sys.executable, "-c", "pass"]


@dataclass(frozen=True, slots=True)
class _Times:
    """The medians of one command, in seconds."""

    wall_s: float
    processor_s: float

    def __str__(self) -> str:
        return f"{self.wall_s * 1000:.0f} ms ({self.processor_s * 1000:.0f} ms)"


def run(folder: Path, scale: Scale) -> list[Row]:
    """Raises NodeError where a command fails."""
    print("client: ipfs-cluster-ctl peers ls on a stock cluster of three", flush=True)
    with stock.kubos(folder, 3) as machines:
        stock.start_clusters(machines)
        ctl = [str(three.ENGINES / "ipfs-cluster-ctl"), "--host", f"/ip4/{machines[0].address}/tcp/9094"]
        (theirs,) = _measured([[*ctl, "peers", "ls"]], machines[0].cluster.env, scale.client_runs)
    print("client: meshctl on a mesh of three", flush=True)
    with mesh(folder) as nodes:
        verbs = ("version", "peers", "status")
        commands = [_BARE, *([str(three.MESHCTL), verb] for verb in verbs)]
        bare, *ours = _measured(commands, three.environment(nodes[0]), scale.client_runs)
    version, peers, status = ours
    return [
        _row("meshctl version", version, "python -c pass", bare, _TWICE),
        _row("meshctl peers", peers, "ipfs-cluster-ctl peers ls", theirs, 1.0),
        _row("meshctl status", status, "ipfs-cluster-ctl peers ls", theirs, 3.0),
    ]


def _row(what: str, mine: _Times, than: str, other: _Times, most: float) -> Row:
    wall, processor = mine.wall_s / other.wall_s, mine.processor_s / other.processor_s
    return Row(
        what,
        str(mine),
        f"{than}: {other}",
        f"{wall:.2f} ({processor:.2f})",
        f"at most {most:.1f}",
        wall <= most,
    )


def _measured(commands: list[list[str]], env: dict[str, str], runs: int) -> list[_Times]:
    """Each command in turn, again and again, so that what else the machine does meets all of them alike."""
    walls: list[list[float]] = [[] for _ in commands]
    processors: list[list[float]] = [[] for _ in commands]
    for run in range(runs + 1):  # the first one is not counted: it may be the one that compiles
        for i, command in enumerate(commands):
            wall_s, processor_s = _once(command, env)
            if run:
                walls[i].append(wall_s)
                processors[i].append(processor_s)
    return [
        _Times(statistics.median(wall), statistics.median(processor))
        for wall, processor in zip(walls, processors, strict=True)
    ]


def _once(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Wall and processor seconds of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    wall_s = time.monotonic() - began
    if done.returncode != 0:
        name = Path(command[0]).name
        raise NodeError(f"{name} ended with exit code {done.returncode}: {done.stderr.strip()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # os.times() counts in steps of 10 ms
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
