"""The HTTP of the client: every framing that there is, in pieces of any size, and answers that are none."""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl import response
from meshctl.response import CutOffError, ProtocolError, Response

OK = b"HTTP/1.1 200 OK\r\n"


class Wire:
    """A connection on which these bytes come, in pieces of these sizes, and then its end."""

    def __init__(self, sent: bytes, sizes: list[int] | None = None) -> None:
        self._left = sent
        self._sizes = sizes or [len(sent) or 1]
        self._turn = 0
        self.closed = False

    def recv(self, bufsize: int, /) -> bytes:
        size = min(bufsize, self._sizes[self._turn % len(self._sizes)])
        self._turn += 1
        data, self._left = self._left[:size], self._left[size:]
        return data

    def close(self) -> None:
        self.closed = True


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


FRAMED: list[Callable[[bytes], bytes]] = [
    lambda body: OK + b"Content-Length: %d\r\n\r\n" % len(body) + body,
    lambda body: OK + b"\r\n" + body,
    lambda body: OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body[:7], body[7:]),
    lambda body: (
        OK + b"transfer-encoding:Chunked\r\n\r\n" + chunked(*(body[i : i + 1] for i in range(len(body))))
    ),
]
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@settings(deadline=None)
@given(st.binary(min_size=8, max_size=40), SIZES, st.integers(1, 50), st.integers(0, 3))
def test_the_body_is_whole_in_whatever_pieces_it_comes(
    body: bytes, sizes: list[int], limit: int, framing: int
) -> None:
    sent = FRAMED[framing](body)
    assert Response(Wire(sent, sizes)).read() == body
    answer = Response(Wire(sent, sizes))
    pieces = []
    while piece := answer.read1(limit):
        assert len(piece) <= limit
        pieces.append(piece)
    assert b"".join(pieces) == body
    assert answer.read1(limit) == b""


@settings(deadline=None)
@given(st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"") + b"\n"), max_size=6), SIZES)
def test_lines_come_one_by_one_wherever_the_chunks_begin(lines: list[bytes], sizes: list[int]) -> None:
    for framed in FRAMED[0], FRAMED[1], FRAMED[3]:
        answer = Response(Wire(framed(b"".join(lines) + b"rest"), sizes))
        assert [answer.readline() for _ in lines] == lines
        assert answer.readline() == b"rest"
        assert answer.readline() == b""


@settings(deadline=None)
@given(st.integers(0, 3), st.data())
def test_what_is_cut_off_anywhere_is_never_taken_for_whole(framing: int, data: st.DataObject) -> None:
    body = b"minutes of 1974, all of them"
    sent = FRAMED[framing](body)
    cut = sent[: data.draw(st.integers(0, len(sent) - 1))]
    if framing == 1 and len(cut) >= len(sent) - len(body):
        return  # its end is that of the connection, so nothing can tell; events and JSON have their own
    with pytest.raises(CutOffError):
        Response(Wire(cut)).read()


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_to_be_refused(sent: bytes) -> None:
    for before in (
        b"",
        b"HTTP/1.1 ",
        OK,
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        OK + b"Content-Length: ",
    ):
        try:
            Response(Wire(before + sent)).read()
        except ProtocolError:
            pass


MALFORMED = {
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "another version": b"HTTP/2 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 \r\n\r\n",
    "a status of another script": "HTTP/1.1 ２００ OK\r\n\r\n".encode(),
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status that ends no request": b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"\r\n",
    "no colon": OK + b"Content-Length 5\r\n\r\nhello",
    "no name": OK + b": 5\r\n\r\nhello",
    "a space before the colon": OK + b"Content-Length : 5\r\n\r\nhello",
    "a folded header": OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a line feed alone": OK + b"X: a\nContent-Length: 0\r\n\r\n",
    "a NUL": OK + b"X: a\0\r\nContent-Length: 0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "a length with a plus": OK + b"Content-Length: +5\r\n\r\nhello",
    "an empty length": OK + b"Content-Length:\r\n\r\nhello",
    "a length of another script": OK + "Content-Length: ５\r\n\r\nhello".encode(),
    "a length beyond all": OK + b"Content-Length: " + b"9" * 19 + b"\r\n\r\nhello",
    "length and chunks": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"hello"),
    "an unknown coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked(b"hello"),
    "a chunk without a size": OK + b"Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    "a chunk's size with 0x": OK + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk's negative size": OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    "a chunk beyond all": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 16 + b"\r\nhello",
    "a chunk that is longer than it says": OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_answer_is_refused(sent: bytes) -> None:
    for sizes in ([len(sent)], [1]):
        with pytest.raises(ProtocolError):
            Response(Wire(sent, sizes)).read()


class Endless:
    """A connection on which this comes for ever."""

    def __init__(self, first: bytes, again: bytes) -> None:
        self._first, self._again = first, again
        self.taken = 0

    def recv(self, bufsize: int, /) -> bytes:
        data, self._first = self._first or self._again * (bufsize // len(self._again)), b""
        self.taken += len(data)
        return data

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"", b"x"),
        (OK, b"x"),
        (OK, b"X: a\r\n"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"x"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: a\r\n"),
    ],
)
def test_a_head_without_an_end_is_given_up(first: bytes, again: bytes) -> None:
    wire = Endless(first, again)
    with pytest.raises(ProtocolError):
        Response(wire).read()
    assert wire.taken < 4 * response.HEAD_LIMIT


def test_a_document_and_an_event_have_a_limit() -> None:
    for framed in FRAMED:
        assert Response(Wire(framed(b"x" * 1000))).read(1000) == b"x" * 1000
        with pytest.raises(ProtocolError):
            Response(Wire(framed(b"x" * 1001), [7])).read(1000)
        with pytest.raises(ProtocolError):
            Response(Wire(framed(b"x" * 1001), [7])).readline(1000)


def test_no_content_has_no_body_and_keeps_the_connection_until_it_is_closed() -> None:
    wire = Wire(b"HTTP/1.1 204 No Content\r\nMeshd-Version: 1\r\nX: a\r\nx:b \r\n\r\nmore")
    with Response(wire) as answer:
        assert (answer.status, answer.reason, answer.read()) == (204, "No Content", b"")
        assert (answer.header("meshd-version"), answer.header("X"), answer.header("Y")) == ("1", "a, b", None)
        assert not wire.closed
    assert wire.closed


@settings(deadline=None)
@given(st.binary(min_size=8, max_size=40), st.integers(0, 3))
def test_the_standard_library_reads_the_same(body: bytes, framing: int) -> None:
    sent = FRAMED[framing](body)

    class Made(socket.socket):
        def makefile(self, *_: object, **__: object) -> io.BytesIO:  # type: ignore[override]
            return io.BytesIO(sent)

    with Made() as connection:
        theirs = http.client.HTTPResponse(connection)
        theirs.begin()
        ours = Response(Wire(sent))
        assert (ours.status, ours.reason) == (theirs.status, theirs.reason)
        assert ours.read() == theirs.read()
