"""Many pins at once, as a script sends them: each is done only when three nodes really hold it."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from tests.mesh.nodes import Mesh, Node

pytestmark = pytest.mark.mesh
_COUNT = 200
_BOUNDARY = "one-of-many"


def _body(number: int) -> bytes:
    return (
        f"--{_BOUNDARY}\r\nContent-Disposition: form-data; name=file; filename=f\r\n"
        f"Content-Type: application/octet-stream\r\n\r\nburst {number}\r\n--{_BOUNDARY}--\r\n"
    ).encode()


async def _pin(session: aiohttp.ClientSession, number: int) -> dict[str, object]:
    """Pin one through the control socket; its last event."""
    async with session.post(
        f"http://meshd/v1/pins?name=burst-{number}&files=1",
        data=_body(number),
        headers={"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"},
    ) as answer:
        last = {}
        async for line in answer.content:
            last = json.loads(line)
        return last


async def _held(session: aiohttp.ClientSession, cid: str) -> bool:
    """Whether that node's own kubo has it pinned, this moment."""
    async with session.post(f"http://kubo/api/v0/pin/ls?arg={cid}&type=recursive") as answer:
        return answer.status == 200 and cid in await answer.text()


def _session(socket_path: str) -> aiohttp.ClientSession:
    connector = aiohttp.UnixConnector(path=socket_path, limit=_COUNT)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=100))


def _kubo_socket(node: Node) -> str:
    return str(node.run_folder / "private" / "kubo.sock")


async def test_of_200_pins_at_once_each_is_on_three_nodes_the_moment_it_is_done(mesh: Mesh) -> None:
    async with (
        _session(str(mesh[0].socket)) as control,
        _session(_kubo_socket(mesh[0])) as first,
        _session(_kubo_socket(mesh[1])) as second,
        _session(_kubo_socket(mesh[2])) as third,
    ):

        async def one(number: int) -> list[bool]:
            last = await _pin(control, number)
            assert last["event"] == "done", last
            assert last["degraded"] is False
            entry = last["entry"]
            assert isinstance(entry, dict)
            return [await _held(kubo, entry["cid"]) for kubo in (first, second, third)]

        answers = await asyncio.gather(*(one(n) for n in range(_COUNT)))
    assert answers == [[True, True, True]] * _COUNT
