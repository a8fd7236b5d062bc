"""Fakes of kubo and ipfs-cluster for the room `pins`, in memory.

Each has two interfaces: it is a KuboApi or a ClusterApi by type, to be called in this process, and a real HTTP server
on a real Unix socket, which serves those same calls. test_fakes.py is the contract that holds both to the real ones.
What a real one does only over hours, or only in a large mesh, a test does by hand: `names`, `blocks`, `elsewhere` and
`records` may be changed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from meshd.cluster.rest import RoomUnknownError, parameters, parse_pin
from meshd.errors import Code, MeshError
from meshd.kubo.rpc import EMPTY_BLOCK, KuboError, LocalPin, RepoStat, Stat
from meshd.model import Pin

Hook = Callable[[], Awaitable[None]]


async def _nothing() -> None:
    """The default hook: does nothing."""


def cid_of(content: bytes) -> str:
    """A CID of dag-cbor in the canonical spelling, as kubo returns it."""
    raw = b"\x01\x71\x12\x20" + hashlib.sha256(content).digest()
    return "b" + base64.b32encode(raw).decode().lower().rstrip("=")


class _Engine:
    """asked: the commands so far, in order. fails: command -> its error response. away: commands whose connection is
    closed without a response.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.asked: list[str] = []
        self.fails: dict[str, str] = {}
        self.away: set[str] = set()
        self.began: dict[str, asyncio.Event] = {}
        self._holds: dict[str, asyncio.Event] = {}
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Serve the socket. Calls in this process need no start."""
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
        """Delay `command` until the returned event is set. `began[command]` is set when the command comes."""
        self.began[command] = asyncio.Event()
        self._holds[command] = asyncio.Event()
        return self._holds[command]

    async def _enter(self, command: str) -> None:
        """Apply the test's faults to a command, on either interface."""
        self.asked.append(command)
        if command in self.away:
            raise MeshError(Code.NOT_READY, "cannot reach it", f"it closed the connection for {command}")
        if command in self._holds:
            self.began[command].set()
            await self._holds[command].wait()
        if command in self.fails:
            raise self.failed(self.fails[command])

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self.answer(request)
        except MeshError as exc:
            if exc.code is not Code.NOT_READY:
                return self.error(exc)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    @abstractmethod
    def failed(self, message: str) -> MeshError:
        """The exception that meshd's client raises for an error response."""

    @abstractmethod
    def error(self, exc: MeshError) -> web.Response:
        """The error response for such an exception."""

    @abstractmethod
    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Handle a request."""


class FakeKubo(_Engine):
    """blocks: local blocks, CID -> dag-json. elsewhere: blocks of other nodes. names: pins, CID -> name.

    forgets: CIDs whose pin it acknowledges and does not keep. settings: its config. connected: peer id -> multiaddr. A
    command has a name like `pin/add`.
    """

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.blocks: dict[str, Any] = {}
        self.elsewhere: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.forgets: set[str] = set()
        self.settings: dict[str, Any] = {"Addresses": {"Gateway": []}}
        self.connected: dict[str, str] = {}

    def put(self, document: dict[str, Any]) -> str:
        """Store a node, without a pin."""
        cid = cid_of(json.dumps(document, sort_keys=True).encode())
        self.blocks[cid] = document
        return cid

    def failed(self, message: str) -> KuboError:
        return KuboError("do that", message)

    def error(self, exc: MeshError) -> web.Response:
        message = exc.message if isinstance(exc, KuboError) else str(exc)
        return web.json_response({"Message": message, "Code": 0, "Type": "error"}, status=500)

    def _fetch(self, cid: str, *, offline: bool = False) -> bool:
        if cid not in self.blocks and not offline and cid in self.elsewhere:
            self.blocks[cid] = self.elsewhere[cid]
        return cid in self.blocks

    def _root(self, cid: str) -> str:
        """The root that an entry links to; "" for anything else."""
        node = self.blocks.get(cid)
        root = node.get("root") if isinstance(node, dict) else None
        return str(root["/"]) if isinstance(root, dict) else ""

    # -- as a KuboApi ----------------------------------------------------------------------------------------------

    async def put_entry(self, document: dict[str, Any]) -> str:
        await self._enter("dag/put")
        return self.put(document)

    async def get_node(self, cid: str, *, seconds: float = 10.0, offline: bool = False) -> Any:
        await self._enter("dag/get")
        if not self._fetch(cid, offline=offline):
            raise self.failed(_NOT_HERE.format(cid))
        return self.blocks[cid]

    async def has(self, cid: str) -> bool:
        try:
            await self._enter("block/stat")
        except KuboError:
            return False
        return cid in self.blocks

    async def pin(self, cid: str, name: str = "", *, timeout: float | None = None) -> None:
        await self._enter("pin/add")
        if not self._fetch(cid):
            raise self.failed("context deadline exceeded")
        self._fetch(self._root(cid))
        if cid not in self.forgets:
            self.names[cid] = name

    async def unpin(self, cid: str) -> bool:
        if cid == EMPTY_BLOCK:
            return True
        await self._enter("pin/rm")
        return self.names.pop(cid, None) is not None

    async def pinned(self, cids: Sequence[str]) -> set[str]:
        if not cids:
            return set()
        await self._enter("pin/ls")
        return self.names.keys() & set(cids)

    async def pins(self) -> list[LocalPin]:
        await self._enter("pin/ls")
        return [LocalPin(cid, name) for cid, name in self.names.items()]

    async def pins_in_parts(self, most: int) -> AsyncGenerator[list[LocalPin], None]:
        every = await self.pins()
        for n in range(0, len(every), most):
            yield every[n : n + most]

    async def stat(self, path: str, *, timeout: float = 30.0) -> Stat:
        await self._enter("files/stat")
        cid = path.removeprefix("/ipfs/")
        if not self._fetch(cid):
            raise self.failed("context deadline exceeded")
        return Stat(cid, 50, 58, directory=False)

    async def collect_garbage(self) -> int:
        await self._enter("repo/gc")
        return len(self._collect())

    def _collect(self) -> list[str]:
        reached = {each for cid in self.names for each in (cid, self._root(cid))}
        gone = [cid for cid in self.blocks if cid not in reached]
        for cid in gone:
            del self.blocks[cid]
        return gone

    async def repo_stat(self) -> RepoStat:
        await self._enter("repo/stat")
        return RepoStat(1000, len(self.blocks))

    async def config(self) -> dict[str, Any]:
        await self._enter("config/show")
        return self.settings

    async def swarm_peers(self) -> dict[str, str]:
        await self._enter("swarm/peers")
        return dict(self.connected)

    # -- as a server -----------------------------------------------------------------------------------------------

    async def answer(self, request: web.Request) -> web.StreamResponse:
        command = request.path.removeprefix("/api/v0/")
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
            await self._enter(command)
            return web.Response(status=404, text="404 page not found")
        return await commands[command](request)

    async def _pin_add(self, request: web.Request) -> web.StreamResponse:
        cid = request.query["arg"]
        await self.pin(cid, request.query.get("name", ""))
        lines = [{"Progress": 1}] if request.query.get("progress") == "true" else []
        return _lines([*lines, {"Pins": [cid]}])

    async def _pin_rm(self, request: web.Request) -> web.StreamResponse:
        cid = request.query["arg"]
        if not await self.unpin(cid):
            raise self.failed("not pinned or pinned indirectly")
        return web.json_response({"Pins": [cid]})

    async def _pin_ls(self, request: web.Request) -> web.StreamResponse:
        asked = request.query.getall("arg", [])
        if not asked:
            return _lines([{"Cid": p.cid, "Type": "recursive", "Name": p.name} for p in await self.pins()])
        pinned = await self.pinned(asked)
        for cid in asked:
            if cid not in pinned:
                raise self.failed(f"path '{cid}' is not pinned")
        return web.json_response({"Keys": {cid: {"Type": "recursive"} for cid in asked}})

    async def _block_stat(self, request: web.Request) -> web.StreamResponse:
        cid = request.query["arg"]
        if not await self.has(cid):
            raise self.failed(_NOT_HERE.format(cid))
        return web.json_response({"Key": cid, "Size": 1})

    async def _dag_get(self, request: web.Request) -> web.StreamResponse:
        offline = request.query.get("offline") == "true"
        return web.json_response(await self.get_node(request.query["arg"], offline=offline))

    async def _dag_put(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        return web.json_response({"Cid": {"/": await self.put_entry(json.loads(file.file.read()))}})

    async def _files_stat(self, request: web.Request) -> web.StreamResponse:
        found = await self.stat(request.query["arg"])
        return web.json_response(
            {
                "Hash": found.cid,
                "Size": found.size,
                "CumulativeSize": found.cumulative,
                "Type": "file",
                "Mode": "0",
            }
        )

    async def _gc(self, _: web.Request) -> web.StreamResponse:
        await self._enter("repo/gc")
        return _lines([{"Key": {"/": cid}} for cid in self._collect()])

    async def _config(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(await self.config())

    async def _peers(self, _: web.Request) -> web.StreamResponse:
        found = [{"Addr": where, "Peer": peer} for peer, where in (await self.swarm_peers()).items()]
        return web.json_response({"Peers": found or None})

    async def _repo_stat(self, _: web.Request) -> web.StreamResponse:
        found = await self.repo_stat()
        return web.json_response({"RepoSize": found.size, "NumObjects": found.objects})


class FakeCluster(_Engine):
    """records: the pinset, CID -> the cluster's document. measured: nodes with a free-space metric, so allocatable.

    commits: whether accepted pins reach the pinset. refuses: error response to each pin. fails_for: CIDs whose queries
    fail. posted: the CIDs of all pin requests. pinned: called with each new record. listed: called once, after the
    next reading of the pinset, whose caller then goes on with old data. A command has a name like `GET allocations`,
    or `GET allocations/one` where it is about one CID.
    """

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.records: dict[str, dict[str, Any]] = {}
        self.measured: set[str] = set()
        self.commits = True
        self.refuses = ""
        self.fails_for: set[str] = set()
        self.posted: list[str] = []
        self.pinned: Callable[[dict[str, Any]], None] = lambda record: None
        self.listed: Hook = _nothing

    def failed(self, message: str) -> MeshError:
        kind = RoomUnknownError if message.startswith(_ROOM_UNKNOWN) else MeshError
        return kind(Code.ENGINE_FAILED, "cannot do that", f"{_SAYS}{message}")

    def error(self, exc: MeshError) -> web.Response:
        return web.json_response({"code": 500, "message": exc.detail.removeprefix(_SAYS)}, status=500)

    async def _about(self, command: str, cid: str) -> None:
        await self._enter(command)
        if cid in self.fails_for:
            raise self.failed("it fails")

    # -- as a ClusterApi -------------------------------------------------------------------------------------------

    async def version(self) -> str:
        await self._enter("GET version")
        return "1.1.6"

    async def with_room(self) -> set[str]:
        await self._enter("GET monitor")
        return set(self.measured)

    async def pin(self, pin: Pin) -> None:
        await self._about("POST pins/one", pin.cid)
        self._take(pin.cid, parameters(pin))

    async def unpin(self, cid: str) -> bool:
        await self._about("DELETE pins/one", cid)
        if cid not in self.records:
            return False
        if self.commits:
            del self.records[cid]
        return True

    async def allocation(self, cid: str) -> Pin | None:
        if not cid.isalnum():
            raise MeshError(Code.BAD_REQUEST, "cannot look that up", f"not a CID: {cid}")
        await self._about("GET allocations/one", cid)
        return parse_pin(self.records[cid]) if cid in self.records else None

    async def allocations(self) -> list[Pin]:
        return [parse_pin(record) for record in await self._list()]

    async def _list(self) -> list[dict[str, Any]]:
        await self._enter("GET allocations")
        found = list(self.records.values())
        hook, self.listed = self.listed, _nothing
        await hook()
        return found

    def _take(self, cid: str, asked: Mapping[str, str]) -> dict[str, Any]:
        self.posted.append(cid)
        record = record_of(cid, asked)
        if self.refuses or not self.measured.issuperset(record["allocations"]):
            raise self.failed(self.refuses or f"{_ROOM_UNKNOWN} to allocate CID")
        if self.commits:
            self.records[cid] = record
            self.pinned(record)
        return record

    # -- as a server -----------------------------------------------------------------------------------------------

    async def answer(self, request: web.Request) -> web.StreamResponse:
        kind, _, cid = request.path.removeprefix("/").partition("/")
        command = f"{request.method} {kind}/one" if cid and kind != "monitor" else f"{request.method} {kind}"
        if command == "GET allocations":
            found = await self._list()
            return _lines(found) if found else web.Response(status=204)
        if command == "GET version":
            return web.json_response({"version": await self.version()})
        if command == "GET monitor":
            return web.json_response(
                [{"peer": peer, "valid": True} for peer in sorted(await self.with_room())]
            )
        if command == "DELETE pins/one":
            record = self.records.get(cid)
            return web.json_response(record) if await self.unpin(cid) else _no_record()
        await self._about(command, cid)
        if command == "GET allocations/one" and cid in self.records:
            return web.json_response(self.records[cid])
        if command == "POST pins/one":
            return web.json_response(self._take(cid, request.query))
        return _no_record()


def record_of(cid: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """The record that a POST with these parameters makes."""
    return {
        "cid": cid,
        "name": asked.get("name", ""),
        "allocations": [a for a in asked.get("user-allocations", "").split(",") if a],
        "replication_factor_max": int(asked.get("replication-max", "-1")),
        "metadata": {k.removeprefix("meta-"): v for k, v in asked.items() if k.startswith("meta-")},
    }


_ROOM_UNKNOWN = "not enough peers"
_SAYS = "the cluster says: "
_NOT_HERE = "block was not found locally (offline): ipld: could not find {}"


def _no_record() -> web.Response:
    return web.json_response({"code": 404, "message": "not found"}, status=404)


def _lines(documents: list[dict[str, Any]]) -> web.Response:
    return web.Response(
        text="".join(json.dumps(d) + "\n" for d in documents), content_type="application/json"
    )
