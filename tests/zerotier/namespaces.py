"""A way from the tests into network namespaces, where each machine has a loopback of its own."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def connect(namespace: str, port: int, address: str = "127.0.0.1", seconds: float = 5.0) -> socket.socket:
    """A connection out of that namespace. Raises OSError where nobody listens."""
    return _inside(namespace, lambda: socket.create_connection((address, port), timeout=seconds))


def listen(namespace: str, port: int = 0) -> socket.socket:
    """A socket that listens on 127.0.0.1 in that namespace; "" for the one we are in. Raises OSError."""
    if not namespace:
        return socket.create_server(("127.0.0.1", port))
    return _inside(namespace, lambda: socket.create_server(("127.0.0.1", port)))


def _inside(namespace: str, make: Callable[[], socket.socket]) -> socket.socket:
    """A socket stays in the namespace in which it was made, whoever holds it."""
    answer: list[socket.socket | OSError] = []

    def enter() -> None:  # a thread of its own: it is the thread that moves, and it ends there
        try:
            fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(fd, _CLONE_NEWNET):
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code))
            finally:
                os.close(fd)
            answer.append(make())
        except OSError as exc:
            answer.append(exc)

    thread = threading.Thread(target=enter, name=f"into {namespace}")
    thread.start()
    thread.join()
    if isinstance(answer[0], OSError):
        raise answer[0]
    return answer[0]


class Window:
    """A port on this machine's loopback that leads to the port named in `port_file`, on the namespace's loopback."""

    def __init__(self, namespace: str, port_file: Path) -> None:
        self._namespace = namespace
        self._port_file = port_file
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()
        self.url = ""

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._passing):
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._pump_both(reader, writer))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _pump_both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            port = int(self._port_file.read_text())
            far = await asyncio.to_thread(connect, self._namespace, port)
        except (OSError, ValueError):  # nobody there: the one who asked sees the connection end
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection(sock=far)
        try:
            there = asyncio.create_task(_pump(reader, far_writer))
            await _pump(far_reader, writer)  # each connection carries one call: its answer ends it
            there.cancel()
            await asyncio.gather(there, return_exceptions=True)
        finally:
            far_writer.close()
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except OSError:  # one of the two has gone
        pass


def addresses(namespace: str, device: str = "") -> set[str]:
    """CIDRs on the interfaces there (on `device` alone, if it is named), but for loopback and link-local ones.

    An address that is still being checked for duplicates is not counted: nothing can bind to it yet.
    """
    found = subprocess.run(
        ["ip", "-n", namespace, "-json", "addr", "show"], check=True, capture_output=True, timeout=20
    )
    return {
        f"{one['local']}/{one['prefixlen']}"
        for link in json.loads(found.stdout or b"[]")
        if link and link["ifname"] != "lo" and device in ("", link["ifname"])
        for one in link.get("addr_info", [])
        if one["scope"] == "global" and not one.get("tentative")
    }


def devices(namespace: str) -> set[str]:
    """Names of the interfaces there."""
    found = subprocess.run(
        ["ip", "-n", namespace, "-json", "link", "show"], check=True, capture_output=True, timeout=20
    )
    return {link["ifname"] for link in json.loads(found.stdout)}
