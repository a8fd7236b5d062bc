"""One pin of a small and of a large file, against `ipfs add` of a file of that size into one plain kubo."""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path

from bench import stock
from bench.ground import Row, Scale, mesh, need_room, seconds, write_random
from scripts import nodes as three
from scripts.nodes import NodeError

_SMALL_B = 20_000


def run(folder: Path, scale: Scale) -> list[Row]:
    """Raises NodeError where a command fails, or a pin has fewer than three copies."""
    need_room(folder, 5 * scale.large_runs * scale.large_b)
    sizes = ((_SMALL_B, scale.small_runs), (scale.large_b, scale.large_runs))
    print("latency: ipfs add into one plain kubo", flush=True)
    with stock.kubos(folder, 1) as machines:
        ipfs = [str(three.ENGINES / "ipfs"), f"--api=/ip4/{machines[0].address}/tcp/5001", "add", "--quieter"]
        theirs = [_times(folder, size, runs, ipfs, machines[0].kubo.env) for size, runs in sizes]
    print("latency: meshctl pin into a mesh of three", flush=True)
    with mesh(folder) as nodes:
        env = three.environment(nodes[0])
        ours = [_times(folder, size, runs, [str(three.MESHCTL), "pin"], env) for size, runs in sizes]
    return [
        Row(
            f"one pin of {_shown(size)}, 3 durable copies",
            seconds(mine),
            f"ipfs add, 1 copy: {seconds(other)}",
            f"{statistics.median(mine) / statistics.median(other):.1f}",
        )
        for (size, _), mine, other in zip(sizes, ours, theirs, strict=True)
    ]


def _shown(size: int) -> str:
    return f"{size // 1024**2} MiB" if size >= 1024**2 else f"{size // 1000} kB"


def _times(folder: Path, size: int, runs: int, command: list[str], env: dict[str, str]) -> list[float]:
    """The command's wall times, each for a new file; one more run before them is not counted."""
    times = []
    for run in range(runs + 1):
        path = write_random(folder / f"file-{run}-{size}", size if run else 1000)
        began = time.monotonic()
        done = subprocess.run(
            [*command, path], env=env, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
        )
        times.append(time.monotonic() - began)
        path.unlink()
        if done.returncode != 0:  # meshctl exits 6 with fewer copies than asked
            raise NodeError(
                f"{Path(command[0]).name} ended with exit code {done.returncode}: {done.stderr.strip()}"
            )
    return times[1:]
