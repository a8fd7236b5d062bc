"""`make bench`: ARGS=--quick for smaller numbers, ARGS=burst for one part. Only the ratios say something."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from bench import burst, latency, memory
from bench.ground import PREFIX, QUICK, Row, Scale, table
from scripts import nodes as three
from scripts.nodes import NodeError

PARTS: dict[str, Callable[[Path, Scale], list[Row]]] = {
    "burst": burst.run,
    "latency": latency.run,
    "memory": memory.run,
}


def main(arguments: list[str]) -> int:
    """Exit codes: 0 measured, whatever came out; 1 failed; 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller numbers: a look, not a measurement")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    three.interruptible()
    rows: list[Row] = []
    folder: Path | None = None
    code = 0
    try:
        three.check_parts()
        folder = three.make_folder(PREFIX)
        for part in options.parts or PARTS:
            rows += PARTS[part](folder, QUICK if options.quick else Scale())
    except NodeError as error:
        print(f"bench: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("\nbench: interrupted", file=sys.stderr)
        code = 130
    finally:
        three.deaf()
        if folder is not None:
            three.remove(folder)
    if rows:
        print(f"\n{table(rows)}\n\n{_machine()}")
    return code


def _machine() -> str:
    load = os.getloadavg()[0]
    return (
        f"Measured on {os.cpu_count()} cores ({platform.machine()}, {psutil.virtual_memory().total / 1e9:.0f} GB,"
        f" Python {platform.python_version()}), load {load:.1f} at the end. All nodes share this machine and its disk:\n"
        "the times mean little elsewhere, the ratios more."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
