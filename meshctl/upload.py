"""Uploads a tree as one multipart body, in a thread, while the other reads the daemon's events.

The form is that of kubo's /api/v0/add: parts named "file", whose percent-encoded file names carry the tree. Sizes are
known before the first byte is sent, so the request has an exact Content-Length, and a truncated upload never passes
for a whole one. Standard input has no known size and goes in chunks.
"""

from __future__ import annotations

import _thread
import os
import stat

from meshctl import hints
from meshctl.client import Client, Document, Query, connect, events, lost, route
from meshctl.errors import MeshctlError
from meshctl.interpreter import socket
from meshctl.percent import quote
from meshctl.render import safe
from meshctl.response import ProtocolError, Response
from meshctl.walk import DIRECTORY, FILE, SYMLINK, Part, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from meshctl.interruptible_socket import InterruptibleSocket as Connection

CHUNK = 1 << 20  # bytes read and sent at once: the memory of an upload
CTRL_C_GRACE_S = 0.1
SENDER_END_S = (
    2 * CTRL_C_GRACE_S
)  # the thread ends at once when it cannot send, unless it waits for standard input
_FILES_END_S = (
    5.0  # the same where it reads files: a busy machine takes its time, a dead disk would take for ever
)

_TYPES = {
    FILE: "application/octet-stream",
    DIRECTORY: "application/x-directory",
    SYMLINK: "application/symlink",
}


class Upload:
    """The upload of one entry. `whole` is true once the last byte is handed over."""

    def __init__(self, client: Client, tree: Tree, query: Query) -> None:
        self.whole = False
        self.tree = tree
        self._connection: Connection | None = None
        self._given_up = False
        self._client = client
        self._boundary = f"meshctl-{os.urandom(16).hex()}"
        self._target = route("pins", query=query)
        self._failure: MeshctlError | None = None
        self._stopping = _thread.allocate_lock()  # held until the upload ends, however it does
        self._sending = _thread.allocate_lock()  # held by the sending thread, for as long as it runs

    @property
    def longest_end_s(self) -> float:
        """Seconds that its end may take, once it was given up: the thread that sends ends at once where it can."""
        return SENDER_END_S if self.tree.size is None else _FILES_END_S

    def give_up(self) -> None:
        """End it from another thread than that of `events`, which fails then."""
        self._given_up = True
        if self._connection is not None:
            _shut(self._connection)

    def events(self, *, interruptible: bool = True) -> Generator[Document, None, None]:
        """Send, and yield the daemon's events. Raises MeshctlError. Closes the connection however it ends.

        interruptible: a signal ends the wait for an event, for which this must be the main thread.
        """
        self._client.operation = None
        connection = connect(self._client.path)
        connection.interruptible = interruptible
        self._connection = connection
        self._stopping.acquire()
        try:
            if self._given_up:
                _shut(connection)
            self._begin_to_send(connection)
            yield from self._read(connection)
        except MeshctlError as failure:
            # Our own failure comes first: the daemon's report of a broken upload only follows from it.
            raise self._failure or failure from None
        finally:
            self._stopping.release()
            _shut(connection)
            if self._sending.acquire(timeout=self.longest_end_s):
                connection.close()
            # Else the thread waits for standard input, which nothing else reads. It ends with the program.

    def _read(self, connection: Connection) -> Generator[Document, None, None]:
        try:
            response = Response(connection)
        except (OSError, ProtocolError):
            raise lost("it closed the connection without an answer") from None
        yield from events(self._client.checked(response))

    # -- the sending thread ----------------------------------------------------------------------------------------

    def _begin_to_send(self, connection: Connection) -> None:
        self._sending.acquire()
        try:
            # Not threading.Thread, whose module takes a third of Python's own start to load.
            _thread.start_new_thread(self._send, (connection,))
        except BaseException:
            self._sending.release()
            raise

    def _send(self, connection: Connection) -> None:
        try:
            if self.tree.size is None:
                self.whole = self._send_stdin(connection)
            else:
                self.whole = self._send_tree(connection)
        except MeshctlError as failure:
            self._failure = failure
            _shut(connection)  # wakes the reader; the daemon sees a truncated body and keeps nothing
        except OSError:
            # The daemon has stopped reading. Its response, which the other thread reads, says why.
            pass
        finally:
            self._sending.release()

    def _send_tree(self, connection: Connection) -> bool:
        parts = self.tree.parts
        closing = self._closing()
        length = sum(len(self._head(part)) + part.length for part in parts) + len(closing)
        connection.sendall(self._request(f"Content-Length: {length}"))
        buffer = memoryview(bytearray(CHUNK))
        for part in parts:
            connection.sendall(self._head(part))
            if part.kind == FILE:
                self._send_file(connection, part, buffer)
            elif part.target:
                connection.sendall(part.target)
        connection.sendall(closing)
        return True

    def _send_file(self, connection: Connection, part: Part, buffer: memoryview) -> None:
        """Send exactly the announced bytes, of one state of the file. Raises MeshctlError if it changes."""
        try:
            file = os.open(part.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            why = (
                "it is not there any more"
                if isinstance(error, FileNotFoundError)
                else error.strerror or str(error)
            )
            raise _changed(part.path, why) from None
        try:
            before = os.fstat(file)
            if not stat.S_ISREG(before.st_mode) or before.st_size != part.size:
                raise _changed(part.path, "it is not what it was a moment ago")
            left = part.size
            while left:
                try:
                    got = os.readv(file, [buffer[: min(left, CHUNK)]])
                except OSError as error:
                    raise _unreadable(part.path, error) from None
                if not got:
                    raise _changed(part.path, "it became shorter while it was read")
                connection.sendall(buffer[:got])
                left -= got
            after = os.fstat(file)
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise _changed(part.path, "it was written to while it was read")
            if os.readv(file, [buffer[:1]]):  # files of /proc have size 0 and are not empty
                raise MeshctlError(
                    f"cannot pin {safe(part.path)}",
                    "it has more in it than its size says; nothing of this upload is pinned",
                    f"cat {hints.path(part.path)} | meshctl pin - --name NAME",
                )
        finally:
            os.close(file)

    def _send_stdin(self, connection: Connection) -> bool:
        connection.sendall(self._request("Transfer-Encoding: chunked"))
        _send_chunk(connection, self._head(self.tree.parts[0]))
        buffer = memoryview(bytearray(CHUNK))
        while True:
            try:
                got = os.readv(0, [buffer])
            except OSError as error:
                raise _unreadable("standard input", error) from None
            if not got:
                break
            _send_chunk(connection, buffer[:got])
        # Ctrl-C in `program | meshctl pin -` ends the program too, and its end looks like that of its output. What it
        # had written so far must not be pinned as if it were all, so the other thread is given time to hear of it.
        if self._stopping.acquire(timeout=CTRL_C_GRACE_S):
            return False
        _send_chunk(connection, self._closing())
        connection.sendall(b"0\r\n\r\n")
        return True

    # -- the form --------------------------------------------------------------------------------------------------

    def _request(self, framing: str) -> bytes:
        lines = [
            f"POST {self._target} HTTP/1.1",
            "Host: meshd",
            "Accept: application/x-ndjson",
            f"Content-Type: multipart/form-data; boundary={self._boundary}",
            framing,
            "Connection: close",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def _head(self, part: Part) -> bytes:
        """A part's delimiter and headers. Each part but the first begins with the CRLF that ends the one before."""
        lines = [
            f"--{self._boundary}",
            f'Content-Disposition: form-data; name="file"; filename="{quote(part.where)}"',
            f"Content-Type: {_TYPES[part.kind]}",
        ]
        start = "" if part is self.tree.parts[0] else "\r\n"
        return (start + "\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def _closing(self) -> bytes:
        return f"\r\n--{self._boundary}--\r\n".encode("ascii")


def _send_chunk(connection: Connection, data: bytes | memoryview) -> None:
    connection.sendall(b"%x\r\n" % len(data))
    connection.sendall(data)
    connection.sendall(b"\r\n")


def _shut(connection: Connection) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the daemon has closed it first


def _changed(path: str, how: str) -> MeshctlError:
    detail = f"{safe(how)}; nothing of this upload is pinned"
    return MeshctlError(f"cannot pin {safe(path)}", detail, "the same again, when nobody writes to it")


def _unreadable(path: str, error: OSError) -> MeshctlError:
    detail = f"{error.strerror or error}; nothing of this upload is pinned"
    return MeshctlError(f"cannot read {safe(path)}", detail, "the same again, when it can be read")
