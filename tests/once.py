"""What is made once for all the processes that run the tests side by side."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path


def once(base: Path, name: str, make: Callable[[], list[Path]]) -> list[Path]:
    """The paths that `make` returned in whichever process came first; the others wait for it.

    base: the folder for this process's temporary files. What `make` raises is not remembered: who asks next tries again.
    """
    folder = (
        base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    )  # a worker's is below that of the whole run
    with (folder / f"{name}.json").open("a+") as answer:
        fcntl.flock(answer, fcntl.LOCK_EX)
        answer.seek(0)
        said = answer.read()
        if not said:
            said = json.dumps([str(path) for path in make()])
            answer.write(said)
    return [Path(path) for path in json.loads(said)]
