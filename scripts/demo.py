"""`make demo`: three nodes on this machine, and the main job done on them as a person would.

FILE=path pins that file; KEEP=1 leaves the nodes running; DEMO_BASE=127.0.0.11 takes other loopback addresses.
`make demo-stop` ends nodes that were kept, or that a killed demo left. Exit codes: 0 done, 1 failed, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scripts import demo_material as material
from scripts import nodes as three
from scripts.nodes import Node, NodeError

PREFIX = "meshd-demo-"
_ROOM_S = 120.0  # for one command; content gets more
_SLOWEST_B_PER_S = 1_000_000  # slower than this, a pin counts as hanging
_SMALL_DISK_B = 400_000_000  # what three empty nodes and their reserve need


@dataclass
class Terminal:
    """Types commands on the nodes, shows what comes back, and keeps the times."""

    times: list[tuple[str, float]] = field(default_factory=list)
    step: str = "look at this machine"

    @contextlib.contextmanager
    def during(self, title: str) -> Iterator[None]:
        """One step: its title before, its time after."""
        self.step = title
        print(f"\n== {title}", flush=True)
        began = time.monotonic()
        yield
        self.times.append((title, time.monotonic() - began))
        print(f"   ({self.times[-1][1]:.1f} s)", flush=True)

    def type(
        self, node: Node, *words: str, where: Path, given: str = "", note: str = "", room_s: float = _ROOM_S
    ) -> str:
        """`meshctl WORDS` on `node` in the folder `where`; its output. Raises NodeError where it fails."""
        command = shlex.join(["meshctl", *words])
        print(f"{node.name}$ {command}{'   # ' + note if note else ''}", flush=True)
        with subprocess.Popen(
            [three.MESHCTL, *words],
            env=three.environment(node),
            cwd=where,
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="surrogateescape",
        ) as process:
            clock = threading.Timer(room_s, process.kill)
            clock.start()
            try:
                output = self._converse(process, given)
            except BaseException:
                process.terminate()  # a Ctrl-C reached it already; it ends by itself
                raise
            finally:
                code = process.wait()
                late = not clock.is_alive()
                clock.cancel()
        if code != 0:
            why = f"took longer than {room_s:.0f} s" if late else f"ended with exit code {code}"
            raise NodeError(f"`{command}` on {node.name} {why}", node)
        return output

    @staticmethod
    def _converse(process: subprocess.Popen[str], given: str) -> str:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(given)
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            print(f"  {_short(line.rstrip())}", flush=True)
        return "".join(lines)


def _short(line: str) -> str:
    """An invite fills five lines of a terminal, and nobody reads it."""
    return f"{line[:60]}…   ({len(line)} characters)" if line.startswith("meshd1.") else line


def show(terminal: Terminal, nodes: list[Node], folder: Path, what: material.Material) -> None:
    """The main job, step by step. Raises NodeError."""
    attic, cellar, desk = nodes
    here = {node.name: folder / f"home-{node.name}" for node in nodes}
    room_s = _ROOM_S + what.size / _SLOWEST_B_PER_S
    name = what.file.name
    with terminal.during("Three nodes, each a daemon with an address of its own"):
        for node in nodes:
            here[node.name].mkdir(exist_ok=True)
            print(f"{node.name}$ meshd run --config {node.config}   # {node.address}")
        three.start(nodes)
    with terminal.during(f"{attic.name} starts a mesh"):
        terminal.type(attic, "init", "--name", "archive", where=here[attic.name])
    for node in (cellar, desk):
        with terminal.during(f"{node.name} joins it by an invite"):
            said = terminal.type(attic, "invite", where=here[attic.name])
            invite = next((line for line in said.splitlines() if line.startswith("meshd1.")), "")
            terminal.type(
                node, "join", where=here[node.name], given=f"{invite}\n", note="and the line is pasted"
            )
    with terminal.during(f"{attic.name} pins a file"):
        terminal.type(attic, "pin", what.typed, where=what.typed_in, room_s=room_s)
    with terminal.during(f"{attic.name} pins a directory"):
        terminal.type(attic, "pin", what.directory.name, where=what.directory.parent)
    with terminal.during("What there is, seen from each node"):
        terminal.type(attic, "status", where=here[attic.name])
        terminal.type(cellar, "peers", where=here[cellar.name])
        terminal.type(desk, "ls", where=here[desk.name])
    with terminal.during(f"{desk.name} gets both, and the bytes are compared"):
        _get_and_compare(terminal, desk, here[desk.name], what, room_s)
    with terminal.during(f"{cellar.name} removes the file, {attic.name} brings it back"):
        terminal.type(cellar, "rm", *_ref(name), where=here[cellar.name])
        terminal.type(attic, "ls", where=here[attic.name])
        terminal.type(desk, "trash", where=here[desk.name])
        terminal.type(attic, "restore", *_ref(name), where=here[attic.name], room_s=room_s)
        terminal.type(cellar, "ls", where=here[cellar.name])
    with terminal.during("What listens: each node on its own address, and no UDP"):
        material.show_sockets(nodes)
    terminal.step = "count the copies"
    copies = material.copies_of(desk, name)
    if copies != sorted(three.NAMES):
        raise NodeError(f"{name} has {len(copies)} copies, not 3: {', '.join(copies) or 'none'}", attic)
    print(f"\n{name}  {len(copies)} copies: {', '.join(copies)}")


def _ref(name: str) -> list[str]:
    return ["--", name] if name.startswith("-") else [name]


def _get_and_compare(
    terminal: Terminal, node: Node, where: Path, what: material.Material, room_s: float
) -> None:
    for original in (what.file, what.directory):
        terminal.type(node, "get", *_ref(original.name), where=where, room_s=room_s)
        before, after = material.digest(original), material.digest(where / original.name)
        print(f"  SHA-256 {before}  as it was")
        print(f"  SHA-256 {after}  as {node.name} got it")
        if before != after:
            raise NodeError(f"the bytes of {original.name} are not the same", node)
        if original.is_dir():
            shutil.rmtree(where / original.name)
        else:
            (where / original.name).unlink()


def check_ports() -> None:
    """Raises NodeError that says who holds what the demo needs, and what to type."""
    hosts = three.addresses()
    try:
        three.check_ports(hosts)
    except NodeError as error:
        if three.left_behind(PREFIX)[1]:
            raise NodeError(f"{error}\nAn earlier demo still runs; to end it: make demo-stop") from error
        raise NodeError(
            f"{error}\nStop those, or take other addresses: make demo {three.BASE}=127.0.0.11"
        ) from error


def check_disk(folder: Path, what: material.Material) -> None:
    """Raises NodeError where three copies and one to compare do not fit."""
    needed = 4 * what.size + _SMALL_DISK_B
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NodeError(
            f"cannot keep three copies in {folder.parent}: {free / 1e6:.0f} MB are free and about"
            f" {needed / 1e6:.0f} MB are needed; free some, or: TMPDIR=/var/tmp make demo"
        )


def say_how_to_go_on(nodes: list[Node]) -> None:
    """What a person needs with KEEP=1."""
    pids = " ".join(str(node.pid) for node in nodes)
    print("\nThe three nodes go on running. To go on by hand, first:\n")
    print(
        f"  export PATH={shlex.quote(str(three.CHECKOUT / '.venv' / 'bin'))}:$PATH\n\nthen choose a node with one of\n"
    )
    for node in nodes:
        print(f"  export MESHD_SOCKET={node.socket}   # {node.name}, {node.address}")
    print("\nand try\n\n  meshctl status\n  meshctl pin README.md\n  meshctl ls\n")
    print(f"Logs: {nodes[0].folder.parent}/*/meshd.log")
    print(f"To stop the nodes and remove what they keep: make demo-stop   (or by pid: kill {pids})")


def stop_kept() -> int:
    """End what earlier demos left running, and remove what they kept."""
    folders, daemons = three.left_behind(PREFIX)
    three.end(daemons)
    if daemons:
        print(f"stopped the nodes with pid {', '.join(str(process.pid) for process in daemons)}")
    for folder in folders:
        three.remove(folder)
        print(f"removed {folder}")
    if not folders and not daemons:
        print("There is no demo to stop.")
    return 0


def run() -> int:
    """The demo from beginning to end; its exit code."""
    keep = os.environ.get("KEEP", "") not in {"", "0", "no"}
    terminal = Terminal()
    nodes: list[Node] = []
    folder: Path | None = None
    code = 1
    try:
        three.check_parts()
        material.check_file()
        check_ports()
        folder = three.make_folder(PREFIX)
        what = material.make(folder)
        check_disk(folder, what)
        nodes = three.make_nodes(folder)
        print(f"meshd demo: three nodes on this machine, in {folder}")
        show(terminal, nodes, folder, what)
        for title, seconds in terminal.times:
            print(f"  {seconds:6.1f} s  {title}")
        code = 0
    except NodeError as error:
        _tell(terminal, error, nodes)
    except KeyboardInterrupt:
        print("\ninterrupted", flush=True)
        code = 130
    except BrokenPipeError:
        _drop_output()
        code = 141  # 128 + SIGPIPE: nobody reads on
    except OSError as error:
        _tell(terminal, NodeError(str(error)), nodes)
    if code == 0 and keep:
        say_how_to_go_on(nodes)
        return code
    _clean(nodes, folder)
    return code


def _tell(terminal: Terminal, error: NodeError, nodes: list[Node]) -> None:
    sys.stdout.flush()
    print(f"\ndemo: failed at: {terminal.step}\ndemo: {error}", file=sys.stderr)
    ended = [node for node in nodes if node.ended]
    for node in ended:
        print(f"demo: meshd on {node.name} is not running: it {node.ended}", file=sys.stderr)
    for node in ended or ([error.node] if error.node else []):
        print(f"\nThe last lines of {node.name}'s log:", file=sys.stderr)
        for line in node.last_lines():
            print(f"  {line}", file=sys.stderr)
    sys.stderr.flush()


def _clean(nodes: list[Node], folder: Path | None) -> None:
    """Stop what was started and remove what was made; Ctrl-C in the midst makes it quick, not partial."""
    began = any(node.process for node in nodes)
    if began:
        _say("\nstopping the three nodes")
    try:
        killed = three.stop(nodes)
    except KeyboardInterrupt:
        killed = ["all"]
    three.deaf()
    if folder is not None:
        three.remove(folder)
    if began:
        _say(f"killed, as they did not stop: {', '.join(killed)}" if killed else "stopped")


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:
        _drop_output()  # what follows matters more than that somebody reads it


def _drop_output() -> None:
    """Nobody reads what is printed: what is still buffered must not fail a second time."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def main(arguments: list[str]) -> int:
    three.interruptible()
    return stop_kept() if arguments == ["--stop"] else run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
