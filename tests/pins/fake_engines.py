"""kubo and ipfs-cluster as the room `pins` sees them: real HTTP servers on real Unix sockets, with nothing behind them.

What they answer is what the real ones answer: test_fakes.py asks both the same. What a real one does only over hours, or
only in a mesh of many, a test does by hand: `pins`, `blocks`, `elsewhere` and `records` are there to be changed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Awaitable, Callable
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
    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._runner: web.AppRunner | None = None

    def _app(self) -> web.Application:
        raise NotImplementedError

    async def start(self) -> None:
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.socket.unlink(missing_ok=True)


class FakeKubo(_Server):
    """blocks: what is here, CID -> dag-json. elsewhere: what other nodes have. pins: CID -> name.

    asked: the commands that came. fails: command -> what it is answered with, as an error. settings: its config.
    peers: to whom it is connected, peer id -> multiaddr.
    """

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.blocks: dict[str, Any] = {}
        self.elsewhere: dict[str, Any] = {}
        self.pins: dict[str, str] = {}
        self.asked: list[str] = []
        self.fails: dict[str, str] = {}
        self.settings: dict[str, Any] = {"Addresses": {"Gateway": []}}
        self.peers: dict[str, str] = {}

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/api/v0/{command:.*}", self._answer)
        return app

    def put(self, document: dict[str, Any]) -> str:
        """Have that node, not pinned."""
        cid = cid_of(json.dumps(document, sort_keys=True).encode())
        self.blocks[cid] = document
        return cid

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        command = request.match_info["command"]
        self.asked.append(command)
        if command in self.fails:
            return _error(self.fails[command])
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

    async def _pin_add(self, request: web.Request) -> web.StreamResponse:
        cid = request.query["arg"]
        if not self._fetch(cid):
            return _error("context deadline exceeded")
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
        reached = set(self.pins)
        for cid in self.pins:
            node = self.blocks.get(cid)
            root = node.get("root") if isinstance(node, dict) else None
            reached |= {root["/"]} if isinstance(root, dict) else set()
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
    posted: the CIDs it was told to pin, each time. pinned: called with each new record. listed: called once, after the
    pinset was read by somebody, who then goes on with what is old.
    """

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.records: dict[str, dict[str, Any]] = {}
        self.with_room: set[str] = set()
        self.commits = True
        self.refuses = ""
        self.posted: list[str] = []
        self.pinned: Callable[[dict[str, Any]], None] = lambda record: None
        self.listed: Hook = _nothing

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/allocations", self._allocations)
        app.router.add_get("/allocations/{cid}", self._allocation)
        app.router.add_post("/pins/{cid}", self._pin)
        app.router.add_delete("/pins/{cid}", self._unpin)
        app.router.add_get("/monitor/metrics/freespace", self._free)
        return app

    async def _allocations(self, _: web.Request) -> web.StreamResponse:
        answer = _lines(list(self.records.values())) if self.records else web.Response(status=204)
        hook, self.listed = self.listed, _nothing
        await hook()
        return answer

    async def _allocation(self, request: web.Request) -> web.StreamResponse:
        record = self.records.get(request.match_info["cid"])
        if record is None:
            return web.json_response({"code": 404, "message": "not found"}, status=404)
        return web.json_response(record)

    async def _pin(self, request: web.Request) -> web.StreamResponse:
        cid, query = request.match_info["cid"], request.query
        self.posted.append(cid)
        allocations = [a for a in query.get("user-allocations", "").split(",") if a]
        if self.refuses or not self.with_room.issuperset(allocations):
            text = self.refuses or "not enough peers to allocate CID"
            return web.json_response({"code": 500, "message": text}, status=500)
        record = {
            "cid": cid,
            "name": query.get("name", ""),
            "allocations": allocations,
            "replication_factor_max": int(query.get("replication-max", "-1")),
            "metadata": {
                key.removeprefix("meta-"): value for key, value in query.items() if key.startswith("meta-")
            },
        }
        if self.commits:
            self.records[cid] = record
            self.pinned(record)
        return web.json_response(record)

    async def _unpin(self, request: web.Request) -> web.StreamResponse:
        cid = request.match_info["cid"]
        record = self.records.get(cid)
        if record is None:
            return web.json_response({"code": 404, "message": "not found"}, status=404)
        if self.commits:
            del self.records[cid]
        return web.json_response(record)

    async def _free(self, _: web.Request) -> web.StreamResponse:
        return web.json_response([{"peer": peer, "valid": True} for peer in sorted(self.with_room)])


def _lines(documents: list[dict[str, Any]]) -> web.Response:
    return web.Response(
        text="".join(json.dumps(d) + "\n" for d in documents), content_type="application/json"
    )


def _error(message: str) -> web.Response:
    return web.json_response({"Message": message, "Code": 0, "Type": "error"}, status=500)


def _not_here(cid: str) -> web.Response:
    return _error(f"block was not found locally (offline): ipld: could not find {cid}")
