"""A kubo and a cluster that keep all in memory and do what a test tells them: real HTTP servers on real Unix sockets.

tests/engines has the originals; what is asked here is what `meshd.kubo.rpc` and `meshd.cluster.rest` ask them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from base64 import b32encode
from pathlib import Path
from typing import Any

from aiohttp import web


def cid_of(data: bytes) -> str:
    """The CID of a dag-cbor node whose bytes are `data`."""
    return "b" + b32encode(b"\x01\x71\x12\x20" + hashlib.sha256(data).digest()).decode().lower().rstrip("=")


class _Server:
    """asked: what was asked, in its order. away: what is not answered at all. fails: what is answered with an error. holds:
    what is answered only once its event is set; `began` tells that one was asked."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.asked: list[str] = []
        self.away: set[str] = set()
        self.fails: set[str] = set()
        self.holds: dict[str, asyncio.Event] = {}
        self.began: dict[str, asyncio.Event] = {}
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def stop(self) -> None:
        for event in self.holds.values():
            event.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def hold(self, command: str) -> asyncio.Event:
        """Answer `command` only once the returned event is set; `began[command]` is set when it was asked."""
        self.began[command] = asyncio.Event()
        self.holds[command] = asyncio.Event()
        return self.holds[command]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        command = self.command(request)
        self.asked.append(command)
        if command in self.away or "*" in self.away:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if command in self.holds:
            self.began[command].set()
            await self.holds[command].wait()
        if command in self.fails:
            return web.json_response({"Message": "it fails", "message": "it fails"}, status=500)
        return await self.answer(command, request)

    def command(self, request: web.Request) -> str:
        raise NotImplementedError

    async def answer(self, command: str, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError


def _refused(message: str) -> web.Response:
    return web.json_response({"Message": message, "Code": 0, "Type": "error"}, status=500)


class FakeKubo(_Server):
    """blocks: CID -> its dag-json. pins: CID -> name."""

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.blocks: dict[str, Any] = {}
        self.pins: dict[str, str] = {}

    def command(self, request: web.Request) -> str:
        return request.path.removeprefix("/api/v0/")

    async def answer(self, command: str, request: web.Request) -> web.StreamResponse:
        cids = [a.removeprefix("/ipfs/") for a in request.query.getall("arg", [])]
        if command == "dag/put":
            return await self._put(request)
        if command == "dag/get":
            return (
                web.json_response(self.blocks[cids[0]])
                if cids[0] in self.blocks
                else _refused("block was not found locally (offline): ipld: could not find it: not found")
            )
        if command == "pin/add":
            return self._pin(cids[0], request.query.get("name", ""))
        if command == "pin/rm":
            if self.pins.pop(cids[0], None) is None:
                return _refused("not pinned or pinned indirectly")
            return web.json_response({"Pins": cids})
        if command == "pin/ls":
            return self._list(cids)
        if command == "repo/gc":
            gone = self.blocks.keys() - self.pins.keys()
            for cid in gone:
                del self.blocks[cid]
            return web.Response(text="".join(json.dumps({"Key": {"/": cid}}) + "\n" for cid in gone))
        if command == "files/stat":
            return web.json_response({"Hash": cids[0], "Size": 5, "CumulativeSize": 5, "Type": "file"})
        if command == "block/stat":
            return web.json_response({"Key": cids[0]}) if cids[0] in self.blocks else _refused("not found")
        return _refused(f"the fake knows no {command}")

    async def _put(self, request: web.Request) -> web.Response:
        part = await (await request.multipart()).next()
        assert part is not None
        raw = await part.read()  # type: ignore[union-attr]  # it is no form within the form
        cid = cid_of(raw)
        self.blocks[cid] = json.loads(raw)
        return web.json_response({"Cid": {"/": cid}})

    def _pin(self, cid: str, name: str) -> web.Response:
        if cid not in self.blocks:
            return _refused(f"pin: block was not found: {cid}")
        self.pins[cid] = name
        return web.json_response({"Pins": [cid]})

    def _list(self, cids: list[str]) -> web.Response:
        if cids:
            if any(cid not in self.pins for cid in cids):
                return _refused("path is not pinned")
            return web.json_response({"Keys": {cid: {"Type": "recursive"} for cid in cids}})
        lines = [json.dumps({"Cid": c, "Name": n, "Type": "recursive"}) for c, n in self.pins.items()]
        return web.Response(text="".join(f"{line}\n" for line in lines))


class FakeCluster(_Server):
    """pinset: CID -> its record as /allocations gives it. rooms: the cluster ids whose free space it knows."""

    def __init__(self, socket: Path, rooms: tuple[str, ...] = ()) -> None:
        super().__init__(socket)
        self.fails_for: set[str] = set()  # CIDs
        self.pinset: dict[str, dict[str, Any]] = {}
        self.rooms = rooms

    def command(self, request: web.Request) -> str:
        kind = request.path.split("/")[1]
        one = request.path.count("/") > 1 and kind != "monitor"
        return f"{request.method} {kind}/one" if one else f"{request.method} {kind}"

    async def answer(self, command: str, request: web.Request) -> web.StreamResponse:
        cid = request.path.rpartition("/")[2]
        if cid in self.fails_for:
            return web.json_response({"code": 500, "message": "it fails"}, status=500)
        if command == "GET allocations":
            if not self.pinset:
                return web.Response(status=204)
            return web.Response(text="".join(f"{json.dumps(one)}\n" for one in self.pinset.values()))
        if command == "GET allocations/one":
            if cid not in self.pinset:
                return web.json_response({"code": 404, "message": "not found"}, status=404)
            return web.json_response(self.pinset[cid])
        if command == "POST pins/one":
            self.pinset[cid] = record_of(cid, dict(request.query))
            return web.json_response(self.pinset[cid])
        if command == "DELETE pins/one":
            if self.pinset.pop(cid, None) is None:
                return web.json_response({"code": 404, "message": "not found"}, status=404)
            return web.json_response({})
        if command == "GET monitor":
            return web.json_response([{"peer": peer, "valid": True} for peer in self.rooms])
        return web.json_response({"code": 500, "message": f"the fake knows no {command}"}, status=500)


def record_of(cid: str, asked: dict[str, str]) -> dict[str, Any]:
    """The record that a POST of those parameters leaves."""
    chosen = asked.get("user-allocations", "")
    return {
        "cid": cid,
        "name": asked.get("name", ""),
        "allocations": chosen.split(",") if chosen else [],
        "replication_factor_max": int(asked.get("replication-max", "-1")),
        "metadata": {k.removeprefix("meta-"): v for k, v in asked.items() if k.startswith("meta-")},
    }
