"""Two people may keep the same bytes, and neither can take them from the other."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.mesh.nodes import BIN, Mesh, Node, environment
from tests.mesh.pairing import random_file, sha256, until

pytestmark = pytest.mark.mesh
_BOUNDARY = "cut-here"


def test_one_of_two_owners_removes_its_own_and_the_other_keeps_the_bytes(mesh: Mesh, tmp_path: Path) -> None:
    file = random_file(tmp_path / "shared.bin", 3_000_000)
    hers = mesh[0].pin(file, "--name", "hers.bin")
    his = mesh[1].pin(file, "--name", "his.bin")
    assert hers["root"] == his["root"]
    assert hers["cid"] != his["cid"]
    mesh[0].do("rm", "hers.bin", "--now")
    for node in mesh:
        until(lambda node=node: hers["cid"] not in node.pinned(), f"{node} let hers go")
        node.collect_garbage()
    assert not mesh[2].entries("hers.bin")
    mesh[2].until_held_by("his.bin", {"attic", "barn", "cellar"})
    for node in mesh:
        back = tmp_path / f"back-{node.name}"
        node.do("get", "his.bin", "-o", back)
        assert sha256(back) == sha256(file)


class HalfUpload:
    """An upload by raw socket that sends half of what it announced."""

    def __init__(self, node: Node, content: bytes, name: str) -> None:
        head = (
            f"--{_BOUNDARY}\r\nContent-Disposition: form-data; name=file; filename={name}\r\n"
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30.0)
        self.socket.connect(str(node.socket))
        length = len(head) + len(content) + len(tail)
        self.socket.sendall(
            f"POST /v1/pins?name={name}&files=1&bytes={len(content)} HTTP/1.1\r\nHost: meshd\r\n"
            f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {length}\r\n\r\n".encode()
        )
        self.socket.sendall(head + content[: len(content) // 2])

    def close(self) -> None:
        self.socket.close()


def test_an_upload_that_is_cut_off_takes_nothing_from_what_is_kept(mesh: Mesh, tmp_path: Path) -> None:
    file = random_file(tmp_path / "kept.bin", 8 * 1024 * 1024)
    entry = mesh[0].pin(file)
    before = [node.pinned() for node in mesh]
    for _ in range(3):
        HalfUpload(mesh[0], file.read_bytes(), "cut.bin").close()
    # The next one is taken only after the cut ones were seen to, or beside them: either way nothing of them may stay.
    until(lambda: [node.pinned() for node in mesh] == before, "nothing more is pinned than before")
    for node in mesh:
        node.collect_garbage()
    assert not mesh[1].entries("cut.bin")
    assert [node.pinned() for node in mesh] == before
    mesh[2].until_held_by("kept.bin", {"attic", "barn", "cellar"})
    assert entry["cid"] in mesh[0].pinned()
    mesh[1].do("get", "kept.bin", "-o", tmp_path / "back")
    assert sha256(tmp_path / "back") == sha256(file)


@pytest.mark.parametrize(
    ("end", "what"), [("", "closing boundary"), (f"\r\n--{_BOUNDARY}--\r\n", "announced")]
)
def test_a_body_that_is_not_what_was_announced_is_refused(mesh: Mesh, end: str, what: str) -> None:
    before = mesh[0].pinned()
    body = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; name=file; filename=x\r\n\r\nsome bytes{end}".encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30.0)
    with connection:
        connection.connect(str(mesh[0].socket))
        connection.sendall(
            b"POST /v1/pins?name=x&files=1&bytes=999 HTTP/1.1\r\nHost: meshd\r\nConnection: close\r\n"
            b"Content-Type: multipart/form-data; boundary=" + _BOUNDARY.encode() + b"\r\n"
            b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert what in answer.decode()
    assert "upload-" in answer.decode()
    assert mesh[0].pinned() == before
    assert not mesh[0].entries("x")


def test_ctrl_c_during_a_pin_leaves_nothing_pinned(mesh: Mesh, tmp_path: Path) -> None:
    before = mesh[0].pinned()
    process = subprocess.Popen(
        [BIN / "meshctl", "pin", "-", "--name", "interrupted.bin", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(MESHD_SOCKET=str(mesh[0].socket)),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        block = random_file(tmp_path / "block", 1024 * 1024).read_bytes()
        fed = threading.Event()

        def feed() -> None:
            assert process.stdin is not None
            try:
                for number in range(24):
                    process.stdin.write(number.to_bytes(8, "big") + block)
                process.stdin.flush()
                fed.set()
            except OSError:
                pass  # it was interrupted, as it should be

        feeding = threading.Thread(target=feed, daemon=True)
        feeding.start()
        assert b"progress" in process.stdout.readline(), "the upload is under way"
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
        feeding.join(10)
        errors = process.stderr.read().decode() if process.stderr else ""
    finally:
        process.kill()
        process.wait(10)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass  # what was buffered has nowhere to go
    assert code == 130
    assert "nothing is pinned" in errors
    until(lambda: mesh[0].pinned() == before, "nothing more is pinned than before")
    assert not mesh[0].entries("interrupted.bin")
