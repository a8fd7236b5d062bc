"""Many small pins at once, until all three nodes hold all of them: meshd, and a stock cluster with default settings."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from bench import stock
from bench.ground import Row, Scale, mesh
from scripts.nodes import Node, NodeError

AT_ONCE = 100
_SIZE_B = 1000
_LOOK_EVERY_S = 0.5
_BOUNDARY = "meshd-bench-boundary"


def run(folder: Path, scale: Scale) -> list[Row]:
    """Raises NodeError where a pin is not acknowledged with three copies, or is not there."""
    ours: list[float] = []
    theirs: list[float] = []
    cut_off = False
    for turn in range(1, scale.burst_runs + 1):  # in turns, so that what else the machine does meets both
        files = [random.randbytes(_SIZE_B) for _ in range(scale.pins)]
        print(
            f"burst {turn} of {scale.burst_runs}: {scale.pins} pins through one node of a mesh",
            end="",
            flush=True,
        )
        with mesh(folder) as nodes:
            ours.append(asyncio.run(_meshd(nodes, files)))
        print(f": {ours[-1]:.1f} s; through a stock cluster", end="", flush=True)
        with stock.kubos(folder, 3) as machines:
            stock.start_clusters(machines)
            took, held = asyncio.run(_stock(machines, files, scale.stock_limit_s))
        theirs.append(took)
        cut_off = cut_off or min(held) < scale.pins
        print(f": {took:.1f} s, its kubos hold {', '.join(map(str, held))}", flush=True)
    ratio = statistics.median(ours) / statistics.median(theirs)
    return [
        Row(
            f"{scale.pins} pins at once, on three nodes",
            _range(ours),
            f"stock cluster: {_range(theirs)}{' or more' if cut_off else ''}",
            f"{'at most ' if cut_off else ''}{ratio:.2f}",
            "< 0.33",
            ratio < 1 / 3,
        )
    ]


def _range(times: list[float]) -> str:
    """`20.1 s`, or the median and both ends where there are several."""
    ends = f" ({min(times):.1f} to {max(times):.1f})" if len(times) > 1 else ""
    return f"{statistics.median(times):.1f} s{ends}"


async def _each(files: list[bytes], work: Callable[[bytes], Awaitable[str]]) -> list[str]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(content: bytes) -> str:
        async with room:
            return await work(content)

    return list(await asyncio.gather(*(one(content) for content in files)))


def _form(content: bytes) -> tuple[bytes, dict[str, str]]:
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="small"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}


async def _recursive(session: aiohttp.ClientSession, url: str) -> set[str]:
    """The CIDs that a kubo itself says it has pinned."""
    async with session.post(f"{url}/pin/ls?type=recursive") as answer:
        answer.raise_for_status()
        return set((await answer.json())["Keys"])


async def _meshd(nodes: list[Node], files: list[bytes]) -> float:
    """Seconds until every pin is done with three copies, each kubo asked as well."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=120)
    control = aiohttp.UnixConnector(str(nodes[0].socket), limit=AT_ONCE)
    began = time.monotonic()
    async with aiohttp.ClientSession(connector=control, timeout=timeout) as session:

        async def pin(content: bytes) -> str:
            body, headers = _form(content)
            query = {"name": f"small-{content[:6].hex()}", "files": "1", "bytes": str(len(content))}
            async with session.post(
                "http://meshd/v1/pins", params=query, data=body, headers=headers
            ) as answer:
                last = json.loads((await answer.text()).splitlines()[-1])
            if last.get("event") != "done" or last["degraded"] or last["entry"]["held"] != len(nodes):
                raise NodeError(f"a pin was not done with {len(nodes)} copies: {last}", nodes[0])
            return str(last["entry"]["cid"])

        cids = set(await _each(files, pin))
    for node in nodes:
        private = aiohttp.UnixConnector(str(node.folder / "run" / "private" / "kubo.sock"))
        async with aiohttp.ClientSession(connector=private, timeout=timeout) as session:
            missing = cids - await _recursive(session, "http://kubo/api/v0")
        if missing:
            raise NodeError(f"{node.name}'s kubo lacks {len(missing)} pins that were said to be done", node)
    return time.monotonic() - began


async def _stock(
    machines: list[stock.Machine], files: list[bytes], limit_s: float
) -> tuple[float, list[int]]:
    """Seconds until each kubo holds all, or the limit; and how many each holds."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
    first = machines[0]
    began = time.monotonic()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=AT_ONCE), timeout=timeout
    ) as session:

        async def pin(content: bytes) -> str:
            body, headers = _form(content)
            async with session.post(
                f"{first.kubo_url}/add?cid-version=1", data=body, headers=headers
            ) as answer:
                answer.raise_for_status()
                cid = str(json.loads((await answer.text()).splitlines()[-1])["Hash"])
            async with session.post(f"{first.cluster_url}/pins/{cid}") as answer:
                answer.raise_for_status()
            return cid

        cids = set(await _each(files, pin))
        while True:
            held = [len(cids & await _recursive(session, machine.kubo_url)) for machine in machines]
            took = time.monotonic() - began
            if min(held) == len(cids) or took > limit_s:
                return took, held
            await asyncio.sleep(_LOOK_EVERY_S)
