"""HTTP client on meshd's Unix socket: plain responses, streams of events and content, errors for a person."""

from __future__ import annotations

import os
import stat
import sys

from meshctl import documents
from meshctl.errors import MeshctlError, usage
from meshctl.interpreter import socket
from meshctl.interruptible_socket import InterruptibleSocket
from meshctl.percent import quote
from meshctl.response import ProtocolError, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Document = dict[str, Any]
    Query = dict[str, str | int | None]
else:
    Document = Query = dict


SYSTEM_SOCKET = "/run/meshd/meshd.sock"
_UNITS = (
    "/etc/systemd/system/meshd.service",
    "/usr/lib/systemd/system/meshd.service",
    "/lib/systemd/system/meshd.service",
)
SOCKET_PATH_BYTES = 107
CONNECT_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 60.0  # for immediate responses; streams and content have no time-out
LONG_ANSWER_TIMEOUT_S = 300.0  # rm asks every node, some of which may be away

_PROBLEM_LIMIT = 1 << 20  # bytes

_MIXED_VERSIONS = "meshctl version   (client and daemon should be of one version)"


def socket_path(option: str | None) -> str:
    """meshd's socket: by --socket, else MESHD_SOCKET, else the user's own daemon's, else the system's.

    Raises MeshctlError (usage) for an option without a path.
    """
    if option == "":
        raise usage(
            "cannot reach meshd", "--socket was given no path", "meshctl --socket PATH, or leave it out"
        )
    chosen = option or os.environ.get("MESHD_SOCKET")
    if chosen:
        return chosen
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.geteuid() != 0:
        own = f"{runtime}/meshd/meshd.sock"
        if os.path.exists(own):
            return own
    return SYSTEM_SOCKET


def route(*segments: str, query: Query | None = None) -> str:
    """The request target /v1/<segments>?<query>, percent-encoded; members of the query that are None are left out.

    Raises MeshctlError (usage) for a segment that a server would resolve as a path step, such as `..`.
    """
    for segment in segments:
        if segment in {"", ".", ".."}:
            raise usage(f"cannot look for {segment!r}", "that is no name", "meshctl --help")
        if any("\udc80" <= character <= "\udcff" for character in segment):
            raise usage(
                f"cannot look for {segment}",
                "it is not valid UTF-8, so nothing has that name",
                "meshctl --help",
            )
    target = "/v1/" + "/".join(quote(segment) for segment in segments)
    pairs = [f"{key}={quote(str(value))}" for key, value in (query or {}).items() if value is not None]
    return f"{target}?{'&'.join(pairs)}" if pairs else target


def connect(path: str) -> InterruptibleSocket:
    """Connect to meshd. Raises MeshctlError that says why it cannot and what to type."""
    connection = InterruptibleSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not settimeout: a non-blocking connect to a Unix socket does not wait at all while its queue is full.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(CONNECT_TIMEOUT_S))
        connection.connect(path)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(0))
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError):
            raise _no_connection(path, error) from None
        raise
    return connection


def _timeval(seconds: int) -> bytes:
    """A struct timeval of 64 or 32 bits: two longs of this machine."""
    long = 8 if sys.maxsize > 1 << 32 else 4
    return seconds.to_bytes(long, sys.byteorder) + bytes(long)


def _no_connection(path: str, error: OSError) -> MeshctlError:
    title = "cannot reach meshd"
    if isinstance(error, PermissionError):
        return MeshctlError(
            "cannot talk to meshd",
            f"you have no right to its socket {path}",
            "sudo usermod -aG meshd $USER   (then log in anew), or use sudo",
            code="denied",
        )
    start = _how_to_start(path)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        detail = f"there is no socket {path}"
    elif len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        detail = f"a socket's path has at most {SOCKET_PATH_BYTES} bytes, and this has {len(os.fsencode(path))}: {path}"
        start = "ln -s FOLDER /tmp/m, then: meshctl --socket /tmp/m/meshd.sock ...   (FOLDER: where meshd.sock is)"
    elif os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
        detail = f"{path} is no socket"
        start = "meshctl --socket PATH ..., or set MESHD_SOCKET to the daemon's socket"
    elif isinstance(error, ConnectionRefusedError):
        detail = f"nobody answers at {path}: the daemon is not running"
    elif isinstance(error, TimeoutError | BlockingIOError):
        detail = f"nobody answers at {path}: the daemon hangs or is overloaded"
        start = "sudo systemctl restart meshd"
    else:
        detail = f"{path}: {error.strerror or error}"
    return MeshctlError(title, detail, start, code="daemon-unreachable")


def _how_to_start(path: str) -> str:
    if path == SYSTEM_SOCKET and any(map(os.path.exists, _UNITS)):
        return "sudo systemctl start meshd\nsystemctl status meshd   (why it does not run)"
    return (
        "meshd run --config FILE, or where it is a service: sudo systemctl start meshd\n"
        "if it runs with other folders: export MESHD_SOCKET=PATH   (meshd.sock in its [paths] run)"
    )


class Client:
    """Client of one meshd. Opens nothing before the first request."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.daemon_version: str | None = None  # known after the first response
        self.operation: str | None = None  # id of the operation of the last response, if it has one

    def call(
        self, method: str, target: str, body: Document | None = None, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> Document:
        """Send one request, return its JSON document. Raises MeshctlError."""
        response = self.open(method, target, body, timeout_s)
        try:
            with response:
                text = response.read()
        except (OSError, ProtocolError):
            raise lost("the answer broke off") from None
        return _document(text)

    def get(self, *segments: str, query: Query | None = None) -> Document:
        """GET /v1/<segments> as a JSON document."""
        return self.call("GET", route(*segments, query=query))

    def stream(self, method: str, target: str, body: Document | None = None) -> Iterator[Document]:
        """Send one request, yield the events of its stream: see `events`."""
        response = self.open(method, target, body, None)
        with response:
            yield from events(response)

    def open(
        self, method: str, target: str, body: Document | None = None, timeout_s: float | None = None
    ) -> Response:
        """Send one request, return the response with its body unread. Raises MeshctlError for a refusal."""
        self.operation = None
        request = _request(method, target, body)
        connection = connect(self.path)
        try:
            connection.settimeout(timeout_s)
            try:
                connection.sendall(request)
            except (BrokenPipeError, ConnectionResetError):
                pass  # a daemon that has too many connections answers before it has read anything, and closes
            response = Response(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, TimeoutError):
                raise silent(self.path) from None
            if isinstance(error, OSError | ProtocolError):
                raise lost("it closed the connection without an answer") from None
            raise
        return self.checked(response)

    def checked(self, response: Response) -> Response:
        """Return a successful response; for any other raise its problem document as MeshctlError."""
        self.daemon_version = response.header("Meshd-Version") or self.daemon_version
        self.operation = response.header("Meshd-Operation")
        if 200 <= response.status < 300:
            return response
        try:
            with response:
                document = documents.decode(response.read(_PROBLEM_LIMIT))
        except (OSError, ProtocolError, ValueError):
            document = None
        if isinstance(document, dict) and "title" in document:
            raise MeshctlError.from_problem(document)
        said = f"it answered {response.status} {response.reason}"
        raise MeshctlError("cannot understand the daemon", said, _MIXED_VERSIONS)


def _request(method: str, target: str, body: Document | None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: meshd", "Accept-Encoding: identity", "Connection: close"]
    payload = b""
    if body is not None:
        payload = documents.encode(body).encode("ascii")
        lines.append("Content-Type: application/json")
    if body is not None or method in {"POST", "PUT"}:
        lines.append(f"Content-Length: {len(payload)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + payload


def events(response: Response) -> Iterator[Document]:
    """Yield every event of an ndjson stream, `done` and `error` included.

    Raises MeshctlError after an `error` event, and when the stream ends without `done`.
    """
    while True:
        try:
            line = response.readline()
        except (OSError, ProtocolError):
            line = b""
        if not line.endswith(b"\n"):  # a truncated line ends the stream
            raise lost("it went away before it said how this ended")
        if not line.strip():
            continue
        event = _document(line)
        yield event
        if event.get("event") == "error":
            problem = event.get("problem")
            raise MeshctlError.from_problem(problem if isinstance(problem, dict) else {})
        if event.get("event") == "done":
            return


def lost(detail: str) -> MeshctlError:
    """The error for a daemon that closed the connection during a response."""
    return MeshctlError("cannot tell the outcome", f"the daemon went away: {detail}", "meshctl status")


def silent(path: str) -> MeshctlError:
    """The error for a daemon that accepted the connection and does not respond."""
    detail = f"nobody answers at {path}: the daemon hangs or is overloaded"
    return MeshctlError(
        "cannot reach meshd", detail, "sudo systemctl restart meshd", code="daemon-unreachable"
    )


def _document(text: bytes) -> Document:
    try:
        document = documents.decode(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise MeshctlError(
            "cannot understand the daemon", "its answer is not what was expected", _MIXED_VERSIONS
        )
    return document
