"""Requests that a script gets wrong, on the Unix socket and on the metrics port: a clear answer, and nothing is changed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mesh.nodes import METRICS_PORT, REPOSITORY, Node, run
from tests.mesh.pairing import Reply, tcp_request, unix_request

pytestmark = pytest.mark.mesh

NOBODY = "65534"
CID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


def ask(
    node: Node, method: str, target: str, body: bytes | None = None, kind: str = "application/json"
) -> Reply:
    return unix_request(node.socket, method, target, body, headers={"Content-Type": kind})


def refused(reply: Reply) -> dict[str, Any]:
    """The problem; it begins with what cannot be done, tells why, and ends with what to type or where to look."""
    assert reply.headers["content-type"].startswith("application/problem+json")
    assert reply.headers["meshd-version"]
    problem: dict[str, Any] = reply.json()
    assert problem["status"] == reply.status
    assert problem["title"].startswith("cannot ")
    assert problem["detail"]
    assert problem["hint"]
    assert problem["title"].isprintable(), problem
    assert problem["detail"].isprintable(), problem
    return problem


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{nope", "body: Invalid JSON"),
        (b"[1]", "body: Input should be an object"),
        (b"[" * 100_000, "body: Invalid JSON"),
        (b'{"name": "\xff"}', "body: Invalid JSON"),
        (b'{"name": 5}', "name: Input should be a valid string"),
        (b'{"name": "x", "color": "red"}', "color: Extra inputs are not permitted"),
        (b'{"\\u001b[2J\\u202e": 1}', r"\x1b[2J\u202e: Extra inputs are not permitted"),
    ],
)
def test_a_body_that_is_not_what_the_route_takes_is_refused(node: Node, body: bytes, why: str) -> None:
    before = node.status()["mesh"]
    for kind in ("application/json", "text/plain"):
        reply = ask(node, "POST", "/v1/mesh", body, kind)
        problem = refused(reply)
        assert (reply.status, problem["title"]) == (400, "cannot understand the request")
        assert problem["detail"].startswith(why)
        assert problem["hint"] == "see /v1/openapi.json"
    assert node.status()["mesh"] == before


def test_a_form_where_json_is_wanted_is_refused(node: Node) -> None:
    problem = refused(ask(node, "POST", "/v1/mesh", b"name=x", "application/x-www-form-urlencoded"))
    assert problem["detail"].startswith("body: Invalid JSON")


def test_json_where_a_form_is_wanted_is_refused(node: Node) -> None:
    problem = refused(ask(node, "POST", "/v1/pins?name=x", b'{"path": "/etc/passwd"}'))
    assert problem["detail"] == "its Content-Type is not multipart/form-data"
    assert not node.entries("x")


def test_a_body_without_end_is_not_read_to_its_end(node: Node) -> None:
    problem = refused(ask(node, "POST", "/v1/mesh", json.dumps({"name": "x" * 2_000_000}).encode()))
    assert problem["title"] == "cannot take that request"


@pytest.mark.parametrize(
    ("method", "target", "status", "title"),
    [
        ("GET", "/v1/nothing", 404, "cannot find GET /v1/nothing"),
        ("GET", "/v1/%1B%5B2J", 404, r"cannot find GET /v1/\x1b[2J"),
        ("GET", "/", 404, "cannot find GET /"),
        ("PATCH", "/v1/status", 400, "cannot PATCH /v1/status"),
        ("DELETE", "/v1/pins", 400, "cannot DELETE /v1/pins"),
        ("GET", "/v1/pins?limit=abc", 400, "cannot understand 'limit' of the request"),
        ("GET", "/v1/pins?limit=0", 400, "cannot understand 'limit' of the request"),
        ("GET", "/v1/pins?limit=-5", 400, "cannot understand 'limit' of the request"),
        ("GET", "/v1/pins?copies=%1B", 400, "cannot understand 'copies' of the request"),
        ("GET", "/v1/pins?ower=attic", 400, "cannot understand 'ower' of the request"),
        ("GET", "/v1/status?verbose=1", 400, "cannot understand 'verbose' of the request"),
        ("GET", "/v1/pins/caf%E9", 400, "cannot understand the request"),
        ("GET", "/v1/pins/nothing", 404, "cannot find nothing"),
        ("GET", "/v1/pins/a%2Fb", 404, "cannot find a/b"),
        ("GET", "/v1/pins/nothing@0", 404, "cannot find nothing@0"),
        ("GET", "/v1/pins/nothing@99", 404, "cannot find nothing@99"),
        ("GET", "/v1/pins/%40", 404, "cannot find @"),
        ("GET", f"/v1/pins/{'x' * 3000}", 404, "cannot find xxx"),
        ("GET", "/v1/logs/%1B%5B2J", 404, r"cannot find a service '\x1b[2J'"),
        ("GET", "/v1/logs/kubo?lines=abc", 400, "cannot understand 'lines' of the request"),
        ("GET", "/v1/logs/kubo?follow=maybe", 400, "cannot understand 'follow' of the request"),
        ("DELETE", "/v1/pins/nothing?now=maybe", 400, "cannot understand 'now' of the request"),
        ("DELETE", "/v1/peers/nobody?force=maybe", 400, "cannot understand 'force' of the request"),
        ("DELETE", "/v1/mesh?force=maybe", 400, "cannot understand 'force' of the request"),
        ("DELETE", "/v1/mesh?force=1&force=0", 400, "cannot understand 'force' of the request"),
    ],
)
def test_a_request_for_what_is_not_there_is_refused(
    node: Node, method: str, target: str, status: int, title: str
) -> None:
    reply = ask(node, method, target)
    assert reply.status == status
    assert refused(reply)["title"].startswith(title)
    assert node.ready(), "it is in its mesh as before"


@pytest.mark.parametrize(
    ("cid", "body", "why"),
    [
        ("notacid", b'{"name": "x"}', "that is no CID"),
        ("%1B%5B2J", b'{"name": "x"}', "that is no CID"),
        (CID, b"{}", "name: Field required"),
        (CID, b'{"name": "x", "replicas": 0}', "replicas"),
        (CID, b'{"name": "a/b"}', "it has a '/'"),
    ],
)
def test_a_cid_that_is_none_or_has_no_name_is_refused(node: Node, cid: str, body: bytes, why: str) -> None:
    before = node.pinned()
    reply = ask(node, "PUT", f"/v1/pins/{cid}", body)
    assert reply.status == 400
    assert refused(reply)["detail"].startswith(why)
    assert node.pinned() == before


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"hello\r\n\r\n",
        b"BREW /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /v1/pins/" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/mesh HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /v1/mesh HTTP/1.1\r\nHost: x\r\nContent-Length: -2\r\n\r\n{}",
        b"POST /v1/mesh HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
    ids=[
        "no HTTP",
        "method",
        "TLS",
        "huge head",
        "huge line",
        "two lengths",
        "negative length",
        "length and chunks",
    ],
)
def test_what_is_no_http_is_refused_without_a_stack_trace_anywhere(node: Node, request_bytes: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30.0)
        connection.connect(str(node.socket))
        connection.sendall(request_bytes)
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.0 400 ")
    assert b"Traceback" not in answer
    assert node.ready()
    assert "Traceback" not in node.log.read_text()


# -- who asks ----------------------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may ask as somebody else")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not installed")
def test_somebody_who_is_not_in_the_group_is_told_what_to_type(node: Node) -> None:
    node.folder.chmod(0o755)  # a test's folder is private; the daemon's own is not
    for needed in (REPOSITORY, Path(sys.executable).resolve()):
        if not all(part.stat().st_mode & 0o001 for part in (needed, *needed.parents)):
            pytest.skip(f"nobody may not use {needed.name}: a folder on the way to it is private")
    before = node.entries()
    for words in (("status",), ("ls",), ("rm", "x"), ("leave", "--yes")):
        argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
        argv += ["env", "-C", str(REPOSITORY), sys.executable, "-m", "meshctl", *words]
        answer = run(argv, timeout=60.0, MESHD_SOCKET=str(node.socket))
        assert (answer.code, answer.out) == (5, ""), answer
        assert answer.err == (
            f"meshctl: cannot talk to meshd: user id {NOBODY} is not in its group\n"
            "  try: sudo usermod -aG meshd $USER, then log in again; or: sudo meshctl ...\n"
        )
    assert node.entries() == before


# -- the metrics port --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:4011"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "10.0.0.1"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_the_metrics_port_answers_no_web_page(node: Node, headers: dict[str, str], status: int) -> None:
    for path in ("/metrics", "/healthz", "/readyz"):
        reply = tcp_request(node.metrics_address, METRICS_PORT, path, headers)
        assert reply.status == status
        if status == 403:
            assert json.loads(reply.text)["title"] == "cannot answer web pages or other hosts"


@pytest.mark.parametrize("path", ["/v1/status", "/v1/pins", "/v1/openapi.json", "/", "/metrics/../v1/status"])
def test_the_metrics_port_has_nothing_else(node: Node, path: str) -> None:
    assert tcp_request(node.metrics_address, METRICS_PORT, path).status == 404
