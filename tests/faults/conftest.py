"""A daemon without systemd, as a process of its own: its output, its exit, and what it leaves behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.machine import own_address, short_folder
from tests.mesh.nodes import BIN, REPOSITORY, Answer, end, environment, marked, run
from tests.mesh.pairing import unix_request, until

LONGEST_S = 60.0  # for a busy machine; what is awaited takes seconds


class Daemon:
    """`tests.faults.faulty_daemon` with one fault."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "s"
        self.socket = folder / "r" / "meshd.sock"
        self.log = folder / "log"
        self.config = folder / "meshd.toml"
        self.config.write_text(
            f'[node]\nname = "attic"\n[paths]\nstate = "{self.state}"\nrun = "{folder / "r"}"\n'
            f'[overlay]\nkind = "static"\naddress = "{own_address()}"\n'
            '[storage]\nreserve = "1MiB"\n[metrics]\nlisten = ""\n[log]\nformat = "json"\n'
        )
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self, fault: str = "none", engines: str = "serves", *, stderr: Path | None = None) -> Daemon:
        """engines: serves, or deaf to SIGTERM."""
        with (stderr or self.log).open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.faulty_daemon", self.config, fault, engines],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                cwd=REPOSITORY,
                start_new_session=True,
            )
        return self

    def serving(self) -> Daemon:
        """Return once both engines run and it serves."""
        until(lambda: self.alive and self._is_ready(), "it serves", LONGEST_S)
        return self

    @property
    def alive(self) -> bool:
        assert self.process is not None
        return self.process.poll() is None

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return unix_request(self.socket, "GET", "/readyz").status == 200
        return False

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        """Its exit code, once it has exited. Its children must have exited before."""
        assert self.process is not None
        code = self.process.wait(LONGEST_S)
        until(lambda: not self.engines, f"nothing is left running: {self.engines}", 5)
        return code

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(LONGEST_S)
        for pid in self.engines:
            end(pid)

    # -- what can be seen ------------------------------------------------------------------------------------------

    @property
    def engines(self) -> list[int]:
        """Processes that were started for its state folder."""
        return marked(self.state)

    @property
    def holds_its_folder(self) -> bool:
        with (self.state / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def status(self) -> dict[str, Any]:
        reply = unix_request(self.socket, "GET", "/v1/status")
        assert reply.status == 200, reply
        document: dict[str, Any] = reply.json()
        return document

    def conditions(self) -> dict[str, dict[str, Any]]:
        """Code -> active condition."""
        return {c["code"]: c for c in self.status()["conditions"]}

    def meshctl(self, *words: str) -> Answer:
        return run([BIN / "meshctl", *words], timeout=LONGEST_S, MESHD_SOCKET=str(self.socket))

    def said(self) -> str:
        """Its output without the log."""
        lines = self.log.read_text().splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("{"))

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def until_said(self, text: str) -> None:
        until(lambda: text in self.log.read_text(), f"it says {text!r}", LONGEST_S)

    def ends_of_engines(self) -> list[tuple[str, str]]:
        """(engine, how it ended), in the order of their stops."""
        return [(line["service"], line["how"]) for line in self.logged("stopped") if "service" in line]


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with short_folder() as folder:
        made = Daemon(folder)
        try:
            yield made
        finally:
            made.close()
