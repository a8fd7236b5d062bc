"""kubo and ipfs-cluster as the room `pins` sees them: real HTTP servers on real Unix sockets, with nothing behind them.

What they answer is what the real ones answer: test_fakes.py asks both the same. What a real one does only over hours, or
only in a mesh of many, a test does by hand: `pins`, `blocks`, `elsewhere` and `records` are there to be changed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

Hook = Callable[[], Awaitable[None]]


async def _nothing() -> None:
    """No hook."""


def cid_of(content: bytes) -> str:
    """A CID in its usual spelling, as kubo gives dag-cbor."""
    raw = b"\x01\x71\x12\x20" + hashlib.sha256(content).digest()
    return "b" + base64.b32encode(raw).decode().lower().rstrip("=")


class _Server:
    """asked: the commands that came, in their order. fails: command -> what it is answered with, as an error.
    away: the commands whose connection is closed without an answer."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.asked: list[str] = []
        self.fails: dict[str, str] = {}
        self.away: set[str] = set()
        self.began: dict[str, asyncio.Event] = {}
        self._holds: dict[str, asyncio.Event] = {}
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def stop(self) -> None:
        for event in self._holds.values():
            event.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.socket.unlink(missing_ok=True)

    def hold(self, command: str) -> asyncio.Event:
        """Answer `command` only once the returned event is set; `began[command]` is set when it was asked."""
        self.began[command] = asyncio.Event()
        self._holds[command] = asyncio.Event()
        return self._holds[command]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        command = self.command(request)
        self.asked.append(command)
        if command in self.away:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if command in self._holds:
            self.began[command].set()
            await self._holds[command].wait()
        if command in self.fails:
            return self.error(self.fails[command])
        return await self.answer(command, request)

    def command(self, request: web.Request) -> str:
        """What `asked`, `fails`, `away` and `hold` call it."""
        raise NotImplementedError

    def error(self, message: str) -> web.Response:
        raise NotImplementedError

    async def answer(self, command: str, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError


class FakeKubo(_Server):
    """blocks: what is here, CID -> dag-json. elsewhere: what other nodes have. pins: CID -> name.

    forgets: CIDs of which it says that it pinned them, and has no pin. settings: its config. peers: to whom it is
    connected, peer id -> multiaddr. A command is called `pin/add`.
    """

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.blocks: dict[str, Any] = {}
        self.elsewhere: dict[str, Any] = {}
        self.pins: dict[str, str] = {}
        self.forgets: set[str] = set()
        self.settings: dict[str, Any] = {"Addresses": {"Gateway": []}}
        self.peers: dict[str, str] = {}

    def command(self, request: web.Request) -> str:
        return request.path.removeprefix("/api/v0/")

    def error(self, message: str) -> web.Response:
        return _error(message)

    def put(self, document: dict[str, Any]) -> str:
        """Have that node, not pinned."""
        cid = cid_of(json.dumps(document, sort_keys=True).encode())
        self.blocks[cid] = document
        return cid

    async def answer(self, command: str, request: web.Request) -> web.StreamResponse:
        commands: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            "pin/add": self._pin_add,
            "pin/rm": self._pin_rm,
            "pin/ls": self._pin_ls,
            "block/stat": self._block_stat,
            "dag/get": self._dag_get,
            "dag/put": self._dag_put,
            "files/stat": self._files_stat,
            "repo/gc": self._gc,
            "repo/stat": self._repo_stat,
            "config/show": self._config,
            "swarm/peers": self._peers,
        }
        if command not in commands:
            return web.Response(status=404, text="404 page not found")
        return await commands[command](request)

    def _fetch(self, cid: str, *, offline: bool = False) -> bool:
        if cid not in self.blocks and not offline and cid in self.elsewhere:
            self.blocks[cid] = self.elsewhere[cid]
        return cid in self.blocks

    def _root(self, cid: str) -> str:
        """The content that an entry links to, "" where it is none."""
        node = self.blocks.get(cid)
        root = node.get("root") if isinstance(node, dict) else None
        return str(root["/"]) if isinstance(root, dict) else ""

    async def _pin_add(self, request: web.Request) -> web.StreamResponse:
        cid = request.query["arg"]
        if not self._fetch(cid):
            return _error("context deadline exceeded")
        self._fetch(self._root(cid))
        if cid not in self.forgets:
            self.pins[cid] = request.query.get("name", "")
        lines = [{"Progress": 1}] if request.query.get("progress") == "true" else []
        return _lines([*lines, {"Pins": [cid]}])

    async def _pin_rm(self, request: web.Request) -> web.StreamResponse:
        cid = request.query["arg"]
        if self.pins.pop(cid, None) is None:
            return _error("not pinned or pinned indirectly")
        return web.json_response({"Pins": [cid]})

    async def _pin_ls(self, request: web.Request) -> web.StreamResponse:
        asked = request.query.getall("arg", [])
        for cid in asked:
            if cid not in self.pins:
                return _error(f"path '{cid}' is not pinned")
        if asked:
            return web.json_response({"Keys": {cid: {"Type": "recursive"} for cid in asked}})
        return _lines([{"Cid": c, "Type": "recursive", "Name": name} for c, name in self.pins.items()])

    async def _block_stat(self, request: web.Request) -> web.StreamResponse:
        cid = request.query["arg"]
        if not self._fetch(cid, offline=request.query.get("offline") == "true"):
            return _not_here(cid)
        return web.json_response({"Key": cid, "Size": 1})

    async def _dag_get(self, request: web.Request) -> web.StreamResponse:
        cid = request.query["arg"]
        if not self._fetch(cid, offline=request.query.get("offline") == "true"):
            return _not_here(cid)
        return web.json_response(self.blocks[cid])

    async def _dag_put(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        return web.json_response({"Cid": {"/": self.put(json.loads(file.file.read()))}})

    async def _files_stat(self, request: web.Request) -> web.StreamResponse:
        cid = request.query["arg"].removeprefix("/ipfs/")
        if not self._fetch(cid):
            return _error("context deadline exceeded")
        return web.json_response({"Hash": cid, "Size": 50, "CumulativeSize": 58, "Type": "file", "Mode": "0"})

    async def _gc(self, _: web.Request) -> web.StreamResponse:
        reached = {each for cid in self.pins for each in (cid, self._root(cid))}
        gone = [cid for cid in self.blocks if cid not in reached]
        for cid in gone:
            del self.blocks[cid]
        return _lines([{"Key": {"/": cid}} for cid in gone])

    async def _config(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self.settings)

    async def _peers(self, _: web.Request) -> web.StreamResponse:
        found = [{"Addr": where, "Peer": peer} for peer, where in self.peers.items()]
        return web.json_response({"Peers": found or None})

    async def _repo_stat(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"RepoSize": 1000, "NumObjects": len(self.blocks)})


class FakeCluster(_Server):
    """records: the pinset, CID -> the cluster's own document of it. with_room: who can be allocated to.

    commits: whether what it takes gets into the pinset. refuses: what each pin is answered with, as an error.
    fails_for: CIDs about which nothing can be asked. posted: the CIDs it was told to pin, each time.
    pinned: called with each new record. listed: called once, after the pinset was read by somebody, who then goes on with
    what is old. A command is called `GET allocations`, or `GET allocations/one` where it is about one CID.
    """

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.records: dict[str, dict[str, Any]] = {}
        self.with_room: set[str] = set()
        self.commits = True
        self.refuses = ""
        self.fails_for: set[str] = set()
        self.posted: list[str] = []
        self.pinned: Callable[[dict[str, Any]], None] = lambda record: None
        self.listed: Hook = _nothing

    def command(self, request: web.Request) -> str:
        kind, _, rest = request.path.removeprefix("/").partition("/")
        return f"{request.method} {kind}/one" if rest and kind != "monitor" else f"{request.method} {kind}"

    def error(self, message: str) -> web.Response:
        return web.json_response({"code": 500, "message": message}, status=500)

    async def answer(self, command: str, request: web.Request) -> web.StreamResponse:
        cid = request.path.rpartition("/")[2]
        if cid in self.fails_for:
            return self.error("it fails")
        if command == "GET allocations":
            return await self._allocations()
        if command == "GET allocations/one":
            return web.json_response(self.records[cid]) if cid in self.records else _no_record()
        if command == "POST pins/one":
            return self._pin(cid, request.query)
        if command == "DELETE pins/one":
            return self._unpin(cid)
        if command == "GET version":
            return web.json_response({"version": "1.1.6"})
        if command == "GET monitor":
            return web.json_response([{"peer": peer, "valid": True} for peer in sorted(self.with_room)])
        return _no_record()

    async def _allocations(self) -> web.Response:
        answer = _lines(list(self.records.values())) if self.records else web.Response(status=204)
        hook, self.listed = self.listed, _nothing
        await hook()
        return answer

    def _pin(self, cid: str, asked: Mapping[str, str]) -> web.Response:
        self.posted.append(cid)
        record = record_of(cid, asked)
        if self.refuses or not self.with_room.issuperset(record["allocations"]):
            return self.error(self.refuses or "not enough peers to allocate CID")
        if self.commits:
            self.records[cid] = record
            self.pinned(record)
        return web.json_response(record)

    def _unpin(self, cid: str) -> web.Response:
        record = self.records.get(cid)
        if record is None:
            return _no_record()
        if self.commits:
            del self.records[cid]
        return web.json_response(record)


def record_of(cid: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """The record that a POST of these parameters leaves."""
    return {
        "cid": cid,
        "name": asked.get("name", ""),
        "allocations": [a for a in asked.get("user-allocations", "").split(",") if a],
        "replication_factor_max": int(asked.get("replication-max", "-1")),
        "metadata": {k.removeprefix("meta-"): v for k, v in asked.items() if k.startswith("meta-")},
    }


def _no_record() -> web.Response:
    return web.json_response({"code": 404, "message": "not found"}, status=404)


def _lines(documents: list[dict[str, Any]]) -> web.Response:
    return web.Response(
        text="".join(json.dumps(d) + "\n" for d in documents), content_type="application/json"
    )


def _error(message: str) -> web.Response:
    return web.json_response({"Message": message, "Code": 0, "Type": "error"}, status=500)


def _not_here(cid: str) -> web.Response:
    return _error(f"block was not found locally (offline): ipld: could not find {cid}")
