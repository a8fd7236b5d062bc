"""/v1/pins: what the mesh keeps."""

from __future__ import annotations

from urllib.parse import quote

from meshd.errors import Code, MeshError
from meshd.http.request import Request
from meshd.http.route import Bytes, Events
from meshd.kubo.rpc import Stat
from meshd.model import REPLICAS_MOST, Replicas
from meshd.operations.api import answer
from meshd.operations.registry import Operation, Operations, Work
from meshd.pins.catalogue import PAGE_MOST, Catalogue
from meshd.pins.content import Content
from meshd.pins.entries import is_cid
from meshd.pins.pin import Pinner
from meshd.pins.remove import Remover
from meshd.pins.uploads import Declared
from meshd.wire import Entries, Entry, Listing, PinRequest, Removed, Trash


class PinsApi:
    def __init__(
        self,
        catalogue: Catalogue,
        pinner: Pinner,
        content: Content,
        remover: Remover,
        operations: Operations,
    ) -> None:
        self._catalogue = catalogue
        self._pinner = pinner
        self._content = content
        self._remover = remover
        self._operations = operations

    async def list(self, request: Request) -> Entries:
        """?name= (substring) &owner= (a node's name) &limit= &after= &copies=1"""
        return await self._catalogue.page(
            name=request.query.text("name"),
            owner=request.query.text("owner"),
            limit=request.query.number("limit", least=1) or PAGE_MOST,
            after=request.query.text("after"),
            copies=request.query.flag("copies"),
        )

    async def add(self, request: Request) -> Events:
        """?name= &directory= &replicas= &files= &bytes= &detach=; the body is multipart, as kubo's add takes it."""
        declared = Declared(
            name=request.query.text("name"),
            directory=request.query.flag("directory") if "directory" in request.query else None,
            size=request.query.number("bytes"),
            files=request.query.number("files"),
            length=request.length,
        )
        replicas = _replicas(request)
        detach = request.query.flag("detach")

        async def work(operation: Operation) -> None:
            await self._pinner.upload(
                request.chunks,
                request.content_type,
                declared,
                replicas,
                operation.emit,
                committed=operation.committed,
            )

        return answer(self._begin(request, "pin", declared.name, work), detach=detach)

    async def put(self, request: Request) -> Events:
        """Keep what a CID names."""
        wanted = request.read(PinRequest)
        cid = request.params["cid"]
        if not is_cid(cid):
            raise MeshError(
                Code.BAD_REQUEST,
                f"cannot pin {cid[:80]!a}",
                "that is no CID",
                "meshctl pin PATH   (meshctl ls NAME shows the CIDs of what is kept)",
            )

        async def work(operation: Operation) -> None:
            await self._pinner.existing(
                cid, wanted.name, wanted.replicas, operation.emit, committed=operation.committed
            )

        return answer(self._begin(request, "pin", wanted.name, work), detach=wanted.detach)

    async def get(self, request: Request) -> Entry:
        """One entry, with who holds it."""
        view = self._catalogue.view(await self._catalogue.find(request.params["ref"]))
        await self._catalogue.fill_copies([view])
        return view

    async def files(self, request: Request) -> Listing:
        """?path= inside a directory"""
        return await self._content.listing(request.params["ref"], request.query.text("path"))

    async def content(self, request: Request) -> Bytes:
        """?path=; a file's bytes, or a tar of a directory. Cut off where less came than there is."""
        found = await self._content.find(request.params["ref"], request.query.text("path"))
        headers = {"Meshd-Kind": _kind(found.stat), "Meshd-Name": quote(found.name, safe="")}
        if found.stat.directory:
            return Bytes(self._content.read(found), "application/x-tar", headers=headers)
        headers["Meshd-Size"] = str(found.stat.size)
        return Bytes(self._content.read(found), length=found.stat.size, headers=headers)

    async def recover(self, request: Request) -> Events:
        """See that the copies are made; streams as adding does."""
        numbered = await self._catalogue.find(request.params["ref"])

        async def work(operation: Operation) -> None:
            await self._pinner.make_whole(numbered.pin, operation.emit)

        return answer(self._begin(request, "recover", numbered.pin.name, work))

    async def remove(self, request: Request) -> Removed:
        """?now=1: let the content go on every node at once, which only its owner may ask; &force=1: also where it
        could not be restored"""
        now, force = request.query.flag("now"), request.query.flag("force")
        return await self._remover.remove(request.params["ref"], now=now, force=force)

    async def trash(self, request: Request) -> Trash:
        """What was removed and is still here."""
        return await self._remover.listing()

    async def restore(self, request: Request) -> Events:
        """Put it back; streams as adding does."""
        reference = request.params["ref"]

        async def work(operation: Operation) -> None:
            await self._remover.restore(reference, operation.emit)

        return answer(self._begin(request, "restore", reference, work))

    def _begin(self, request: Request, verb: str, subject: str, work: Work) -> Operation:
        """These go on without their caller; an upload does once all of it is here."""
        return self._operations.begin(verb, subject, request.principal.label, work)


def _kind(stat: Stat) -> str:
    if stat.directory:
        return "directory"
    return "symlink" if stat.symlink else "file"


def _replicas(request: Request) -> Replicas | None:
    if request.query.text("replicas") == "all":
        return "all"
    try:
        wanted = request.query.number("replicas", least=1)
    except MeshError:
        wanted = REPLICAS_MOST + 1
    if wanted is not None and wanted > REPLICAS_MOST:
        raise MeshError(
            Code.BAD_REQUEST,
            f"cannot make {request.query.text('replicas')[:40]!a} copies",
            f'expected a number from 1 to {REPLICAS_MOST}, or "all"',
            "meshctl pin --help",
        )
    return wanted
