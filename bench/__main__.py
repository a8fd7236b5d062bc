"""`make bench`: ARGS=--quick for smaller numbers, ARGS=burst for one part. Only the ratios say something."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench import burst, catalogue, client, latency, members, memory
from bench.ground import PREFIX, QUICK, Row, Scale, table
from scripts import nodes as three
from scripts.nodes import NodeError

PARTS: dict[str, Callable[[Path, Scale], list[Row]]] = {
    "burst": burst.run,
    "catalogue": catalogue.run,
    "client": client.run,
    "latency": latency.run,
    "members": members.run,
    "memory": memory.run,
}

_QUIET = 0.1
"""Above this share taken by others the figures are worth little."""


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
    machine = Machine()
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
        print(f"\n{table(rows)}\n\n{machine}")
    return code


class Machine:
    """This machine, and how much of it other programs took since this was made."""

    def __init__(self) -> None:
        self._cores = os.cpu_count() or 1
        self._began = time.monotonic()
        self._busy_before_s = self._busy_by_others_s()

    @staticmethod
    def _busy_by_others_s() -> float:
        """Processor seconds of this machine that are neither ours nor those of children that have ended."""
        whole = psutil.cpu_times()
        own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return float(whole.user + whole.nice + whole.system) - sum(u.ru_utime + u.ru_stime for u in own)

    def __str__(self) -> str:
        taken = (
            (self._busy_by_others_s() - self._busy_before_s) / (time.monotonic() - self._began) / self._cores
        )
        taken = max(0.0, taken)
        again = "; measure again when nothing else runs" if taken > _QUIET else ""
        return (
            f"Measured on {self._cores} cores ({platform.machine()}, {psutil.virtual_memory().total / 1e9:.0f} GB,"
            f" Python {platform.python_version()}); other programs took {taken:.0%} of them meanwhile{again}.\n"
            "All nodes share this machine and its disk: the times mean little elsewhere, the ratios more."
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
