"""/v1/pins: what the mesh keeps."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from urllib.parse import quote

from aiohttp import web

from meshd.control import query
from meshd.control.server import json_answer, read_request
from meshd.control.streams import EventStream, stream
from meshd.errors import Code, MeshError
from meshd.kubo.rpc import Stat
from meshd.model import REPLICAS_MOST, Replicas
from meshd.pins.catalogue import PAGE_MOST, Catalogue
from meshd.pins.content import Content
from meshd.pins.entries import is_cid
from meshd.pins.pin import Pinner
from meshd.pins.remove import Remover
from meshd.pins.uploads import Declared
from meshd.wire import PinRequest


class PinsApi:
    def __init__(self, catalogue: Catalogue, pinner: Pinner, content: Content, remover: Remover) -> None:
        self._catalogue = catalogue
        self._pinner = pinner
        self._content = content
        self._remover = remover

    async def list(self, request: web.Request) -> web.StreamResponse:
        """?name= (substring) &owner= (a node's name) &limit= &after= &copies=1"""
        page = await self._catalogue.page(
            name=request.query.get("name", ""),
            owner=request.query.get("owner", ""),
            limit=query.number(request, "limit", least=1) or PAGE_MOST,
            after=request.query.get("after", ""),
            copies=query.flag(request, "copies"),
        )
        return json_answer(page)

    async def add(self, request: web.Request) -> web.StreamResponse:
        """?name= &directory= &replicas= &files= &bytes= &detach=; the body is multipart, as kubo's add takes it."""
        declared = Declared(
            name=request.query.get("name", ""),
            directory=query.flag(request, "directory") if "directory" in request.query else None,
            size=query.number(request, "bytes"),
            files=query.number(request, "files"),
            length=request.content_length,
        )
        replicas = _replicas(request)
        detach = query.flag(request, "detach")
        content_type = request.headers.get("Content-Type", "")

        async def work(events: EventStream) -> None:
            await self._pinner.upload(
                request.content.iter_any(), content_type, declared, replicas, events.emit, detach=detach
            )

        return await stream(request, work)

    async def put(self, request: web.Request) -> web.StreamResponse:
        """Keep what a CID names."""
        wanted = await read_request(request, PinRequest)
        cid = request.match_info["cid"]
        if not is_cid(cid):
            raise MeshError(
                Code.BAD_REQUEST,
                f"cannot pin {cid[:80]!a}",
                "that is no CID",
                "meshctl pin PATH   (meshctl ls NAME shows the CIDs of what is kept)",
            )

        async def work(events: EventStream) -> None:
            await self._pinner.existing(cid, wanted.name, wanted.replicas, events.emit, detach=wanted.detach)

        return await stream(request, work)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """One entry, with who holds it."""
        view = self._catalogue.view(await self._catalogue.find(request.match_info["ref"]))
        await self._catalogue.fill_copies([view])
        return json_answer(view)

    async def files(self, request: web.Request) -> web.StreamResponse:
        """?path= inside a directory"""
        return json_answer(
            await self._content.listing(request.match_info["ref"], request.query.get("path", ""))
        )

    async def content(self, request: web.Request) -> web.StreamResponse:
        """?path=; a file's bytes, or a tar of a directory. Cut off where less came than there is."""
        found = await self._content.find(request.match_info["ref"], request.query.get("path", ""))
        response = web.StreamResponse(
            headers={
                "Meshd-Kind": _kind(found.stat),
                "Meshd-Name": quote(found.name, safe=""),
                "Content-Type": "application/x-tar" if found.stat.directory else "application/octet-stream",
            }
        )
        if not found.stat.directory:
            response.headers["Meshd-Size"] = str(found.stat.size)
            response.content_length = found.stat.size
        chunks: AsyncIterator[bytes] = self._content.read(found)
        try:
            async with contextlib.aclosing(chunks):  # type: ignore[type-var]  # it is an async generator
                async for chunk in chunks:
                    if not response.prepared:
                        await response.prepare(request)
                    await response.write(chunk)
        except MeshError:
            if not response.prepared:
                raise
            if request.transport is not None:
                request.transport.abort()  # the only way to say that what came is not all
            return response
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response

    async def recover(self, request: web.Request) -> web.StreamResponse:
        """See that the copies are made; streams as adding does."""
        numbered = await self._catalogue.find(request.match_info["ref"])

        async def work(events: EventStream) -> None:
            await self._pinner.make_whole(numbered.pin, events.emit)

        return await stream(request, work)

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """?now=1: let the content go on every node at once, which only its owner may ask; &force=1: also where it
        could not be restored"""
        now, force = query.flag(request, "now"), query.flag(request, "force")
        return json_answer(await self._remover.remove(request.match_info["ref"], now=now, force=force))

    async def trash(self, request: web.Request) -> web.StreamResponse:
        """What was removed and is still here."""
        return json_answer(await self._remover.listing())

    async def restore(self, request: web.Request) -> web.StreamResponse:
        """Put it back; streams as adding does."""
        reference = request.match_info["ref"]

        async def work(events: EventStream) -> None:
            await self._remover.restore(reference, events.emit)

        return await stream(request, work)


def _kind(stat: Stat) -> str:
    if stat.directory:
        return "directory"
    return "symlink" if stat.symlink else "file"


def _replicas(request: web.Request) -> Replicas | None:
    if request.query.get("replicas") == "all":
        return "all"
    try:
        wanted = query.number(request, "replicas", least=1)
    except MeshError:
        wanted = REPLICAS_MOST + 1
    if wanted is not None and wanted > REPLICAS_MOST:
        raise MeshError(
            Code.BAD_REQUEST,
            f"cannot make {request.query['replicas'][:40]!a} copies",
            f'expected a number from 1 to {REPLICAS_MOST}, or "all"',
            "meshctl pin --help",
        )
    return wanted
