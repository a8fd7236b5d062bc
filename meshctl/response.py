"""An HTTP/1.1 response, read from a socket: its head and its body, both bounded, and nothing guessed.

http.client does this and more; to import it takes three times as long as Python's whole start.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, Self

    class Connection(Protocol):
        """What a response is read from: a socket."""

        def recv(self, bufsize: int, /) -> bytes: ...
        def close(self) -> None: ...


HEAD_LIMIT = 1 << 16  # bytes of a status line and all headers, and of all trailers
SIZE_LINE_LIMIT = 1 << 12  # bytes of a chunk's size and its extensions
BODY_LIMIT = 1 << 29  # bytes of a document or an event; content is read in pieces, without a limit
_BLOCK = 1 << 16
_HEX = frozenset("0123456789abcdefABCDEF")
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")  # of a header's name, in lower case


class ProtocolError(Exception):
    """What came is no HTTP/1.1 response."""


class CutOffError(ProtocolError):
    """The connection ended before the response did."""


class Response:
    """A response whose head was read. Use as a context manager, or close it: it holds the connection.

    It raises ProtocolError, and what the connection raises.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._raw = b""  # as it came
        self._body = b""  # taken out of its framing, and not handed over yet
        self._whole_pieces = False
        head = self._lines(HEAD_LIMIT)
        self.status, self.reason = _status(head[0] if head else "")
        self._headers = _fields(head[1:])
        self._chunked, self._left = _framing(self.status, self._headers)
        self._over = self._left == 0
        self._whole_pieces = not self._chunked

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, whatever was read of the body."""
        self._connection.close()

    def header(self, name: str) -> str | None:
        """The value of a header; of one that came several times, joined by commas."""
        return self._headers.get(name.lower())

    def read(self, limit: int = BODY_LIMIT) -> bytes:
        """All that is left of the body."""
        return self._until(None, limit)

    def readline(self, limit: int = BODY_LIMIT) -> bytes:
        """The body's next line, with its line feed; without one at the end of the body."""
        return self._until(b"\n", limit)

    def read1(self, limit: int) -> bytes:
        """What comes next of the body, at most `limit` bytes; b"" at its end."""
        data = self._body or self._piece(limit)
        data, self._body = data[:limit], data[limit:]
        return data

    def _until(self, mark: bytes | None, limit: int) -> bytes:
        found: list[bytes] = []
        size = 0
        while data := self.read1(_BLOCK):
            end = data.find(mark) + 1 if mark else 0
            if end:
                data, self._body = data[:end], data[end:] + self._body
            found.append(data)
            size += len(data)
            if size > limit:
                raise ProtocolError(f"more than {limit} bytes in one piece")
            if end:
                break
        return b"".join(found)

    # -- the framing -----------------------------------------------------------------------------------------------

    def _piece(self, limit: int) -> bytes:
        """The next bytes of the body as they are there, at least one; b"" at its end."""
        if self._over:
            return b""
        if self._chunked and not self._left:
            self._left = self._chunk_size()
            if self._left == 0:
                self._lines(HEAD_LIMIT)  # trailers, of which none means anything here
                self._over = True
                return b""
        if not self._raw and not self._receive(limit):
            if self._left is None:  # its end is that of the connection
                self._over = True
                return b""
            raise CutOffError(f"{self._left} bytes are missing")
        data = self._raw if self._left is None else self._raw[: self._left]
        self._raw = self._raw[len(data) :]
        if self._left is not None:
            self._left -= len(data)
            if self._left == 0 and self._chunked:
                self._line(2)  # CR LF, and nothing before it: else the chunk is longer than it says
            self._over = self._left == 0 and not self._chunked
        return data

    def _receive(self, limit: int = 0) -> bool:
        """Take in what comes next; False where nothing comes any more."""
        whole = limit if self._whole_pieces else 0  # what is in chunks is copied once more for each
        data = self._connection.recv(max(_BLOCK, whole))
        self._raw += data
        return bool(data)

    def _chunk_size(self) -> int:
        digits, _, _ = self._line(SIZE_LINE_LIMIT).partition(";")
        digits = digits.rstrip(" \t")
        if not digits or not _HEX.issuperset(digits):
            raise ProtocolError("a chunk has no size")
        return int(digits, 16)

    def _lines(self, limit: int) -> list[str]:
        """Lines up to an empty one, of so many bytes together."""
        found = []
        while line := self._line(limit):
            limit -= len(line) + 2
            found.append(line)
        return found

    def _line(self, limit: int) -> str:
        """A line of so many bytes at most, with its CR LF, which is not returned."""
        while (end := self._raw.find(b"\r\n", 0, limit)) < 0:
            if len(self._raw) >= limit:
                raise ProtocolError("a line of its head is too long")
            if not self._receive():
                raise CutOffError("it ended in its head")
        line, self._raw = self._raw[:end], self._raw[end + 2 :]
        if b"\n" in line or b"\r" in line or b"\0" in line:
            raise ProtocolError("a line of its head has a control character in it")
        return line.decode("latin-1")


def _status(line: str) -> tuple[int, str]:
    version, _, rest = line.partition(" ")
    number, _, reason = rest.partition(" ")
    if version not in {"HTTP/1.1", "HTTP/1.0"}:
        raise ProtocolError("it does not begin as HTTP/1.1 does")
    if len(number) != 3 or not number.isascii() or not number.isdigit() or not 200 <= int(number) <= 599:
        raise ProtocolError("it has no status that ends a request")
    return int(number), reason


def _fields(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or not _TOKEN.issuperset(name):
            raise ProtocolError("a header is none")
        value = value.strip(" \t")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _framing(status: int, headers: dict[str, str]) -> tuple[bool, int | None]:
    """Whether the body comes in chunks, and how long it is where that is known."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None and length is not None:
        raise ProtocolError("two headers tell how long it is")
    if status in {204, 304}:
        return False, 0
    if coding is not None:
        if coding.lower() != "chunked":
            raise ProtocolError("its transfer coding is not known")
        return True, None
    if length is None:
        return False, None
    if not 0 < len(length) <= 18 or not length.isascii() or not length.isdigit():
        raise ProtocolError("its length is no number")
    return False, int(length)
