"""What people and programs see of a node: status, peers, watch, logs, health, metrics."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import ENGINES, METRICS_PORT, Mesh
from tests.mesh.pairing import tcp_request, until

pytestmark = pytest.mark.mesh


def test_status_names_the_node_the_mesh_and_what_runs(mesh: Mesh) -> None:
    out = mesh[1].do("status").out
    for word in ("barn", "archive", mesh[1].address, "kubo", "cluster", "ready"):
        assert word in out
    document = mesh[1].do("status", "--json").document()
    assert document["ready"] is True
    assert document["mesh"]["members"] == 3
    assert {s["name"]: s["phase"] for s in document["services"]} == {"kubo": "ready", "cluster": "ready"}


def test_a_healthy_mesh_has_nothing_to_complain_about(mesh: Mesh) -> None:
    for node in mesh:
        node.do("status")  # who joined is told until it was read
        until(
            lambda node=node: not {c["severity"] for c in node.conditions().values()} - {"info"},
            f"{node} has neither error nor warning",
        )


def test_peers_are_listed_with_address_and_room(mesh: Mesh) -> None:
    peers = mesh[2].do("peers", "--json").document()["peers"]
    by_name = {p["name"]: p for p in peers}
    assert set(by_name) == {"attic", "barn", "cellar"}
    assert by_name["cellar"]["this_node"] is True
    for node in mesh:
        assert by_name[node.name]["address"] == node.address
        assert by_name[node.name]["reachable"] is True
        assert by_name[node.name]["free"] > 0


def test_logs_show_what_a_service_printed(mesh: Mesh) -> None:
    assert "Daemon is ready" in mesh[0].do("logs", "kubo", "-n", "500").out
    assert mesh[0].do("logs", "kubo", "-n", "3").out.count("\n") == 3
    assert mesh[0].meshctl("logs", "cluster").code == 0
    assert mesh[0].meshctl("logs", "nothing").code in {2, 4}


def test_watch_shows_a_condition_as_it_comes_and_as_it_goes(make_node: MakeNode) -> None:
    node = make_node("attic").start()
    node.do("init")
    watching = node.popen("watch", "--json")
    assert watching.stdout is not None
    assert watching.stderr is not None
    try:
        first = json.loads(watching.stdout.readline())
        assert first["event"] == "step"
        secret = node.state / "secrets" / "cluster.secret"
        secret.chmod(0o644)
        raised = json.loads(watching.stdout.readline())
        assert (raised["event"], raised["code"]) == ("condition-raised", "secret-readable")
        assert "chmod 600" in raised["hint"]
        secret.chmod(0o600)
        cleared = json.loads(watching.stdout.readline())
        assert (cleared["event"], cleared["code"]) == ("condition-cleared", "secret-readable")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
    finally:
        watching.kill()
        watching.wait(20)
        watching.stdout.close()
        watching.stderr.close()


@pytest.mark.parametrize(
    ("path", "word"), [("/healthz", "alive"), ("/readyz", "ready"), ("/metrics", "meshd_ready 1.0")]
)
def test_health_and_metrics_answer_on_the_socket_and_on_the_loopback_port(
    mesh: Mesh, path: str, word: str
) -> None:
    assert word in mesh[0].api("GET", path).text
    reply = tcp_request(mesh[0].metrics_address, METRICS_PORT, path)
    assert reply.status == 200
    assert word in reply.text


def test_metrics_name_services_and_peers(mesh: Mesh) -> None:
    text = tcp_request(mesh[0].metrics_address, METRICS_PORT, "/metrics").text
    for line in (
        'meshd_service_up{service="kubo"} 1.0',
        'meshd_service_up{service="cluster"} 1.0',
        'meshd_peer_reachable{peer="barn"} 1.0',
        'meshd_peer_reachable{peer="cellar"} 1.0',
    ):
        assert line in text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example:4011"}, {"Host": "192.0.2.7"}]
)
def test_the_metrics_port_does_not_answer_web_pages(mesh: Mesh, path: str, headers: dict[str, str]) -> None:
    assert tcp_request(mesh[0].metrics_address, METRICS_PORT, path, headers).status == 403


def test_the_metrics_port_has_nothing_that_changes_or_tells_more(mesh: Mesh) -> None:
    for path in ("/v1/status", "/v1/pins", "/v1/peers", "/"):
        assert tcp_request(mesh[0].metrics_address, METRICS_PORT, path).status == 404


def test_a_node_that_is_in_no_mesh_says_that_it_is_not_ready_and_what_to_type(make_node: MakeNode) -> None:
    node = make_node("attic").start()
    reply = node.api("GET", "/readyz")
    assert reply.status == 503
    assert "no mesh" in reply.text
    assert node.api("GET", "/healthz").status == 200
    answer = node.meshctl("pin", node.config)
    assert answer.code == 1
    assert "meshctl init" in answer.err
    assert "meshctl init" in node.do("status").out


def test_what_the_engines_start_may_not_control_the_daemon(make_node: MakeNode, tmp_path: Path) -> None:
    """An engine that was taken over: what it forks is in its process group, and knows where the socket is."""
    engines = tmp_path / "engines"
    engines.mkdir()
    node = make_node("attic", engines=engines)
    for name in ("ipfs-cluster-service", "ipfs-cluster-ctl"):
        (engines / name).symlink_to((ENGINES / name).resolve())
    answers = tmp_path / "answers"
    spy = tmp_path / "spy.py"
    spy.write_text(
        "import socket, sys, threading\n"
        "for _ in range(600):\n"
        "    with socket.socket(socket.AF_UNIX) as s:\n"
        f"        s.connect({str(node.socket)!r})\n"
        "        s.sendall(b'GET /v1/pins HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "        line = s.recv(4096).split(b'\\r\\n')[0]\n"
        f"    with open({str(answers)!r}, 'ab') as f:\n"
        "        f.write(line + b'\\n')\n"
        "    threading.Event().wait(0.05)\n"
    )
    (engines / "ipfs").write_text(
        f'#!/bin/sh\n[ "$1" = daemon ] && /usr/bin/env python3 {spy} >/dev/null 2>&1 &\n'
        f'exec {(ENGINES / "ipfs").resolve()} "$@"\n'
    )
    (engines / "ipfs").chmod(0o755)
    node.start()
    node.do("init")
    assert node.api("GET", "/v1/pins").status == 200, "others may"
    asked_before = len(answers.read_text().splitlines()) if answers.exists() else 0
    until(
        lambda: answers.exists() and len(answers.read_text().splitlines()) > asked_before + 5, "it has asked"
    )
    said = set(answers.read_text().splitlines()[asked_before + 1 :])
    assert said == {"HTTP/1.1 403 Forbidden"}


def test_bad_input_is_refused_in_words(mesh: Mesh) -> None:
    for words, code in (
        (("pin", "x", "--replicas", "0"), 2),
        (("pin", "-"), 2),
        (("join", "rubbish"), None),
        (("nonsense",), 2),
        (("ls", "--limit", "many"), 2),
    ):
        answer = mesh[0].meshctl(*words, stdin=b"x")
        assert answer.code != 0
        assert code is None or answer.code == code, words
        assert "cannot" in answer.err
        assert "Traceback" not in answer.err
