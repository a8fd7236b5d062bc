"""A long list of entries on one node: what each question about it costs, and what the node costs that has it and does nothing.

The list is made up, and put into the cluster's folder while nothing runs. Its content is said to be on a node that is not there, so
nobody fetches it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from bench.ground import Row, Scale, seconds
from scripts import nodes as three
from scripts.nodes import Node, NodeError

_PAGE_S = 0.1
_CPU = 0.01
_READY_S = 600.0
_SETTLE_S = 20.0
_RUNS = 10
_REMOVALS = 5


def run(folder: Path, scale: Scale) -> list[Row]:
    """Raises NodeError."""
    count = scale.entries
    rows: list[Row] = []
    with _alone(folder) as node:
        few = _figures(node, scale.idle_s)
        three.stop([node])
        print(f"catalogue: a list of {count:,} entries is made", flush=True)
        _import(node, count)
        began = time.monotonic()
        _begin(node, count)
        first = time.monotonic() - began
        print(f"catalogue: asked, and left alone for {scale.idle_s:.0f} s", flush=True)
        many = _figures(node, scale.idle_s)
        three.stop([node])
        began = time.monotonic()
        _begin(node, count)
        again = time.monotonic() - began
    of = f"of {count:,} entries"
    for what, wanted in (("first page of ls", _PAGE_S), ("status", 0.0), ("a scrape", 0.0), ("rm", 0.0)):
        value = many[what]
        met = not wanted or value < wanted
        bound = f"< {wanted * 1000:.0f} ms" if wanted else ""
        rows.append(Row(f"{what}, {of}", seconds([value]), seconds([few[what]]), "", bound, met))
    rows.append(Row(f"from the start to the first page, {of}", seconds([again]), seconds([first]), ""))
    rows.append(Row(f"memory, {of}", f"{many['memory'] / 1e6:.1f} MB", f"{few['memory'] / 1e6:.1f} MB", ""))
    share = many["cpu"]
    rows.append(Row(f"idle, {of}", f"{share:.2%}", f"{few['cpu']:.2%}", "", "< 1 %", share < _CPU))
    return rows


def _figures(node: Node, idle_s: float) -> dict[str, float]:
    """Seconds, bytes, and the share of a core that the daemon takes while nothing happens."""
    daemon = psutil.Process(node.pid)
    time.sleep(_SETTLE_S)
    before, began = daemon.cpu_times(), time.monotonic()
    time.sleep(idle_s)
    after = daemon.cpu_times()
    busy_s = after.user + after.system - before.user - before.system
    share = busy_s / (time.monotonic() - began)
    metrics = http.client.HTTPConnection(node.address, 4011, timeout=60)
    figures = {
        "cpu": share,
        "first page of ls": _median(lambda: _call(node, "GET", "/v1/pins?limit=500")),
        "status": _median(lambda: _call(node, "GET", "/v1/status?glance=1")),
        "a scrape": _median(lambda: _answer(metrics, "GET", "/metrics")),
    }
    entries = _call(node, "GET", f"/v1/pins?limit={_REMOVALS}")["entries"]
    cids = [entry["cid"] for entry in entries]
    figures["rm"] = statistics.median(
        [_took(lambda cid=cid: _call(node, "DELETE", f"/v1/pins/{cid}?force=1")) for cid in cids] or [0.0]  # type: ignore[misc]
    )
    figures["memory"] = daemon.memory_info().rss
    return figures


def _median(call: Callable[[], object]) -> float:
    return statistics.median(_took(call) for _ in range(_RUNS))


def _took(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


# -- the node ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[Node]:
    """A mesh of one node, stopped and removed afterwards. Raises NodeError."""
    node = three.make_nodes(folder)[0]
    three.check_ports([node.address])
    try:
        three.start([node])
        three.ask(node, "init", "--name", "bench")
        yield node
    except NodeError as error:
        if error.node is not None:
            print("\n".join(error.node.last_lines()))
        raise
    finally:
        three.stop([node])
        three.remove(node.folder)


def _begin(node: Node, count: int) -> None:
    """Start it, and wait until a page of its list is there. Raises NodeError."""
    three.start([node])
    until = time.monotonic() + _READY_S
    while time.monotonic() < until:
        with contextlib.suppress(NodeError, OSError):
            if _call(node, "GET", "/v1/pins?limit=500")["total"] >= count - 2 * _REMOVALS:
                return
        time.sleep(0.05)
    raise NodeError(f"the list of {node.name} does not have {count} entries after {_READY_S:.0f} s", node)


def _call(node: Node, method: str, path: str) -> Any:
    """The answer of the control API. Raises NodeError where it is an error."""
    connection = http.client.HTTPConnection("meshd", timeout=120)
    with socket.socket(socket.AF_UNIX) as connection.sock:
        connection.sock.settimeout(120)
        connection.sock.connect(str(node.socket))
        return json.loads(_answer(connection, method, path))


def _answer(connection: http.client.HTTPConnection, method: str, path: str) -> bytes:
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status >= 400:
        raise NodeError(f"{method} {path} is answered {answer.status}: {body[:500].decode(errors='replace')}")
    return body


# -- the list ------------------------------------------------------------------------------------------------------


def _import(node: Node, count: int) -> None:
    """Put made-up entries into the cluster's folder; nothing may run there. Raises NodeError."""
    cluster = node.folder / "state" / "cluster"
    owner = _owner(node)
    path = node.folder / "list.json"
    with path.open("w") as file:
        for number in range(count):
            file.write(json.dumps(_record(number, owner)) + "\n")
    argv = [str(three.ENGINES / "ipfs-cluster-service"), "state", "import", "--force", str(path)]
    env = {"IPFS_CLUSTER_PATH": str(cluster), "HOME": str(node.folder), "PATH": os.environ["PATH"]}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=_READY_S)
    path.unlink()
    if done.returncode != 0:
        raise NodeError(f"cannot put the list into {cluster}: {done.stderr.strip()[-500:]}", node)


def _owner(node: Node) -> str:
    document = json.loads((node.folder / "state" / "mesh.json").read_text())
    return str(document["roster"][0]["fingerprint"])


def _record(number: int, owner: str) -> dict[str, Any]:
    """As `ipfs-cluster-service state export` writes it."""
    metadata = {
        "owner": owner,
        "root": _cid(f"root {number}"),
        "size": str(1000 + number),
        "files": "1",
        "time": repr(1_700_000_000.125 + number),
        "wanted": "1",
        "directory": "0",
    }
    return {
        "cid": _cid(f"entry {number}"),
        "type": "pin",
        "mode": "recursive",
        "name": f"minutes/{number % 977:03}/{number:06}.pdf",
        "allocations": [_NOBODY],
        "replication_factor_min": 1,
        "replication_factor_max": 1,
        "max_depth": -1,
        "reference": None,
        "metadata": metadata,
        "origins": [],
    }


def _cid(text: str) -> str:
    raw = b"\x01\x71\x12\x20" + hashlib.sha256(text.encode()).digest()
    return "b" + base64.b32encode(raw).decode().lower().rstrip("=")


def _peer_id(public_key: bytes) -> str:
    """Of Ed25519, as libp2p spells it."""
    letters = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number = int.from_bytes(b"\x00\x24\x08\x01\x12\x20" + public_key)
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = letters[digit] + text
    return "1" + text


_NOBODY = _peer_id(hashlib.sha256(b"nobody").digest())
