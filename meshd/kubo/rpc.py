"""Client of kubo's RPC over its Unix socket. Every call is a POST to /api/v0/...; answers were measured on 0.43.0."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from meshd.errors import Code, MeshError

ASK = aiohttp.ClientTimeout(total=10)
LONG = aiohttp.ClientTimeout(total=None, sock_connect=10)  # transfers: the caller bounds them, not the clock
EMPTY_BLOCK = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
# How kubo says that a path leads nowhere: no such name in a directory, or a name inside a file.
_NO_SUCH_PATH = ("no link named", "not found", "does not exist", "func called on wrong kind")
_MODE_SYMLINK = 1 << 27  # Go's fs.ModeSymlink, which kubo writes as octal text
_LINE_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LocalPin:
    cid: str
    name: str


@dataclass(frozen=True, slots=True)
class RepoStat:
    """Bytes and objects in kubo's repository."""

    size: int
    objects: int


@dataclass(frozen=True, slots=True)
class Stat:
    """What a path is. size: bytes of a file's content, 0 for a directory. cumulative: bytes of the whole DAG."""

    cid: str
    size: int
    cumulative: int
    directory: bool
    symlink: bool = False  # its content is the target path


@dataclass(frozen=True, slots=True)
class Link:
    name: str
    cid: str
    size: int
    directory: bool
    target: str = ""  # of a symlink


class KuboError(MeshError):
    """An error that kubo answered with. `message` is its own text."""

    def __init__(self, what: str, message: str) -> None:
        super().__init__(Code.ENGINE_FAILED, f"cannot {what}", f"kubo says: {message}", "meshctl logs kubo")
        self.message = message


class Kubo:
    """Client of one kubo on one socket. `close` it."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            connector = aiohttp.UnixConnector(str(self.socket), limit=200)
            self._session = aiohttp.ClientSession(connector=connector, read_bufsize=256 * 1024)
        return self._session

    @contextlib.asynccontextmanager
    async def call(
        self,
        command: str,
        arguments: Sequence[str] = (),
        *,
        timeout: aiohttp.ClientTimeout = ASK,
        data: Any = None,
        headers: dict[str, str] | None = None,
        extra: dict[str, str] | None = None,
        **options: str,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one command and hold its response open.

        Raises KuboError for an error response, MeshError NOT_READY where kubo does not answer.
        """
        params = [("arg", argument) for argument in arguments]
        params += [(key.replace("_", "-"), value) for key, value in options.items()]
        params += list((extra or {}).items())
        try:
            async with self._http().post(
                f"http://kubo/api/v0/{command}", params=params, timeout=timeout, data=data, headers=headers
            ) as response:
                if response.status != 200:
                    raise KuboError(f"do {command}", _message(await response.text()))
                yield response
        except (aiohttp.ClientError, ConnectionError, FileNotFoundError) as exc:
            raise MeshError(
                Code.NOT_READY,
                f"cannot reach kubo for {command}",
                str(exc) or type(exc).__name__,
                "meshctl status",
            ) from exc
        except TimeoutError as exc:
            raise MeshError(
                Code.NOT_READY, f"cannot do {command}", "kubo did not answer in time", "meshctl status"
            ) from exc

    async def ask(self, command: str, *arguments: str, **options: str) -> Any:
        """Send one command and return its response, one JSON document."""
        async with self.call(command, arguments, **options) as response:  # type: ignore[arg-type]  # options are strings
            return json.loads(await response.read() or b"null")

    async def lines(
        self, command: str, *arguments: str, timeout: aiohttp.ClientTimeout = LONG, **options: str
    ) -> AsyncIterator[Any]:
        """Send one command and yield its response, one JSON document a line."""
        async with self.call(command, arguments, timeout=timeout, **options) as response:  # type: ignore[arg-type]
            async for document in json_lines(response.content):
                yield document

    async def id(self) -> dict[str, Any]:
        answer: dict[str, Any] = await self.ask("id")
        return answer

    async def config(self) -> dict[str, Any]:
        """The running program's config, without private keys."""
        answer: dict[str, Any] = await self.ask("config/show")
        return answer

    async def version(self) -> str:
        return str((await self.ask("version"))["Version"])

    async def put_entry(self, document: dict[str, Any]) -> str:
        """Store a dag-json document as a dag-cbor node; its CID. Not pinned: a GC by hand may take it before it is."""
        form = aiohttp.FormData()
        form.add_field("file", json.dumps(document).encode(), filename="entry")
        async with self.call(
            "dag/put", data=form, store_codec="dag-cbor", input_codec="dag-json", pin="false"
        ) as response:
            return str(json.loads(await response.read())["Cid"]["/"])

    async def keep_empty_block(self) -> None:
        """Store and pin the empty block.

        bitswap never delivers it (measured on 0.43.0): without this a directory with an empty file is never replicated
        to another node, and a read of it there waits for ever.
        """
        form = aiohttp.FormData()
        form.add_field("file", b"", filename="empty")
        async with self.call(
            "block/put", data=form, cid_codec="raw", mhtype="sha2-256", pin="true"
        ) as response:
            found = json.loads(await response.read())["Key"]
        if found != EMPTY_BLOCK:
            raise KuboError("keep the empty block", f"it is {found}")

    async def get_node(self, cid: str, *, seconds: float = 10.0, offline: bool = False) -> Any:
        """A DAG node as dag-json. Where it is not local, kubo fetches it, for up to `seconds`, unless offline."""
        options = {"offline": "true"} if offline else {"timeout": f"{seconds}s"}
        async with self.call(
            "dag/get", [cid], timeout=aiohttp.ClientTimeout(total=seconds + 5), extra=options
        ) as r:
            return json.loads(await r.read())

    async def has(self, cid: str) -> bool:
        """Whether the block itself is stored here. Does not ask the network."""
        try:
            await self.ask("block/stat", cid, offline="true")
        except KuboError:
            return False
        return True

    async def pin(self, cid: str, name: str = "", *, timeout: float | None = None) -> None:
        """Pin recursively. kubo fetches what is missing, and answers when the whole DAG is here."""
        extra = {"name": name} if name else {}
        if timeout is not None:
            extra["timeout"] = f"{timeout}s"
        async with self.call("pin/add", [cid], timeout=LONG, extra=extra) as response:
            pinned = json.loads(await response.read())["Pins"]
        if pinned != [cid]:
            raise KuboError(f"pin {cid}", f"it pinned {pinned}")

    async def unpin(self, cid: str) -> bool:
        """Remove a recursive pin; False where there was none. The empty block stays pinned: see `keep_empty_block`."""
        if cid == EMPTY_BLOCK:
            return True
        try:
            await self.ask("pin/rm", cid)
        except KuboError as exc:
            if "not pinned" in exc.message:
                return False
            raise
        return True

    async def pinned(self, cids: Sequence[str]) -> set[str]:
        """Those of `cids` that have a recursive pin here. One call where all have one, else one call each."""
        if not cids:
            return set()
        try:
            answer = await self.ask("pin/ls", *cids, type="recursive")
            return set(answer["Keys"]) & set(cids)
        except KuboError as exc:
            if "not pinned" not in exc.message:
                raise
        if len(cids) == 1:
            return set()
        middle = len(cids) // 2
        return await self.pinned(cids[:middle]) | await self.pinned(cids[middle:])

    async def pins(self) -> list[LocalPin]:
        """List every recursive pin on this node, with its name: all of them, unlike `pins_in_parts`.

        Raises KuboError where kubo is stopped meanwhile.
        """
        found = [pin async for part in self.pins_in_parts(1000) for pin in part]
        await self.pinned([EMPTY_BLOCK])  # a kubo that has cut the list short answers no question about pins
        return found

    async def pins_in_parts(self, most: int) -> AsyncGenerator[list[LocalPin], None]:
        """List them, that many at a time. A kubo that is stopped ends the list anywhere, with status 200 (measured).

        kubo pins and unpins nothing until it has given out the last one: ask it for neither in between.
        """
        part: list[LocalPin] = []
        async for p in self.lines("pin/ls", type="recursive", names="true", stream="true"):
            part.append(LocalPin(p["Cid"], p.get("Name", "")))
            if len(part) == most:
                yield part
                part = []
        if part:
            yield part

    async def repo_stat(self) -> RepoStat:
        answer = await self.ask("repo/stat", size_only="true")
        return RepoStat(answer["RepoSize"], answer.get("NumObjects", 0))

    async def collect_garbage(self) -> int:
        """Drop every block that no pin reaches; how many. Errors of single blocks raise KuboError at the end."""
        count, errors = 0, []
        async for line in self.lines("repo/gc", stream_errors="true"):
            if line.get("Error"):
                errors.append(line["Error"])
            else:
                count += 1
        if errors:
            raise KuboError("collect garbage", "; ".join(errors[:3]))
        return count

    async def stat(self, path: str, *, timeout: float = 30.0) -> Stat:
        """What `/ipfs/<cid>/...` is. Raises MeshError NOT_FOUND where the path does not resolve."""
        try:
            wait = aiohttp.ClientTimeout(total=timeout + 5)
            async with self.call(
                "files/stat", [path], timeout=wait, extra={"timeout": f"{timeout}s"}
            ) as response:
                answer = json.loads(await response.read())
        except KuboError as exc:
            if any(words in exc.message for words in _NO_SUCH_PATH):
                raise MeshError(Code.NOT_FOUND, f"cannot find {path.partition('/')[2]}", exc.message) from exc
            raise
        return Stat(
            answer["Hash"],
            answer.get("Size", 0),
            answer["CumulativeSize"],
            directory=answer["Type"] == "directory",
            symlink=bool(int(answer.get("Mode") or "0", 8) & _MODE_SYMLINK),
        )

    async def list(self, path: str) -> list[Link]:
        """The links of the directory `/ipfs/<cid>/...`. Sizes are the files' bytes, 0 for directories."""
        answer = await self.ask("ls", path, resolve_type="true", size="true")
        return [
            Link(link["Name"], link["Hash"], link["Size"], link["Type"] == 1, link.get("Target") or "")
            for link in answer["Objects"][0]["Links"]
        ]

    async def swarm_peers(self) -> dict[str, str]:
        """Connected peers: peer id -> multiaddr without the id."""
        answer = await self.ask("swarm/peers")
        return {p["Peer"]: p["Addr"] for p in answer["Peers"] or ()}

    async def keep_connected(self, multiaddr: str) -> None:
        """Add a peering: kubo holds a connection to `/ip4/.../p2p/<id>` and redials for ever. A restart forgets it."""
        await self.ask("swarm/peering/add", multiaddr)

    async def remove_peering(self, peer_id: str) -> None:
        """Undo `keep_connected` and hang up."""
        await self.ask("swarm/peering/rm", peer_id)
        with contextlib.suppress(KuboError):  # it was not connected
            await self.ask("swarm/disconnect", f"/p2p/{peer_id}")

    async def connect(self, multiaddr: str) -> None:
        """Dial a peer once, now. Raises KuboError where it does not answer."""
        await self.ask("swarm/connect", multiaddr)


async def json_lines(stream: aiohttp.StreamReader) -> AsyncIterator[Any]:
    """Parse JSON documents, one a line. Raises ValueError on a line over 4 MiB or one that is not JSON."""
    async for line in raw_lines(stream):
        yield json.loads(line)


async def raw_lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Split a stream into its lines, without the blank ones. Raises ValueError on one over 4 MiB."""
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        if len(rest) > _LINE_MAX:
            raise ValueError("a line is too long")
    if rest.strip():
        yield rest


def _message(body: str) -> str:
    try:
        return str(json.loads(body)["Message"])
    except (ValueError, KeyError, TypeError):
        return body.strip()[:500] or "(no text)"
