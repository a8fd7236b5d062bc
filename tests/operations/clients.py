"""Clients of a control socket that follow streams, and may go away at any moment."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp


class Clients:
    """Each request is a connection of its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._streams: list[Stream] = []

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams:
            await stream.hang_up()

    async def ask(self, method: str, path: str, body: object = None) -> Stream:
        connector = aiohttp.UnixConnector(str(self._socket), force_close=True)
        session = aiohttp.ClientSession(connector=connector)
        try:
            response = await session.request(method, f"http://meshd{path}", json=body)
        except BaseException:
            await session.close()
            raise
        self._streams.append(Stream(session, response))
        return self._streams[-1]

    async def get(self, path: str) -> Any:
        answer = await self.ask("GET", path)
        assert answer.status == 200
        return await answer.document()


class Stream:
    """One answer."""

    def __init__(self, session: aiohttp.ClientSession, response: aiohttp.ClientResponse) -> None:
        self._session = session
        self._response = response
        self.status = response.status
        self.operation = response.headers.get("Meshd-Operation", "")

    async def next(self) -> Any:
        return json.loads(await self._response.content.readline())

    async def rest(self) -> list[Any]:
        return [json.loads(line) for line in (await self._response.read()).splitlines()]

    async def document(self) -> Any:
        return json.loads(await self._response.read())

    async def hang_up(self) -> None:
        self._response.close()
        await self._session.close()
