"""Client of ipfs-cluster's REST API over its Unix socket. Answers were measured on 1.1.6."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from meshd.errors import Code, MeshError
from meshd.kubo.rpc import json_lines, raw_lines
from meshd.model import REPLICAS_MOST, Pin, parse_wanted

PATIENCE_S = 15.0
_ROOM_UNKNOWN = "not enough peers"  # how it says that of some of the nodes it knows no free space (measured)
_LARGEST = 2**56  # bytes, or files; more is nonsense, and sums of many must be numbers of 63 bits
_TAGS_MOST, _TAG_LONGEST = 64, 128
_LATEST_S = 1e11  # any time after that is nonsense
_ASK = aiohttp.ClientTimeout(total=20)
_LIST = aiohttp.ClientTimeout(total=120)


class RoomUnknownError(MeshError):
    """The cluster takes no pin that names a node whose free space it does not know, as for some seconds after a start."""


class ListCutShortError(MeshError):
    """The cluster was stopped while it listed its entries, so the list lacks some."""


class Cluster:
    """Client of one ipfs-cluster on one socket. `close` it.

    listeners: called after each read of one record, with the CID, the record, and the monotonic time of the request.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.listeners: list[Callable[[str, Pin | None, float], None]] = []
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @contextlib.asynccontextmanager
    async def _call(
        self,
        method: str,
        path: str,
        params: dict[str, str] | None = None,
        *,
        timeout: aiohttp.ClientTimeout = _ASK,
        patience_s: float = PATIENCE_S,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request and hold its response open.

        Every request here is idempotent, so one that nobody answers is retried for `patience_s`: each change of the
        roster restarts the cluster, which takes a moment.
        """
        response = await self._patiently(method, path, params, timeout, patience_s)
        try:
            async with response:
                if response.status >= 400 and response.status != 404:
                    text = (await response.text()).strip()
                    said = _message(text)
                    raise (RoomUnknownError if _ROOM_UNKNOWN in said else MeshError)(
                        Code.ENGINE_FAILED,
                        f"cannot do {method} {path}",
                        f"the cluster says: {said}",
                        "meshctl logs cluster",
                    )
                yield response
        except (aiohttp.ClientError, ConnectionError) as exc:
            raise _unreachable(str(exc) or type(exc).__name__) from exc
        except TimeoutError as exc:
            raise _unreachable("it did not answer in time") from exc

    async def _patiently(
        self,
        method: str,
        path: str,
        params: dict[str, str] | None,
        timeout: aiohttp.ClientTimeout,
        patience_s: float,
    ) -> aiohttp.ClientResponse:
        deadline = time.monotonic() + patience_s
        pause = 0.02
        while True:
            session = self._session
            if session is None or session.closed:
                session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket), limit=100))
                self._session = session
            try:
                return await session.request(method, f"http://cluster{path}", params=params, timeout=timeout)
            except (aiohttp.ClientError, ConnectionError, FileNotFoundError) as exc:
                cause: Exception = exc
            except RuntimeError as exc:
                if not session.closed:
                    raise
                cause = exc  # a restart of the cluster closed the session during this request
            except TimeoutError as exc:
                raise _unreachable("it did not answer in time") from exc
            if time.monotonic() + pause > deadline:
                raise _unreachable("it is down") from cause
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)

    async def id(self) -> dict[str, Any]:
        """The identity of the cluster that answers now. Does not wait for it."""
        async with self._call("GET", "/id", patience_s=0) as response:
            answer: dict[str, Any] = json.loads(await response.read())
            return answer

    async def version(self) -> str:
        """That of the program which answers: the least that it can be asked."""
        async with self._call("GET", "/version") as response:
            return str(json.loads(await response.read())["version"])

    async def peers(self) -> list[str]:
        """Cluster peer ids that this node's cluster sees, its own included."""
        async with self._call("GET", "/peers") as response:
            return [p["id"] async for p in json_lines(response.content) if not p.get("error")]

    async def with_room(self) -> set[str]:
        """Cluster ids whose free-space metric is known here: only they can be allocated to."""
        return await self._measured("freespace")

    async def heard(self) -> set[str]:
        """Cluster ids whose free-space metric came lately, through whichever peer. Does not wait for the cluster.

        A peer that falls silent stays in it for 4 s; its ping metric would for 30 (measured).
        """
        return await self._measured("freespace", patience_s=0)

    async def _measured(self, metric: str, *, patience_s: float = PATIENCE_S) -> set[str]:
        path = f"/monitor/metrics/{metric}"
        async with self._call("GET", path, patience_s=patience_s) as response:
            if response.status == 204:
                return set()
            found = json.loads(await response.read() or b"[]")
            return {str(m["peer"]) for m in found or () if m.get("valid", True)}

    async def pin(self, pin: Pin) -> None:
        """Put an entry into the pinset, or change its allocations.

        Always send all of its metadata: ipfs-cluster wipes what is left out. With batching the response comes before the
        commit: read the record back with `allocation`. Raises RoomUnknownError.
        """
        async with self._call("POST", f"/pins/{pin.cid}", parameters(pin)):
            pass

    async def unpin(self, cid: str) -> bool:
        """Remove an entry from the pinset; False where it was not in it."""
        asked = time.monotonic()
        async with self._call("DELETE", f"/pins/{cid}") as response:
            self._tell(cid, None, asked)
            return response.status != 404

    async def allocation(self, cid: str) -> Pin | None:
        """The committed record of a CID, or None. (`/pins/{cid}` answers 200 for a CID that it does not know.)

        Raises MeshError BAD_REQUEST for what is no CID: ipfs-cluster answers 404 for a path, as if it were not kept.
        """
        if not cid.isalnum():
            raise MeshError(Code.BAD_REQUEST, "cannot look that up", f"not a CID: {cid[:80]!a}")
        asked = time.monotonic()
        async with self._call("GET", f"/allocations/{cid}") as response:
            found = None if response.status == 404 else parse_pin(json.loads(await response.read()))
        self._tell(cid, found, asked)
        return found

    def _tell(self, cid: str, pin: Pin | None, asked: float) -> None:
        for listener in self.listeners:
            listener(cid, pin, asked)

    async def allocations(self) -> list[Pin]:
        """The whole pinset as this node knows it. 10,000 take 0.2 s."""
        return [parse_pin(json.loads(line)) async for line in self.records()]

    async def records(self) -> AsyncGenerator[bytes, None]:
        """The whole pinset, streamed as JSON documents for `parse_pin`.

        Raises ListCutShortError where the cluster is stopped meanwhile: it ends the list in the middle, or has none,
        and answers as if that were all (measured). Before that it closes its socket, which removes the file.
        """
        await self.version()  # waits for a cluster that is being started
        serving = await asyncio.to_thread(self._socket_file)
        async with self._call("GET", "/allocations", timeout=_LIST) as response:
            if response.status != 204:
                async for line in raw_lines(response.content):
                    yield line
        if serving is None or await asyncio.to_thread(self._socket_file) != serving:
            raise ListCutShortError(
                Code.NOT_READY,
                "cannot read the catalogue",
                "the cluster was stopped while it listed its entries",
                "the same again; and see: meshctl status",
            )

    def _socket_file(self) -> tuple[int, int, int] | None:
        """Which file the socket is: each start of the cluster makes a new one. None where there is none. Blocks."""
        try:
            stat = self.socket.stat()
        except OSError:
            return None
        return (stat.st_dev, stat.st_ino, stat.st_mtime_ns)

    async def recover(self, cid: str | None = None) -> None:
        """Retry a failed pin on this node: after kill -9 of kubo it stays at `pin_error` for minutes otherwise."""
        path = f"/pins/{cid}/recover" if cid else "/pins/recover"
        async with self._call("POST", path, {"local": "true"}, timeout=_LIST):
            pass

    async def status(self, cid: str) -> str:
        """This node's tracker status of a CID: pinned, pinning, pin_error, remote, unpinned, ..."""
        async with self._call("GET", f"/pins/{cid}", {"local": "true"}) as response:
            peer_map = json.loads(await response.read())["peer_map"]
            return next((str(entry["status"]) for entry in peer_map.values()), "unpinned")

    async def errors(self) -> Sequence[str]:
        """CIDs that this node's tracker failed to pin."""
        async with self._call(
            "GET", "/pins", {"local": "true", "filter": "error"}, timeout=_LIST
        ) as response:
            return [] if response.status == 204 else [p["cid"] async for p in json_lines(response.content)]


def parameters(pin: Pin) -> dict[str, str]:
    """A record as the query of the request that writes it."""
    params = {
        "name": pin.name,
        "mode": "recursive",
        "meta-owner": pin.owner,
        "meta-root": pin.root,
        "meta-size": str(pin.size),
        "meta-files": str(pin.files),
        "meta-time": repr(pin.time),
        "meta-wanted": str(pin.wanted),
        "meta-directory": "1" if pin.directory else "0",
    }
    if pin.tags:
        params["meta-tags"] = json.dumps(pin.tags)
    copies = len(pin.allocations)
    if copies:
        params["user-allocations"] = ",".join(pin.allocations)
    params["replication-min"] = params["replication-max"] = str(copies or -1)
    return params


def parse_pin(document: dict[str, Any]) -> Pin:
    """Parse a record of the pinset. A pin of another program has no metadata, so its CID is its name."""
    meta: dict[str, str] = document.get("metadata") or {}
    cid = document["cid"] if isinstance(document["cid"], str) else document["cid"]["/"]
    try:
        wanted = parse_wanted(meta["wanted"])
        size, time_s, files = int(meta["size"]), float(meta["time"]), int(meta.get("files", "1"))
        if min(size, files) < 0 or max(size, files) > _LARGEST or not 0 <= time_s < _LATEST_S:
            raise ValueError("out of range")
    except (KeyError, ValueError):
        factor = int(document.get("replication_factor_max", -1))
        wanted = "all" if not 1 <= factor <= REPLICAS_MOST else factor
        size, time_s, files = 0, 0.0, 1
    return Pin(
        cid=cid,
        name=document.get("name") or cid,
        owner=meta.get("owner", ""),
        root=meta.get("root", cid),
        size=size,
        time=time_s,
        wanted=wanted,
        directory=meta.get("directory") == "1",
        allocations=tuple(document.get("allocations") or ()),
        files=files,
        tags=_tags(meta.get("tags", "")),
    )


def _tags(text: str) -> tuple[str, ...]:
    """None where what is there makes no sense."""
    try:
        tags = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    good = isinstance(tags, list) and len(tags) <= _TAGS_MOST
    if not good or not all(isinstance(tag, str) and 0 < len(tag) <= _TAG_LONGEST for tag in tags):
        return ()
    return tuple(tags)


def _unreachable(why: str) -> MeshError:
    return MeshError(Code.NOT_READY, "cannot reach the cluster", why, "meshctl status")


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500] or "(no text)"
