"""The gate: a filtering proxy, with admission control, which the cluster gets in place of kubo's socket.

ipfs-cluster's connector uses six commands (measured on 1.1.6 over 1,000 pins and removals). Of these

- `pin/add` is refused below the disk floor, and reports `pinned` only once the content is on the disk, so that a
  replica that the cluster counts survives a power cut;
- `pin/rm` is answered and not done: only this node unpins its content, after its own retention time;
- `repo/stat` reports the disk's real free space, so that allocation is right.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from meshd.errors import Code, MeshError
from meshd.files import Disk
from meshd.http.problem import Surface
from meshd.http.route import Answer, Bytes, Text
from meshd.http.streams import Reply
from meshd.kubo.rpc import LONG, Kubo, KuboError, json_lines
from meshd.serving import listener
from meshd.serving.limiter import Limit, Origin

_REMEMBERED = 20_000  # outcomes kept in memory; for older ones ask kubo again
_SIZE_FOR_S = 10.0
_FEW = 8
_PASSED_ON = ("id", "pin/ls")
_CLUSTER = Origin("cluster", "cluster")
_CONNECTIONS_MOST = 256  # it pins 50 at once (meshd/cluster/config.py), and sends other requests meanwhile
_IDLE_S = 3600.0  # Go's client keeps a pool, and connects ahead: it loses a request where we end one first
_JSON = "application/json"
_LOG = structlog.get_logger(part="gate")


@dataclass(frozen=True, slots=True)
class GateRules:
    """The gate's policy, from the rooms above it.

    refuse: why this CID may not be stored here, or "" (may fetch the entry to find out). full: why the disk takes
    nothing more, or "". removed: called when the cluster wants a CID gone; returns when that is recorded durably.
    free: bytes that this node still offers. member: whether a kubo peer id belongs to the mesh.
    """

    refuse: Callable[[str], Awaitable[str]]
    full: Callable[[], str]
    removed: Callable[[str], Awaitable[None]]
    free: Callable[[], int]
    member: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Fetched:
    """The progress of a fetch. Counts a block once, even where the content has it several times.

    size: bytes of the blocks, in which a file takes about 0.02 % more than its length (measured).
    """

    blocks: int = 0
    size: int = 0


class Gate:
    """Serves gate.sock. `fetching` and `refused` have the state of CIDs that are not held yet."""

    def __init__(self, socket: Path, kubo: Kubo, disk: Disk, rules: GateRules) -> None:
        self.socket = socket
        self.fetching: dict[str, Fetched] = {}  # cid -> progress
        self.refused: OrderedDict[str, str] = OrderedDict()  # cid -> why
        self.durable: OrderedDict[str, None] = OrderedDict()
        self._kubo = kubo
        self._disk = disk
        self._rules = rules
        self._pin_count = 0  # pins in kubo when they were last listed
        self._size = (0, float("-inf"))
        self._runner: web.AppRunner | None = None
        self._listener = listener.Listener(
            {_CLUSTER.kind: Limit(_CONNECTIONS_MOST, _CONNECTIONS_MOST)},
            _our_own,
            head_s=_IDLE_S,
            idle_s=_IDLE_S,
        )

    async def start(self) -> None:
        """Listen. Raises OSError."""
        app = web.Application()
        app.router.add_post("/api/v0/{command:.*}", self._answer)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0, **listener.HEAD_LIMITS
        )
        self.socket.unlink(missing_ok=True)
        await self._listener.serve(self._runner, lambda: listener.unix_socket(str(self.socket)))

    async def stop(self) -> None:
        if self._runner is not None:
            await self._listener.stop()
            await self._runner.cleanup()
            self._runner = None
        self.socket.unlink(missing_ok=True)

    def forget(self, cid: str) -> None:
        """Drop what is cached of a CID, after it was unpinned."""
        self.durable.pop(cid, None)
        self.refused.pop(cid, None)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        reply = Reply(request, _SURFACE)
        try:
            return await reply.send(await self._do(request))
        except Exception as exc:  # noqa: BLE001 - the seam: the cluster gets an error as kubo would send it
            return reply.fail(exc)

    async def _do(self, request: web.Request) -> Answer:
        command = request.match_info["command"]
        if command in _PASSED_ON:
            return Bytes(self._pass_on(request, command), _JSON)
        if command == "swarm/connect":
            return await self._connect(request.query.get("arg", ""))
        if command == "pin/add":
            return Bytes(self._pin(_cid(request)), _JSON)
        if command == "pin/rm":
            cid = _cid(request)
            await self._rules.removed(cid)
            return _document({"Pins": [cid]})
        if command == "repo/stat":
            size = await self._repo_size()
            return _document({"RepoSize": size, "StorageMax": size + self._rules.free()})
        raise MeshError(Code.DENIED, f"cannot do {command}", "the cluster may not ask this of kubo")

    async def _repo_size(self) -> int:
        """Bytes in the repository, cached for ten seconds.

        The cluster asks about twice a second, and only subtracts it again.
        """
        size, asked = self._size
        if time.monotonic() - asked > _SIZE_FOR_S:
            size = (await self._kubo.repo_stat()).size
            self._size = (size, time.monotonic())
        return size

    async def _pass_on(self, request: web.Request, command: str) -> AsyncGenerator[bytes, None]:
        async with self._kubo.call(command, **_options(request), timeout=LONG) as answer:
            async for chunk in answer.content.iter_any():
                yield chunk

    async def _connect(self, address: str) -> Answer:
        peer_id = address.rpartition("/p2p/")[2]
        if not self._rules.member(peer_id):
            raise MeshError(Code.DENIED, f"cannot connect to {peer_id}", "it is not a member of this mesh")
        if not _is_private_tcp(address):
            raise MeshError(
                Code.DENIED, f"cannot connect to {peer_id}", f"{address} is not on a private network"
            )
        await self._kubo.connect(address)
        return _document({"Strings": [f"connect {peer_id} success"]})

    async def _pin(self, cid: str) -> AsyncGenerator[bytes, None]:
        """Stream a line for each progress. An error before the first is a plain response; later it cuts the stream."""
        if cid in self.fetching:
            raise MeshError(Code.BUSY, f"cannot pin {cid}", "it is being fetched already")
        self.fetching[cid] = Fetched()
        try:
            why = self._rules.full() or await self._rules.refuse(cid)
            if why:
                self._remember(self.refused, cid, why)
                _LOG.warning("refused", cid=cid, why=why)
                raise KuboError(f"pin {cid}", why)
            async with contextlib.aclosing(self._fetch(cid)) as lines:
                async for line in lines:
                    yield json.dumps(line).encode() + b"\n"
        finally:
            self.fetching.pop(cid, None)

    async def _fetch(self, cid: str) -> AsyncGenerator[dict[str, Any], None]:
        """kubo's progress; the line that says `pinned` only after the content is on the disk and was read back."""
        last: dict[str, Any] = {}
        async with self._kubo.call(
            "pin/add", [cid], timeout=LONG, recursive="true", progress="true"
        ) as answer:
            async for line in json_lines(answer.content):
                if line.get("Pins"):
                    last = line
                    continue
                self.fetching[cid] = Fetched(int(line.get("Progress") or 0), int(line.get("Bytes") or 0))
                if why := self._rules.full():
                    self._remember(self.refused, cid, why)
                    raise KuboError(f"pin {cid}", why)
                yield line
        if last.get("Pins") != [cid] or cid not in await self._kubo.pinned([cid]):
            raise KuboError(f"pin {cid}", "kubo ended without saying that it is pinned")
        await self._disk.sync()
        self.refused.pop(cid, None)
        self._remember(self.durable, cid, None)
        yield last

    async def _pinned_among(self, cids: list[str]) -> set[str]:
        """Those of the CIDs that have a pin, where most probably have none.

        kubo denies a pin for one CID a request only, so for many it is cheaper to read the whole list: a line of that
        takes about a hundredth of a request.
        """
        if len(cids) * 100 <= self._pin_count or len(cids) < _FEW:
            return await self._kubo.pinned(cids)
        every = {pin.cid for pin in await self._kubo.pins()}
        self._pin_count = len(every)
        return every.intersection(cids)

    @staticmethod
    def _remember(table: OrderedDict[str, Any], cid: str, value: Any) -> None:
        table[cid] = value
        table.move_to_end(cid)
        if len(table) > _REMEMBERED:
            table.popitem(last=False)

    async def held(self, cids: list[str]) -> set[str]:
        """Those of `cids` that kubo has pinned durably. Asks kubo each time; syncs only what is not synced yet."""
        asked = [cid for cid in cids if cid not in self.fetching]
        pinned = await self._kubo.pinned([cid for cid in asked if cid in self.durable])
        pinned |= await self._pinned_among([cid for cid in asked if cid not in self.durable])
        fresh = [cid for cid in pinned if cid not in self.durable]
        if fresh:
            await self._disk.sync()
            for cid in fresh:
                self._remember(self.durable, cid, None)
        return pinned


def _our_own(connection: socket.socket) -> Origin | None:
    """The origin of meshd's own user, which the cluster runs as; None for others, should the folder let them in."""
    return _CLUSTER if listener.peer_uid(connection) in (0, os.geteuid()) else None


def _is_private_tcp(address: str) -> bool:
    """Whether a member's multiaddr is of TCP at a private IP address: no names, nothing on the Internet."""
    match = re.fullmatch(r"/ip[46]/([0-9a-fA-F:.]+)/tcp/\d+/p2p/\w+", address)
    try:
        return match is not None and not ipaddress.ip_address(match[1]).is_global
    except ValueError:
        return False


def _cid(request: web.Request) -> str:
    cid = request.query.get("arg", "").removeprefix("/ipfs/")
    if not cid.isalnum():
        raise MeshError(Code.BAD_REQUEST, "cannot pin that", f"not a CID: {cid!r}")
    return cid


def _options(request: web.Request) -> dict[str, Any]:
    options: dict[str, Any] = {
        key.replace("-", "_"): value for key, value in request.query.items() if key != "arg"
    }
    options["arguments"] = request.query.getall("arg", [])
    return options


def _document(value: dict[str, Any]) -> Text:
    return Text(json.dumps(value), content_type=_JSON)


def _tell(error: MeshError) -> web.Response:
    """An error in kubo's format, the only one that the cluster understands."""
    message = error.message if isinstance(error, KuboError) else str(error)
    status = 403 if error.code is Code.DENIED else 500
    return web.json_response({"Message": message, "Code": 0, "Type": "error"}, status=status)


_SURFACE = Surface(part="gate", tell=_tell)
