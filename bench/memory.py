"""What a node that has nothing to do costs, and how far a large pin moves meshd's memory."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import psutil

from bench.ground import Row, Scale, mesh, need_room, write_random
from scripts import nodes as three
from scripts.nodes import Node, NodeError

_SETTLE_S = 10.0
_SAMPLE_EVERY_S = 0.1
_MEMORY_B = 75_000_000
_MOVEMENT_B = 15_000_000
_CPU = 0.01


def run(folder: Path, scale: Scale) -> list[Row]:
    """Raises NodeError where the pin fails."""
    need_room(folder, 3 * scale.memory_b)
    with mesh(folder) as nodes:
        daemons = [psutil.Process(node.pid) for node in nodes]
        print(f"memory: three nodes with nothing to do, for {scale.idle_s:.0f} s", flush=True)
        time.sleep(_SETTLE_S)
        busy_before = [_busy_s(daemon) for daemon in daemons]
        began = time.monotonic()
        time.sleep(scale.idle_s)
        elapsed = time.monotonic() - began
        share = max(_busy_s(d) - before for d, before in zip(daemons, busy_before, strict=True)) / elapsed
        idle = max(daemon.memory_info().rss for daemon in daemons)
        print(f"memory: a pin of {scale.memory_b / 1024**3:.2f} GiB, on one node", flush=True)
        path = write_random(folder / "large", scale.memory_b)
        before = daemons[0].memory_info().rss
        highest = _highest_during_pin(nodes[0], daemons[0], path)
        path.unlink()
    moved = highest - before
    return [
        Row(
            "meshd idle, memory (the largest of three)",
            f"{idle / 1e6:.1f} MB",
            "",
            "",
            "< 75 MB",
            idle < _MEMORY_B,
        ),
        Row("meshd idle, share of a core", f"{share:.2%}", "", "", "< 1 %", share < _CPU),
        Row(
            f"memory moved by a pin of {scale.memory_b / 1024**3:.2f} GiB",
            f"{moved / 1e6:.1f} MB",
            "",
            "",
            "< 15 MB",
            moved < _MOVEMENT_B,
        ),
    ]


def _busy_s(daemon: psutil.Process) -> float:
    """Processor seconds of the daemon itself, its engines not among them."""
    times = daemon.cpu_times()
    return float(times.user + times.system)


def _highest_during_pin(node: Node, daemon: psutil.Process, path: Path) -> int:
    highest = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not ended.wait(_SAMPLE_EVERY_S):
            highest = max(highest, daemon.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        done = subprocess.run(
            [three.MESHCTL, "pin", "--replicas", "1", path],
            env=three.environment(node),
            capture_output=True,
            text=True,
            timeout=900,
            stdin=subprocess.DEVNULL,
        )
    finally:
        ended.set()
        watcher.join()
    if done.returncode != 0:
        raise NodeError(f"meshctl pin ended with exit code {done.returncode}: {done.stderr.strip()}", node)
    return highest
