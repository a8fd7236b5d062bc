"""A kernel that cannot do what meshd needs is told at the start, and nothing is begun on it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshd.errors import MeshError
from meshd.supervise import kernel

# A process for which pidfd_open(2), 434 on every machine, fails as on an old kernel; then meshd. argv: the errno, what to run.
WITHOUT = """
import ctypes, os, struct, sys
number = int(sys.argv[1])
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 434), (0x06, 0, 0, 0x50000 | number), (0x06, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("=HBBI", *rule) for rule in rules)
buffer = ctypes.create_string_buffer(code, len(code))
header = ctypes.create_string_buffer(struct.pack("@HP", len(rules), ctypes.addressof(buffer)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(header)), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_this_one_can() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        kernel.check()
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 10


@pytest.mark.parametrize(
    ("number", "cause", "hint"),
    [
        (
            errno.ENOSYS,
            f"this is Linux {os.uname().release}, and has no pidfd_open (Function not implemented)",
            "meshd needs Linux 5.10 or newer: update the system (uname -r), or take another machine",
        ),
        (
            errno.EPERM,
            "a filter of system calls forbids pidfd_open, which meshd needs",
            "in a container: update its runtime (docker, podman), whose list of system calls is from before Linux 5.3",
        ),
    ],
    ids=["an old kernel", "an old container runtime"],
)
def test_meshd_says_that_it_cannot_run_there_and_makes_nothing(
    number: int, cause: str, hint: str, tmp_path: Path
) -> None:
    config = tmp_path / "meshd.toml"
    config.write_text(
        f'[paths]\nstate = "{tmp_path}/state"\nrun = "{tmp_path}/run"\n[metrics]\nlisten = ""\n'
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            WITHOUT,
            str(number),
            sys.executable,
            "-m",
            "meshd",
            "run",
            "--config",
            config,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == f"meshd: cannot run on this system\n  {cause}\n  try: {hint}\n"
    assert done.returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["meshd.toml"]


def test_a_python_that_cannot_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    with pytest.raises(MeshError, match="this Python was built without pidfd_open"):
        kernel.check()
