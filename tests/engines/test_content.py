"""Reading what entries hold: through the catalogue of a real cluster, from a real kubo."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from meshd.cluster.datastore import Datastore
from meshd.errors import Code, MeshError
from meshd.files import private_directory
from meshd.mesh.identity import Identity
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.store import MeshStore
from meshd.model import Pin
from meshd.pins.catalogue import Catalogue
from meshd.pins.content import Content
from meshd.pins.copies import Copies
from meshd.pins.entries import to_node
from meshd.pins.pinset import Pinset
from meshd.wire import Joiner
from tests.engines.machine import Machine, Part, directory, noise, symlink
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

BIG = noise(3 * 2**20 + 5)


class Library:
    """A node of a mesh of one, with a file and a directory kept."""

    def __init__(self, node: Machine) -> None:
        self.node = node
        # A folder of its own: no key is made beside engines that are there already.
        own = private_directory(node.state.parent / "own")
        self.identity = Identity.load_or_create(own)
        self.store = MeshStore(own, self.identity.fingerprint)
        self.peers = PeerClient(self.identity, lambda: node.address)
        self.copies = Copies(node.gate, self.store, self.peers)
        self.catalogue = Catalogue(
            Pinset(node.cluster, Datastore(node.state / "cluster"), None), self.store, self.copies, lambda: ()
        )
        self.content = Content(node.kubo, self.catalogue)

    async def found(self) -> None:
        me = Joiner(
            name="attic",
            certificate=self.identity.certificate,
            address=self.node.address,
            peer_port=1,
            swarm_port=self.node.kubo_port,
            cluster_port=self.node.cluster_port,
            kubo_id=(await self.node.kubo.id())["ID"],
            cluster_id=(await self.node.cluster.id())["id"],
        )
        await self.store.create("archive", me)

    async def keep(self, name: str, *parts: Part, time: float = 1.0) -> Pin:
        added = await self.node.add(*parts)
        pin = Pin("", name, self.identity.fingerprint, added.root, added.size, time, "all")
        pin = dataclasses.replace(pin, cid=await self.node.kubo.put_entry(to_node(pin)))
        await self.node.cluster.pin(pin)

        async def there() -> bool:
            return await self.node.cluster.allocation(pin.cid) is not None

        async def pinned() -> bool:
            return pin.cid in {p.cid for p in await self.node.kubo.pins()}

        await until(there, 20)
        await until(
            pinned, 20
        )  # the cluster has it pinned in its own time: also after a test has unpinned it
        return pin

    async def read(self, reference: str, path: str = "") -> bytes:
        found = await self.content.find(reference, path)
        return b"".join([chunk async for chunk in self.content.read(found)])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def library(node: Machine) -> AsyncIterator[Library]:
    made = Library(node)
    await made.found()
    await made.keep("big.bin", Part("big.bin", BIG))
    await made.keep("nothing", Part("nothing", b""))
    await made.keep("minutes.pdf", Part("minutes.pdf", b"old"), time=1.0)
    await made.keep("minutes.pdf", Part("minutes.pdf", b"newer"), time=2.0)
    await made.keep(
        "club",
        directory("club"),
        Part("club/a.txt", b"12345"),
        directory("club/empty"),
        directory("club/sub"),
        Part("club/sub/ä ? #.txt", b"123"),
        symlink("club/link", "a.txt"),
    )
    yield made
    await made.peers.close()


# -- files ---------------------------------------------------------------------------------------------------------


async def test_a_file_is_read_as_it_was(library: Library) -> None:
    assert await library.read("big.bin") == BIG


async def test_an_empty_file_is_read_as_nothing(library: Library) -> None:
    assert await library.read("nothing") == b""


async def test_an_older_version_can_be_read_and_a_cid_too(library: Library) -> None:
    assert await library.read("minutes.pdf") == b"newer"
    assert await library.read("minutes.pdf@2") == b"old"
    older = (await library.content.find("minutes.pdf@2")).numbered.pin.cid
    assert await library.read(older) == b"old"


async def test_what_was_found_says_what_it_is(library: Library) -> None:
    found = await library.content.find("big.bin")
    assert (found.name, found.stat.size, found.stat.directory) == ("big.bin", len(BIG), False)


# -- directories ---------------------------------------------------------------------------------------------------


async def test_a_directory_is_listed(library: Library) -> None:
    listing = await library.content.listing("club")
    assert listing.directory
    assert [(i.name, i.size, i.directory) for i in listing.items if i.name != "link"] == [
        ("a.txt", 5, False),
        ("empty", 0, True),
        ("sub", 0, True),
    ]
    assert "link" in [i.name for i in listing.items]
    assert (listing.entry.name, listing.entry.owner, listing.entry.mine) == ("club", "attic", True)


async def test_a_place_inside_is_listed_and_read(library: Library) -> None:
    listing = await library.content.listing("club", "/sub/")
    assert (listing.path, [i.name for i in listing.items]) == ("sub", ["ä ? #.txt"])
    assert await library.read("club", "sub/ä ? #.txt") == b"123"
    assert (await library.content.listing("club", "empty")).items == []


async def test_a_file_is_its_own_only_item(library: Library) -> None:
    listing = await library.content.listing("club", "a.txt")
    assert (listing.directory, [(i.name, i.size) for i in listing.items]) == (False, [("a.txt", 5)])


async def test_a_directory_is_read_as_an_archive_of_all_that_is_in_it(library: Library) -> None:
    with tarfile.open(fileobj=io.BytesIO(await library.read("club"))) as archive:
        found = {m.name.partition("/")[2]: m for m in archive}
        assert set(found) == {"", "a.txt", "empty", "sub", "sub/ä ? #.txt", "link"}
        assert found["link"].issym()
        assert found["link"].linkname == "a.txt"
        assert found["empty"].isdir()
        member = archive.extractfile(found["a.txt"])
        assert member is not None
        assert member.read() == b"12345"


# -- what is not there ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("club", "b.txt"),
        ("club", "a.txt/x"),
        ("club", "sub/none"),
        ("big.bin", "x"),
        ("none", ""),
        ("club@9", ""),
    ],
)
async def test_what_is_not_there_is_not_found(reference: str, path: str, library: Library) -> None:
    with pytest.raises(MeshError) as caught:
        await library.content.find(reference, path)
    assert caught.value.code is Code.NOT_FOUND
    assert caught.value.hint.startswith("meshctl ls")


@pytest.mark.parametrize("path", ["..", "../club", "sub/../../x", "./a.txt"])
async def test_a_path_does_not_climb_out(path: str, library: Library) -> None:
    with pytest.raises(MeshError) as caught:
        await library.content.find("club", path)
    assert caught.value.code is Code.BAD_REQUEST


async def test_content_that_no_node_gives_is_told_as_such(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks were lost here, and there is nobody else to ask."""
    pin = await library.keep("lost.bin", Part("lost.bin", noise(2 * 2**20 + 1)))
    await library.node.kubo.unpin(pin.cid)
    await library.node.kubo.unpin(pin.root)
    await library.node.kubo.collect_garbage()
    stat = library.node.kubo.stat
    monkeypatch.setattr(library.node.kubo, "stat", lambda path: stat(path, timeout=0.3))
    with pytest.raises(MeshError) as caught:
        await library.content.find("lost.bin")
    assert caught.value.code is not Code.NOT_FOUND
    assert "no reachable node gives its content" in caught.value.detail


async def test_what_comes_short_is_not_taken_for_the_whole(library: Library) -> None:
    found = await library.content.find("big.bin")
    longer = dataclasses.replace(found, stat=dataclasses.replace(found.stat, size=len(BIG) + 1))
    with pytest.raises(MeshError) as caught:
        _ = [chunk async for chunk in library.content.read(longer)]
    assert caught.value.code is Code.PEER_UNREACHABLE


# -- the catalogue -------------------------------------------------------------------------------------------------


async def test_the_catalogue_is_shown_by_name_with_who_holds_what(library: Library) -> None:
    page = await library.catalogue.page(name="minutes", copies=True)
    assert [(e.name, e.version) for e in page.entries] == [("minutes.pdf", 1), ("minutes.pdf", 2)]
    assert [[(c.node, c.state) for c in e.copies] for e in page.entries] == [[("attic", "held")]] * 2
    assert (page.total, page.next) == (2, None)


async def test_the_catalogue_comes_in_pages(library: Library) -> None:
    whole = [e.cid for e in (await library.catalogue.page()).entries]
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await library.catalogue.page(limit=2, after=after)
        seen += [e.cid for e in page.entries]
        after = page.next
        assert len(seen) <= len(whole)
    assert seen == whole
