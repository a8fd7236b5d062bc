"""Builds one program of a Go module at a fixed version, and shows how far it is.

Modules come the way the `go` command on this machine is configured to fetch them, and go checks them against the
public checksums. The build runs inside the module's own folder, so upstream's go.sum decides every version in it.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LINES_KEPT = 15  # of go's output, to show when it fails
SECONDS_BETWEEN_LINES = 15.0  # where there is no terminal, as in a CI log
SECONDS_TO_STOP = 5.0

# What go's output says about the cause, and what helps. The first that matches wins.
ADVICE = (
    (r"no space left on device|disk quota exceeded", "Free about 3 GB on the disk that is full"),
    (
        r"signal: killed|cannot allocate memory|out of memory",
        "Give it memory, or less at a time (GOFLAGS=-p=1)",
    ),
    (r"checksum mismatch|SECURITY ERROR", "A module is not what was published: type go clean -modcache"),
    (r"requires go >=|go\.mod file indicates go|invalid go version", "Install a newer Go"),
    (
        r"permission denied|read-only file system",
        "Make go's caches writable (see: go env GOCACHE GOMODCACHE)",
    ),
    (
        r"dial tcp|no such host|connection refused|connection reset|timeout|TLS handshake|unreachable|"
        r"proxyconnect|x509|unexpected EOF|module lookup disabled|Forbidden|Bad Gateway|Unavailable",
        "Check the network, and how go fetches modules (go env GOPROXY HTTPS_PROXY)",
    ),
    (
        r"404 Not Found|410 Gone|unknown revision|not found",
        "Fetch modules from a place that has this one (see: go env GOPROXY)",
    ),
)


class BuildError(Exception):
    """A program that cannot be had; the message says why and ends with what to type."""


@dataclass(frozen=True)
class Module:
    """A Go module at the version that we build.

    `go` is what its go.mod asks for. It is repeated here for those who have no go to read that file with.
    """

    name: str
    path: str
    version: str
    go: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def at(self) -> str:
        return f"{self.path}@v{self.version}"


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@dataclass
class Progress:
    """One line that is rewritten on a terminal; elsewhere a line now and then."""

    title: str
    began: float = field(default_factory=time.monotonic)
    shown: float = 0.0
    terminal: bool = field(default_factory=sys.stdout.isatty)

    def show(self, text: str, *, now: bool = False) -> None:
        at = time.monotonic()
        if not now and at - self.shown < (0.2 if self.terminal else SECONDS_BETWEEN_LINES):
            return
        self.shown = at
        line = f"{self.title}: {text}, {clock(at - self.began)}"
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{line[:width]}", end="", flush=True)
        else:
            print(line, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        """End the line, so that what comes next, be it an error, begins one of its own."""
        if self.terminal and self.shown:
            print(flush=True)


def go_version(text: str) -> tuple[int, ...]:
    """`go1.26.5`, `1.26.5` and `1.26` as comparable numbers; empty for a development version."""
    found = re.match(r"(?:go)?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def environment(arch: str) -> dict[str, str]:
    """Everything that the person set (proxies, caches, flags), but for what would change what is built."""
    return os.environ | {
        "GO111MODULE": "on",
        "GOARCH": arch,
        "GOOS": "linux",
        "GOTOOLCHAIN": "local",  # or go would fetch and run another go
        "GOWORK": "off",  # a workspace above the module cache is someone else's
        "CGO_ENABLED": "0",  # no C compiler needed, and the program runs on any libc
    }


def last_lines(lines: deque[str]) -> str:
    return "".join(f"\n    {line}" for line in lines)


def stop(process: subprocess.Popen[str]) -> None:
    """End go and the compilers that it started, and wait until they are gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass  # the group is empty: all have ended
        try:
            process.wait(SECONDS_TO_STOP)
            return
        except subprocess.TimeoutExpired:
            continue


class Go:
    """The `go` command, checked against what a module asks for."""

    def __init__(self, module: Module, arch: str, *, instead: str) -> None:
        """`instead` tells what else a person could do, for the message when there is no usable go."""
        self.module = module
        self.env = environment(arch)
        self.instead = instead
        found = shutil.which("go")
        if found is None:
            raise self.unusable("the go command is not on PATH", module.go)
        self.path = found

    def unusable(self, why: str, needed: str) -> BuildError:
        return BuildError(
            f"cannot build {self.module} ({self.module.at}): {why}. Install Go {needed} or newer "
            f"(where snaps work: sudo snap install go --classic), or {self.instead}, then type: make setup"
        )

    def failed(self, what: str, lines: deque[str]) -> BuildError:
        output = "\n".join(lines)
        advice = next(
            (text for pattern, text in ADVICE if re.search(pattern, output)), "Read the lines above"
        )
        return BuildError(
            f"cannot build {self.module} ({self.module.at}): {what} failed. "
            f"The last that it said:{last_lines(lines) or ' nothing'}\n{advice}, then type: make setup"
        )

    def run(self, what: str, *arguments: str, cwd: Path, heard: Callable[[str], None]) -> str:
        """Run go, pass each line of its standard error to `heard` (and "" about once a second); return its output."""
        command = [self.path, *arguments]
        lines: deque[str] = deque(maxlen=LINES_KEPT)
        spoken: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        with tempfile.TemporaryFile("w+") as output:
            # In a session of its own, so that stopping it reaches the compilers too and nothing stays behind.
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            threading.Thread(target=listen, args=(process, spoken), daemon=True).start()
            try:
                while True:
                    try:
                        line = spoken.get(timeout=1.0)
                    except queue.Empty:
                        line = ""
                    if line is None:
                        break
                    if line:
                        lines.append(line)
                    heard(line)
                code = process.wait()
            finally:
                stop(process)
            output.seek(0)
            text = output.read()
        if code:
            # `go mod download -json` puts its error into the JSON on standard output.
            lines.extend(re.findall(r'"Error": "(.*)"', text))
            raise self.failed(what, lines)
        return text

    def fetch(self) -> Path:
        """Fetch the module itself; return its (read-only) folder. Checks that this go can build it."""
        with Progress(str(self.module)) as progress, tempfile.TemporaryDirectory() as empty:
            progress.show("fetching its source", now=True)
            # In an empty folder, outside any other module.
            text = self.run(
                "go mod download", "mod", "download", "-json", self.module.at,
                cwd=Path(empty), heard=lambda _: progress.show("fetching its source"),
            )  # fmt: skip
        folder = Path(json.loads(text)["Dir"])
        asked = re.search(r"^go\s+(\S+)", (folder / "go.mod").read_text(), re.MULTILINE)
        needed = asked.group(1) if asked else self.module.go
        have = subprocess.run(
            [self.path, "env", "GOVERSION"], env=self.env, capture_output=True, text=True, check=False
        ).stdout.strip()
        if go_version(have) and go_version(have) < go_version(needed):
            raise self.unusable(f"{self.path} is {have.removeprefix('go')}, which is too old", needed)
        return folder

    def count(self, folder: Path, package: str) -> tuple[int, str]:
        """Fetch every module that the program needs; return how many packages it has and its import path."""
        fetched = 0

        def heard(line: str) -> None:
            nonlocal fetched
            fetched += line.startswith("go: downloading")
            progress.show(f"fetching modules: {fetched} so far" if fetched else "looking at its packages")

        with Progress(f"{self.module}: {Path(package).name}") as progress:
            text = self.run("go list", "list", "-mod=readonly", "-deps", package, cwd=folder, heard=heard)
            if fetched:
                progress.show(f"fetched {fetched} modules", now=True)
        packages = text.split()
        return len(packages), packages[-1]

    def build(self, folder: Path, package: str, target: Path) -> None:
        """Compile `package` of the module in `folder` into the file `target`."""
        total, main = self.count(folder, package)
        compiled = 0
        linking = False

        def heard(line: str) -> None:
            # `go build -v` names each package that it compiles; it is silent about those in go's cache.
            nonlocal compiled, linking
            compiled += bool(re.fullmatch(r"[\w./~+-]+", line))
            linking |= line == main
            state = "linking" if linking else f"compiled {compiled} of at most {total} packages"
            progress.show(state, now=line == main)

        flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-v"]
        with Progress(f"{self.module}: {Path(package).name}") as progress:
            self.run("go build", "build", *flags, "-o", str(target), package, cwd=folder, heard=heard)
            done = f"built ({compiled} packages compiled, {total - compiled} from go's cache)"
            progress.show(done, now=True)


def listen(process: subprocess.Popen[str], spoken: queue.SimpleQueue[str | None]) -> None:
    """Put each line into the queue, then None. A thread, so that the time goes on when go is silent."""
    assert process.stderr is not None  # noqa: S101 (it is a pipe, see above)
    with process.stderr:
        for line in process.stderr:
            spoken.put(line.rstrip())
    spoken.put(None)
