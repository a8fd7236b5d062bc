"""Uploads that are cut off, damaged, hostile or too large: a clear answer, and nothing of them is kept."""

from __future__ import annotations

import http.client
import json
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshd.pins.storage import shown
from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import Node
from tests.mesh.pairing import random_file, until

pytestmark = pytest.mark.mesh

TIMEOUT_S = 30.0
FILE = b'Content-Disposition: form-data; name="file"; filename="%s"\r\nContent-Type: application/octet-stream\r\n\r\n'
HUGE = 10**14


@pytest.fixture(autouse=True)
def nothing_is_kept(node: Node) -> Iterator[None]:
    """Whatever was refused: kubo has the same pins as before, and the mesh the same entries."""
    pins, entries = node.pinned(), node.entries()
    yield
    until(lambda: node.pinned() == pins, "nothing more is pinned than before")
    assert node.entries() == entries


def part(name: str, content: bytes = b"some bytes") -> bytes:
    return b"--B\r\n" + FILE % name.encode() + content + b"\r\n"


END = b"--B--\r\n"


class Upload:
    """A POST of an upload, byte by byte as a test wants it."""

    def __init__(self, node: Node, query: str, *headers: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(str(node.socket))
        lines = [
            f"POST /v1/pins?{query} HTTP/1.1",
            "Host: meshd",
            "Connection: close",
            "Content-Type: multipart/form-data; boundary=B",
            *headers,
        ]
        self.socket.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())

    def send(self, data: bytes) -> bool:
        """Whether it was still taken."""
        try:
            self.socket.sendall(data)
        except ConnectionError:
            return False
        return True

    def answer(self) -> tuple[int, dict[str, Any]]:
        """The status, and the problem: in a document of its own, or as the last event of the stream."""
        with self.socket, http.client.HTTPResponse(self.socket, method="POST") as response:
            response.begin()
            documents = [json.loads(line) for line in response.read().splitlines()]
        return response.status, documents[-1].get("problem", documents[-1])

    def answered(self) -> bool:
        return bool(select.select([self.socket], [], [], 0)[0])


def whole(node: Node, query: str, body: bytes) -> dict[str, Any]:
    """What is said of a body that comes to its end."""
    upload = Upload(node, query, f"Content-Length: {len(body)}")
    upload.send(body)
    return upload.answer()[1]


@pytest.mark.parametrize(
    ("query", "body", "code", "why"),
    [
        ("name=x", part("../x") + END, "bad-name", "the name '../x' in it is no path"),
        ("name=x", part("%2Fetc%2Fpasswd") + END, "bad-name", "the name '/etc/passwd' in it is no path"),
        (
            "name=x",
            part("d%2F%1B%5B2J") + END,
            "bad-name",
            r"the name 'd/\x1b[2J' in it has characters that do not",
        ),
        ("name=x", part("a", b"1") + part("a", b"2") + END, "bad-request", "'a' is in it twice"),
        ("name=x", part("a", b"1") + part("b", b"2") + END, "bad-request", "it has 'a' and 'b' at its top"),
        ("name=x", END, "bad-request", "it has no file in it"),
        ("name=x", b"--B\r\n\r\n\r\n" + END, "bad-request", "a part of it has no file name"),
        ("name=x", b"", "upload-cut-off", "it ended before its closing boundary"),
        ("name=x", part("x"), "upload-cut-off", "it ended before its closing boundary"),
        ("name=x", b"nonsense" * 99, "bad-request", "it does not begin with the boundary"),
        ("name=x", part("x") + END + part("y") + END, "bad-request", "more follows its closing boundary"),
        ("name=x&bytes=3", part("x") + END, "upload-mismatch", "3 bytes were announced and more came"),
        ("name=x&bytes=99", part("x") + END, "upload-mismatch", "99 bytes were announced and 10 came"),
        ("name=x&files=2", part("x") + END, "upload-mismatch", "2 files were announced and 1 came"),
        (
            "name=x&directory=1",
            part("x") + END,
            "upload-mismatch",
            "a directory was announced and a file came",
        ),
    ],
)
def test_a_body_that_is_not_one_whole_file_or_directory_is_refused(
    node: Node, query: str, body: bytes, code: str, why: str
) -> None:
    problem = whole(node, query, body)
    assert (problem["code"], problem["title"]) == (code, "cannot pin that upload")
    assert problem["detail"].startswith(why)
    assert problem["detail"].endswith("; nothing of it is kept")
    assert problem["hint"].endswith("meshctl pin PATH")


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("", "cannot use '' as a name"),
        ("name=%1B%5B2J", r"cannot use '\x1b[2J' as a name"),
        ("name=a%2Fb", "cannot use 'a/b' as a name"),
        ("name=meshd:adding:1", "cannot use 'meshd:adding:1' as a name"),
        ("name=caf%E9", "cannot understand the request"),
        ("name=x&files=many", "cannot understand 'files' of the request"),
        ("name=x&replicas=0", "cannot make '0' copies"),
        ("name=x&replcas=2", "cannot understand 'replcas' of the request"),
        ("name=x&name=y", "cannot understand 'name' of the request"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_before_its_body_is_read(
    node: Node, query: str, title: str
) -> None:
    status, problem = Upload(node, query, "Content-Length: 1000").answer()
    assert (status, problem["title"]) == (400, title)
    assert problem["hint"]


@pytest.mark.parametrize("query", [f"name=x&files=1&bytes={HUGE}", "name=x&files=1"])
def test_more_than_the_disk_holds_is_refused_before_a_byte_of_it_is_sent(node: Node, query: str) -> None:
    """By what was announced, and where that was left out by the request's own length."""
    status, problem = Upload(node, query, f"Content-Length: {HUGE}").answer()
    assert (status, problem["code"]) == (507, "disk-floor")
    assert f"it is {shown(HUGE)}, and the disk has " in problem["detail"]
    assert "meshctl trash" in problem["hint"]


def test_more_than_was_announced_is_cut_off_long_before_its_end(node: Node) -> None:
    upload = Upload(node, "name=lie&files=1&bytes=1000", "Transfer-Encoding: chunked")
    upload.send(b"%x\r\n%s\r\n" % (len(FILE % b"x") + 5, b"--B\r\n" + FILE % b"x"))
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    taken = 0
    while taken < 1000 and not upload.answered() and upload.send(chunk):
        taken += 1
    _, problem = upload.answer()
    assert taken < 1000, "it was all taken"
    assert problem["code"] == "upload-mismatch"
    assert problem["detail"].startswith("1000 bytes were announced and more came")


def test_a_disk_that_fills_while_it_comes_ends_it_with_the_reason(make_node: MakeNode) -> None:
    """The length is not announced, so only the floor can end it: here it is where the disk already is."""
    full = make_node(replicas=1, reserve="1000TB")
    full.start().do("init")
    full.wait_ready()
    before = full.pinned()
    refused = full.meshctl("pin", "-", "--name", "dump", stdin=bytes(1024 * 1024))
    assert refused.code == 1
    assert refused.err.startswith("meshctl: cannot store that on this node: the disk has ")
    assert "  try: free some space (meshctl trash shows" in refused.err
    assert full.pinned() == before


def test_a_client_that_is_killed_in_the_midst_leaves_nothing(node: Node, tmp_path: Path) -> None:
    file = random_file(tmp_path / "big", 512 * 1024 * 1024)
    with node.popen("pin", file, "--json") as process:
        assert process.stdout is not None
        assert b"progress" in process.stdout.readline(), "the upload is under way"
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == -signal.SIGKILL


def test_a_connection_that_ends_in_the_midst_leaves_nothing(node: Node) -> None:
    for length in (100, 100_000, 10_000_000):
        upload = Upload(node, f"name=cut&files=1&bytes={length}", f"Content-Length: {length + 200}")
        upload.send(part("cut", bytes(length // 2)))
        upload.socket.close()
