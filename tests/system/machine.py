"""A Debian that boots: a folder made by debootstrap, layers of changes over it, and systemd-nspawn.

Each machine has a layer of its own, which is thrown away; what is below it is shared and never changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts.parts import cache_folder
from tests.supervise.control_groups import here

BOOKWORM, TRIXIE = "bookworm", "trixie"  # Debian 12 and 13
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-systemd",
    "iproute2",
    "procps",
    "man-db",
    "bash-completion",
    "libpam-systemd",
    "dbus-user-session",
)
TOOLS = ("systemd-nspawn", "debootstrap", "nsenter", "mount", "dpkg-deb", "strip")
LONGEST_S = 60.0
_LOOK_EVERY_S = 0.2
# BPF is how systemd has the kernel hold IPAddressDeny=, and Landlock keeps the engines in their control groups; nspawn keeps
# both from its guests unless it is told not to.
_ALLOWED = "bpf landlock_create_ruleset landlock_add_rule landlock_restrict_self"
_OPTIONS = (
    "--quiet",
    "--boot",
    "--register=no",
    "--keep-unit",
    "--console=pipe",
    f"--system-call-filter={_ALLOWED}",
)


def why_not() -> str:
    """Why no machine can be booted here; "" where one can."""
    if os.geteuid() != 0:
        return "booting a machine needs root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed (apt install systemd-container debootstrap binutils)"
    return ""


def base(suite: str = BOOKWORM) -> Path:
    """That Debian as debootstrap makes it, kept in the user's cache; about a minute the first time."""
    cache = cache_folder().parent / "system"
    cache.mkdir(parents=True, exist_ok=True)
    made = cache / f"{suite}-{hashlib.sha256(','.join(PACKAGES).encode()).hexdigest()[:8]}"
    with (cache / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            draft = cache / "unfinished"
            shutil.rmtree(draft, ignore_errors=True)
            command: list[str | Path] = [
                "debootstrap",
                "--variant=minbase",
                f"--include={','.join(PACKAGES)}",
                suite,
                draft,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"debootstrap failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
            (draft / "etc/machine-id").write_text("")  # each machine gets one of its own
            draft.rename(made)
    return made


def wait_for(condition: Callable[[], bool], what: str, seconds: float = LONGEST_S) -> None:
    """Return when it holds. Raises TimeoutError with `what`."""
    nobody_sets_it = threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        nobody_sets_it.wait(_LOOK_EVERY_S)


class Machine:
    """One machine. layers: folders with what is below its own changes, the topmost first."""

    def __init__(self, folder: Path, name: str, layers: Sequence[Path], packages: Path) -> None:
        self.name = name
        self.changes = folder / "changes"
        self._root = folder / "root"
        self._packages = packages
        self._output = folder / "console"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        own = here()
        self._group = own / f"meshd-test-{os.getpid()}-{name}" if own is not None else None
        for made in (self.changes, self._root, folder / "work"):
            made.mkdir(parents=True, exist_ok=True)
        below = ":".join(map(str, layers))
        options = f"lowerdir={below},upperdir={self.changes},workdir={folder / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, self._root], check=True)
        (self._root / "etc/hostname").write_text(f"{name}\n")

    def boot(self) -> None:
        """Start it and wait until systemd says that all of it runs."""
        command: list[str | Path] = [
            *self._within_its_group(),
            "systemd-nspawn",
            f"--directory={self._root}",
            f"--machine={self.name}-{os.getpid()}",  # another process's tests may have one of that name
            f"--hostname={self.name}",
            f"--bind-ro={self._packages}:/packages",
            "--private-network",
            *_OPTIONS,
        ]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        wait_for(self._up, f"{self.name} boots")

    def _within_its_group(self) -> list[str | Path]:
        """So that two machines do not share one tree of control groups: each thinks that it is alone in it."""
        if self._group is None:
            return []
        self._group.mkdir(exist_ok=True)
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', self._group]

    def _up(self) -> bool:
        process = self._process
        assert process is not None
        if process.poll() is not None:
            raise RuntimeError(f"{self.name} did not boot: {self._output.read_text()[-2000:]}")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self._leader = int(children[0]) if children else 0
        if not self._leader:
            return False
        return self.try_run("systemctl is-system-running").stdout.strip() in ("running", "degraded")

    def fetch(self, script: str) -> str:
        """Run `script` in the files of a machine that is off, with the network of this system: it has none of its own.

        What went wrong; "" when nothing did.
        """
        shutil.copyfile("/etc/resolv.conf", self._root / "etc/resolv.conf")
        inside: list[str | Path] = ["chroot", self._root, "bash", "-ec", script]
        quietly = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(inside, capture_output=True, text=True, check=False, env=quietly)
        return "" if done.returncode == 0 else done.stdout[-1000:] + done.stderr[-1000:]

    @property
    def files(self) -> Path:
        """Its root, as this system sees it: what the machine itself mounts is not in there."""
        return self._root

    def take(self, device: str) -> None:
        """Move a network device of this system into the machine, until it stops."""
        subprocess.run(["ip", "link", "set", device, "netns", str(self._leader)], check=True)

    def stop(self) -> None:
        """Shut it down as its power button would."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def reboot(self) -> None:
        self.stop()
        self.boot()

    def remove(self) -> None:
        """Stop it and forget its changes."""
        try:
            self.stop()
        finally:
            subprocess.run(["umount", self._root], check=True)
        if self._group is not None:
            for folder, _, _ in os.walk(self._group, topdown=False):
                Path(folder).rmdir()

    def try_run(
        self, script: str, *, user: str = "root", seconds: float = LONGEST_S, fed: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """What a shell of the machine makes of `script`, by its exit code and what it printed. fed: its standard input."""
        inside = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        clean = [
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG=C.UTF-8",
            "HOME=/root",
            "SYSTEMD_COLORS=0",
        ]
        shell = (
            ["bash", "-c", script] if user == "root" else ["runuser", "-u", user, "--", "bash", "-c", script]
        )
        return subprocess.run(
            [*inside, *clean, *shell],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            input=fed,
        )

    def run(self, script: str, *, user: str = "root", seconds: float = LONGEST_S, fed: str = "") -> str:
        """What it printed on standard output. Fails the test where it failed."""
        done = self.try_run(script, user=user, seconds=seconds, fed=fed)
        assert done.returncode == 0, f"{self.name}$ {script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def until(self, script: str, wanted: str, seconds: float = LONGEST_S) -> str:
        """Run it again and again until it prints `wanted`; what it printed."""
        said = [""]

        def look() -> bool:
            done = self.try_run(script)
            said[0] = done.stdout + done.stderr
            return wanted in said[0]

        try:
            wait_for(look, f"{self.name}$ {script} prints {wanted!r}", seconds)
        except TimeoutError as exc:
            raise TimeoutError(f"{exc}; it prints {said[0][-1500:]}") from None
        return said[0]

    def until_active(self, unit: str) -> None:
        """Return when systemd says that it runs."""
        wait_for(
            lambda: self.try_run(f"systemctl is-active {unit}").stdout.strip() == "active",
            f"{self.name}: {unit} is active",
        )
