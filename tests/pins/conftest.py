"""The room `pins` under test: of the first of three nodes (`attic`), or of a mesh of one node (`pins`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from meshd import config, wire
from meshd.cluster.datastore import Datastore
from meshd.cluster.rest import Cluster
from meshd.kubo.rpc import Kubo
from meshd.mesh.identity import Identity
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.store import MeshStore
from meshd.pins.wiring import Pins, PinsDeps
from tests.engines.machine import short_folder
from tests.mesh_room.conftest import clock, make_node
from tests.mesh_room.nodes import Node
from tests.pins.attic import Attic
from tests.pins.fake_engines import FakeCluster, FakeKubo, cid_of
from tests.pins.told import Told

__all__ = ["clock", "make_node"]

CLUSTER_ID = "12D3KooWattic"
CONTENT = cid_of(b"the content")  # another node has it

MakeAttic = Callable[..., Awaitable[Attic]]


@pytest.fixture
async def nodes(make_node: Callable[..., Node], tmp_path: Path) -> tuple[Node, Node, Node]:
    """attic, barn and cellar, in one mesh; each knows the others. Among reachable ones attic is elected."""
    folders = [tmp_path / f"machine{number}" for number in range(3)]
    for folder in folders:
        folder.mkdir()
    folders.sort(key=lambda folder: Identity.load_or_create(folder).fingerprint)
    attic, barn, cellar = (
        make_node(*each) for each in zip(("attic", "barn", "cellar"), folders, strict=True)
    )
    for node in (attic, barn, cellar):
        await node.start()
    await attic.found()
    await barn.join(await attic.invite())
    await cellar.join(await attic.invite())
    await barn.store.merge(attic.store.roster())
    return attic, barn, cellar


@pytest.fixture
async def make_attic(nodes: tuple[Node, Node, Node]) -> AsyncIterator[MakeAttic]:
    """make_attic(trash="1s"): this node, with these keys of [pins]."""
    made: list[Attic] = []
    with short_folder() as folder:

        async def make(**settings: str) -> Attic:
            made.append(Attic(folder, nodes[0], list(nodes[1:]), **settings))
            await made[-1].start()
            return made[-1]

        yield make
        for attic in made:
            await attic.stop()


@pytest.fixture
async def attic(make_attic: MakeAttic) -> Attic:
    return await make_attic()


@pytest.fixture
def barn(nodes: tuple[Node, Node, Node]) -> Node:
    return nodes[1]


@pytest.fixture
def cellar(nodes: tuple[Node, Node, Node]) -> Node:
    return nodes[2]


# -- a node alone --------------------------------------------------------------------------------------------------


@pytest.fixture
def sockets() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
async def kubo(sockets: Path) -> AsyncIterator[FakeKubo]:
    made = FakeKubo(sockets / "kubo.sock")
    made.elsewhere[CONTENT] = None
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def cluster(sockets: Path) -> AsyncIterator[FakeCluster]:
    made = FakeCluster(sockets / "cluster.sock")
    made.measured = {CLUSTER_ID}
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def client(cluster: FakeCluster) -> AsyncIterator[Cluster]:
    made = Cluster(cluster.socket)
    yield made
    await made.close()


@pytest.fixture
async def store(tmp_path: Path) -> MeshStore:
    """A mesh of this node, attic, alone."""
    own = tmp_path / "own"
    own.mkdir()
    identity = Identity.load_or_create(own)
    made = MeshStore(own, identity.fingerprint)
    facts = wire.Joiner(
        name="attic",
        certificate=identity.certificate,
        address="127.0.0.1",
        peer_port=1,
        swarm_port=2,
        cluster_port=3,
        kubo_id="12D3KooWkubo",
        cluster_id=CLUSTER_ID,
    )
    await made.create("archive", facts)
    return made


@pytest.fixture
async def pins(
    kubo: FakeKubo, client: Cluster, store: MeshStore, tmp_path: Path, sockets: Path
) -> AsyncIterator[Pins]:
    state = tmp_path / "state"
    state.mkdir()
    text = f'[paths]\nstate = "{state}"\nrun = "{sockets}"\n[storage]\nreserve = "0B"\n[pins]\ntrash = "1s"\n'
    peers = PeerClient(Identity.load_or_create(tmp_path / "own"), lambda: "127.0.0.1")
    http = Kubo(kubo.socket)
    made = Pins(
        PinsDeps(
            config=config.parse(text, "the test"),
            store=store,
            peers=peers,
            kubo=http,
            cluster=client,
            datastore=Datastore(sockets / "cluster"),
            content=(state,),
            peer_states=lambda: (),
            ready=lambda: True,
        )
    )
    yield made
    await made.stop()
    await peers.close()
    await http.close()


@pytest.fixture
def told() -> Told:
    return Told()
