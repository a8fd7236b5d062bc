"""What the demo pins, and how it looks at the outcome: digests, copies, sockets."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts import nodes as three
from scripts.nodes import Node, NodeError

_FILE = "minutes-1974.txt"
_DIRECTORY = "letters"
_LETTERS = {
    "1974/may.txt": "The roof is mended. The bill is in the blue folder.\n",
    "1974/june.txt": "The bees have swarmed into the neighbour's pear tree.\n",
    "1975/january.txt": "Snow to the window sills; nobody came.\n",
}


@dataclass(frozen=True)
class Material:
    """The file and the directory. `typed`: how a person in `typed_in` names the file. size: bytes of both."""

    file: Path
    typed: str
    typed_in: Path
    directory: Path
    size: int


def check_file() -> None:
    """Raises NodeError where $FILE names nothing that can be pinned."""
    named = os.environ.get("FILE")
    if not named:
        return
    path = Path(named)
    if not path.exists():
        raise NodeError(f"cannot pin FILE={named}: there is no such file")
    if not path.is_file():
        raise NodeError(
            f"cannot pin FILE={named}: it is not a file; name a file, the demo pins a directory too"
        )
    if not os.access(path, os.R_OK):
        raise NodeError(f"cannot read FILE={named}; check its owner and mode: ls -l {named}")


def make(folder: Path) -> Material:
    """Writes the directory, and the file where $FILE names none."""
    home = folder / "home"
    named = os.environ.get("FILE")
    if named:
        file, typed_in = Path(named).absolute(), Path.cwd()
        typed = f"./{named}" if named.startswith("-") else named
    else:
        file, typed, typed_in = home / _FILE, _FILE, home
    directory = home / (_DIRECTORY if file.name != _DIRECTORY else "more-letters")
    for name, text in _LETTERS.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    if not named:
        lines = [f"Item {i}: it was agreed to keep three copies of everything.\n" for i in range(1, 401)]
        file.write_text("Minutes of the spring meeting, 1974\n\n" + "".join(lines))
    size = file.stat().st_size + sum(path.stat().st_size for path in directory.rglob("*.txt"))
    return Material(file, typed, typed_in, directory, size)


def digest(path: Path) -> str:
    """SHA-256 of a file; of a directory, over the paths in it with the digest of each."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for child in sorted(path.rglob("*")):
        if child.is_file():
            total.update(f"{child.relative_to(path)}\0{digest(child)}\0".encode())
    return total.hexdigest()


def copies_of(node: Node, name: str) -> list[str]:
    """The nodes that hold it durably, as `node` finds when it asks each. Raises NodeError."""
    listed = three.ask(node, "ls", *(["--", name] if name.startswith("-") else [name]))
    return sorted(copy["node"] for copy in listed["copies"] if copy["state"] == "held")


def show_sockets(nodes: list[Node]) -> None:
    """What each node's processes hold open to the network. Raises NodeError for anything off the node's address."""
    for node in nodes:
        listening = []
        for process in [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]:
            for c in process.net_connections(kind="inet"):
                if c.type != socket.SOCK_STREAM:
                    raise NodeError(f"{process.name()} has a UDP socket", node)
                if c.status != psutil.CONN_LISTEN:
                    continue
                if c.laddr.ip != node.address or c.laddr.port not in three.PORTS:
                    raise NodeError(f"{process.name()} listens on {c.laddr.ip}:{c.laddr.port}", node)
                listening.append(c.laddr.port)
        shown = ", ".join(f"{port} ({three.PORTS[port]})" for port in sorted(listening))
        print(f"  {node.name:<8} {node.address}  TCP {shown}")
