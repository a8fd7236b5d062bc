"""How the tests wait and ask: conditions with a deadline, HTTP over a Unix socket, files and their digests."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
_CHUNK = 1024 * 1024


def until(
    condition: Callable[..., T], what: str, seconds: float = 30.0, *, every: float = 0.1
) -> T:  # fmt: skip
    """The condition's first true value. Fails with `what`, and the last value, where none comes in time."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what} (last seen: {value!r})")
        pause.wait(every)
    return value


def let_pass(seconds: float) -> None:
    """Return at that distance from now: for a span that is itself what the test is about."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, "the clock goes on", seconds + 5.0)


def holds_for(condition: Callable[[], object], what: str, seconds: float, *, every: float = 0.2) -> None:
    """Fails with `what` as soon as the condition does not hold during that span."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < end:
        value = condition()
        assert value, f"it did not stay so: {what} (last seen: {value!r})"
        pause.wait(every)


class Reply(NamedTuple):
    """An HTTP answer, whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        """The document."""
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        """The events of a stream."""
        return [json.loads(line) for line in self.body.splitlines()]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def unix_request(
    path: Path,
    method: str,
    target: str,
    body: object = None,
    *,
    timeout: float = 60.0,
    headers: dict[str, str] | None = None,
) -> Reply:
    """One request, as curl --unix-socket makes it. body: bytes as they are, anything else as JSON. Raises OSError."""
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    return _ask(_UnixConnection(path, timeout), method, target, raw, headers)


def tcp_request(address: str, port: int, target: str, headers: dict[str, str] | None = None) -> Reply:
    """One GET over TCP. Raises OSError."""
    return _ask(http.client.HTTPConnection(address, port, timeout=20.0), "GET", target, None, headers)


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: bytes | None,
    headers: dict[str, str] | None,
) -> Reply:
    try:
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    except http.client.HTTPException as exc:
        raise ConnectionError(f"{method} {target}: {exc!r}") from exc
    finally:
        connection.close()


def random_file(path: Path, size: int) -> Path:
    """A new file of random bytes. A large one repeats a random MiB, each time marked, so that no two blocks are one."""
    block = random.randbytes(min(size, _CHUNK))
    with path.open("wb") as file:
        for number in range(0, size, _CHUNK):
            mark = number.to_bytes(8, "big") if size > _CHUNK else b""
            file.write((mark + block)[: min(_CHUNK, size - number)])
    return path


def sha256(path: Path) -> str:
    """Of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
