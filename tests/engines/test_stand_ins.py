"""What tests/pins_room has in place of kubo and the cluster answers as they do: one suite, asked of both."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from meshd.cluster.rest import Cluster
from meshd.errors import Code, MeshError
from meshd.kubo.rpc import Kubo, KuboError
from meshd.model import Pin
from meshd.pins import entries
from tests.engines.machine import Machine, short_folder
from tests.pins_room.engines import FakeCluster, FakeKubo
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Engines:
    kubo: Kubo
    cluster: Cluster
    peer: str  # id of the cluster's only member


@pytest_asyncio.fixture(params=["the stand-in", "the original"], scope="module", loop_scope="module")
async def engines(request: pytest.FixtureRequest, node: Machine) -> AsyncIterator[Engines]:
    if request.param == "the original":
        peer = (await node.cluster.id())["id"]
        await until(lambda: _knows_its_room(node.cluster, peer), 20)
        yield Engines(node.kubo, node.cluster, peer)
        return
    with short_folder() as folder:
        kubo, cluster = FakeKubo(folder / "k"), FakeCluster(folder / "c", ("12D3KooWattic",))
        await kubo.start()
        await cluster.start()
        made = Engines(Kubo(kubo.socket), Cluster(cluster.socket), "12D3KooWattic")
        yield made
        await made.kubo.close()
        await made.cluster.close()
        await kubo.stop()
        await cluster.stop()


async def _knows_its_room(cluster: Cluster, peer: str) -> bool:
    return peer in await cluster.with_room()


async def put(engines: Engines) -> tuple[str, dict[str, str]]:
    document = {"nonce": secrets.token_hex(16)}
    return await engines.kubo.put_entry(document), document


async def test_what_is_put_has_a_cid_and_can_be_read(engines: Engines) -> None:
    cid, document = await put(engines)
    assert entries.is_cid(cid)
    assert await engines.kubo.has(cid)
    assert await engines.kubo.get_node(cid, offline=True) == document


async def test_what_is_not_here_is_said_to_be_not_found(engines: Engines) -> None:
    cid = "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
    assert not await engines.kubo.has(cid)
    with pytest.raises(KuboError) as caught:
        await engines.kubo.get_node(cid, offline=True)
    assert "not found" in caught.value.message


async def test_a_pin_has_its_name_until_it_is_taken_away(engines: Engines) -> None:
    cid, _ = await put(engines)
    assert await engines.kubo.pinned([cid]) == set()
    await engines.kubo.pin(cid, "minutes ä.pdf")
    assert await engines.kubo.pinned([cid]) == {cid}
    assert {p.cid: p.name for p in await engines.kubo.pins()}[cid] == "minutes ä.pdf"
    assert await engines.kubo.unpin(cid) is True
    assert await engines.kubo.unpin(cid) is False
    assert await engines.kubo.pinned([cid]) == set()


async def test_a_collection_takes_what_is_not_pinned(engines: Engines) -> None:
    """Also an entry that was just put: this is why none is made while one runs."""
    (kept, _), (gone, _) = await put(engines), await put(engines)
    await engines.kubo.pin(kept)
    assert await engines.kubo.collect_garbage() >= 1
    assert await engines.kubo.has(kept)
    assert not await engines.kubo.has(gone)


async def test_a_record_is_read_back_as_it_was_given_until_it_is_taken_out(engines: Engines) -> None:
    cid, _ = await put(engines)
    await engines.kubo.pin(cid)
    pin = Pin(cid, "minutes ä.pdf", "f1", cid, 2**53 + 1, 1700000000.125, 1, True, (engines.peer,), 7)
    cluster = engines.cluster
    assert await cluster.allocation(cid) is None
    await cluster.pin(pin)
    await until(lambda: _is(cluster, cid, pin), 20)
    assert pin in await cluster.allocations()
    assert await cluster.unpin(cid) is True
    await until(lambda: _is(cluster, cid, None), 20)
    assert pin not in await cluster.allocations()
    assert await cluster.unpin(cid) is False


async def _is(cluster: Cluster, cid: str, pin: Pin | None) -> bool:
    return await cluster.allocation(cid) == pin


async def test_a_path_is_no_record(engines: Engines) -> None:
    with pytest.raises(MeshError) as caught:
        await engines.cluster.allocation("a/b")
    assert caught.value.code is Code.BAD_REQUEST
