"""Puts ipfs, ipfs-cluster-service and ipfs-cluster-ctl into .parts/bin: what `make setup` calls.

A program on PATH in a supported version is used as it is. What is missing is built from its source once for each
user, and kept under ${XDG_CACHE_HOME:-~/.cache}/meshd/parts. .parts/bin holds links only.

Standard library only: it must run before anything is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from scripts.gobuild import BuildError, Go, Module, clock

ROOT = Path(__file__).resolve().parent.parent
PARTS = ROOT / ".parts"
SECONDS_TO_ANSWER = 20.0  # a program that was just built is read from the disk for the first time
UNFINISHED = "unfinished-"

# Go's names of the processors that we know; any other is what `go env GOARCH` would say it is.
ARCHES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64"}

Version = tuple[int, int, int]

KUBO = Module("kubo", "github.com/ipfs/kubo", "0.43.0", go="1.26.5")
CLUSTER = Module("ipfs-cluster", "github.com/ipfs-cluster/ipfs-cluster", "1.1.6", go="1.26")


@dataclass(frozen=True)
class Program:
    """A program that meshd runs. Supported are the versions of one series (0.43.x), from `lowest` on."""

    name: str
    module: Module
    ask: tuple[str, ...]
    lowest: Version

    def __str__(self) -> str:
        series = f"{self.name} {self.lowest[0]}.{self.lowest[1]}.x"
        return f"{series} ({dotted(self.lowest)} or newer)" if self.lowest[2] else series

    def supports(self, version: Version) -> bool:
        return version >= self.lowest and version[:2] == self.lowest[:2]


PROGRAMS = (
    Program("ipfs", KUBO, ("version", "--number"), (0, 43, 0)),
    Program("ipfs-cluster-service", CLUSTER, ("--version",), (1, 1, 6)),
    Program("ipfs-cluster-ctl", CLUSTER, ("--version",), (1, 1, 6)),
)


def dotted(version: Version) -> str:
    return ".".join(map(str, version))


def say(text: str) -> None:
    print(f"parts: {text}", flush=True)


def version_of(program: Program, path: Path) -> Version | None:
    """Ask the program itself; None when it does not run, or is a preview of a version."""
    with tempfile.TemporaryDirectory() as empty:
        # An ipfs repository of this person, perhaps of another version, has no say in the answer.
        env = os.environ | {"IPFS_PATH": empty, "IPFS_CLUSTER_PATH": empty}
        try:
            done = subprocess.run(
                [path, *program.ask],
                env=env,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=SECONDS_TO_ANSWER,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
    found = re.search(r"(?:^|\s)v?(\d+)\.(\d+)\.(\d+)([-\w]*)", done.stdout)
    if found is None or found.group(4):
        return None
    return int(found.group(1)), int(found.group(2)), int(found.group(3))


def on_path(program: Program) -> Path | None:
    """The first one on PATH in a supported version; says which ones were passed over, and why."""
    for folder in os.get_exec_path():
        path = Path(folder, program.name).absolute()
        if not (path.is_file() and os.access(path, os.X_OK)) or path.parent == PARTS / "bin":
            continue
        version = version_of(program, path)
        if version is not None and program.supports(version):
            say(f"{program.name} {dotted(version)} is {path}")
            return path
        named = "of an unknown version" if version is None else dotted(version)
        say(f"{path} is {named}; meshd needs {program}")
    return None


def architecture() -> str:
    machine = platform.machine()
    return ARCHES.get(machine, machine)


def cache_folder() -> Path:
    """Where built programs are kept, for every checkout of this user."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification says to ignore a relative path.
    return (base if base.is_absolute() else Path.home() / ".cache") / "meshd" / "parts"


def home_of(module: Module) -> Path:
    return cache_folder() / f"{module.name}-{module.version}-{architecture()}"


def cached(program: Program) -> Path | None:
    path = home_of(program.module) / program.name
    if path.is_file() and version_of(program, path) is not None:
        return path
    return None


@contextlib.contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Hold the cache's lock, so that two set-ups do not build the same thing side by side."""
    with (cache / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is building; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        # Who holds the lock builds, so what is unfinished now was left by a set-up that was killed.
        for left in cache.glob(f"{UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def build(module: Module, programs: list[Program], instead: str) -> dict[str, Path]:
    """Build the programs of one module and move each into the cache, whole or not at all.

    `instead` is what a person could do to need no build, for the message when there is no usable go.
    """
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with alone(cache):
            missing = [program for program in programs if cached(program) is None]
            if missing:
                with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=cache) as work:
                    compile_into(Path(work), module, missing, instead)
    except OSError as error:
        raise BuildError(
            f"cannot keep {module} in {cache}: {error.strerror or error}. Make that folder writable, with 300 MB free, "
            "or choose another with XDG_CACHE_HOME, then type: make setup"
        ) from error
    return {program.name: home_of(module) / program.name for program in programs}


def compile_into(work: Path, module: Module, programs: list[Program], instead: str) -> None:
    names = " and ".join(program.name for program in programs)
    say(f"building {names} of {module} from source; this happens once for each user and takes some minutes")
    go = Go(module, architecture(), instead=instead)
    source = go.fetch()
    for program in programs:
        fresh = work / program.name
        go.build(source, f"./cmd/{program.name}", fresh)
        version = version_of(program, fresh)
        if version is None or dotted(version) != module.version:
            answer = "gives no version" if version is None else f"says that it is {dotted(version)}"
            raise BuildError(
                f"cannot use the {program.name} that was built from {module.at}: it {answer}. "
                "Empty go's caches with: go clean -cache -modcache, then type: make setup"
            )
        home_of(module).mkdir(exist_ok=True)
        fresh.rename(home_of(module) / program.name)


def stamp(path: Path) -> list[str | int]:
    """What tells that the file behind a link is still the one whose version was checked."""
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]


def recorded() -> bool:
    """True when .parts/bin is as the last set-up left it: then there is nothing to run and nothing to say."""
    try:
        record = json.loads((PARTS / "record.json").read_text())
        if record["wanted"] != wanted():
            return False
        return all(
            (PARTS / "bin" / program.name).readlink() == Path(record["found"][program.name][0])
            and stamp(Path(record["found"][program.name][0])) == record["found"][program.name]
            for program in PROGRAMS
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False


def wanted() -> list[str]:
    return [f"{program}, or {program.module}" for program in PROGRAMS]


def link(found: dict[str, Path]) -> None:
    """Point .parts/bin at the programs, each link replaced in one step."""
    (PARTS / "bin").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PARTS) as work:
        for name, path in found.items():
            fresh = Path(work, name)
            fresh.symlink_to(path)
            fresh.rename(PARTS / "bin" / name)
        record = Path(work, "record.json")
        record.write_text(json.dumps({"wanted": wanted(), "found": {n: stamp(p) for n, p in found.items()}}))
        record.rename(PARTS / "record.json")


def find_all() -> dict[str, Path]:
    found: dict[str, Path] = {}
    missing: dict[Module, list[Program]] = {}
    for program in PROGRAMS:
        path = on_path(program) or cached(program)
        if path is None:
            missing.setdefault(program.module, []).append(program)
        else:
            found[program.name] = path
    named = " and ".join(str(program) for programs in missing.values() for program in programs)
    for module, programs in missing.items():
        found |= build(module, programs, f"put {named} on PATH")
    return found


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    if recorded():
        return 0
    # Told to end in any way, we stop go and remove what is unfinished.
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    began = time.monotonic()
    try:
        link(find_all())
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"cannot fill {PARTS}: {error}; make it writable, then type: make setup", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\ncannot finish the set-up: it was interrupted. What go has compiled is kept; "
            "to go on from there, type: make setup",
            file=sys.stderr,
        )
        return 130
    names = ", ".join(program.name for program in PROGRAMS)
    say(f"{names} are in .parts/bin, {clock(time.monotonic() - began)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
