"""The room `pins` of a mesh of one node, on engines that a test can hold up and take away."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from meshd import config, wire
from meshd.cluster.rest import Cluster
from meshd.kubo.rpc import Kubo
from meshd.mesh.identity import Identity
from meshd.mesh.peers import Peers
from meshd.mesh.store import MeshStore
from meshd.pins.parts import Outside, Pins
from tests.pins_room.engines import FakeCluster, FakeKubo

CLUSTER_ID = "12D3KooWattic"


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A socket's path must be short, which pytest's folders are not."""
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        yield Path(folder)


@pytest.fixture
async def kubo(sockets: Path) -> AsyncIterator[FakeKubo]:
    made = FakeKubo(sockets / "kubo.sock")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def cluster(sockets: Path) -> AsyncIterator[FakeCluster]:
    made = FakeCluster(sockets / "cluster.sock", rooms=(CLUSTER_ID,))
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
    peers = Peers(Identity.load_or_create(tmp_path / "own"), lambda: "127.0.0.1")
    http = Kubo(kubo.socket)
    made = Pins(
        Outside(
            config=config.parse(text, "the test"),
            store=store,
            peers=peers,
            kubo=http,
            cluster=client,
            content=(state,),
            peer_states=lambda: (),
            ready=lambda: True,
        )
    )
    yield made
    await made.stop()
    await peers.close()
    await http.close()


@dataclass
class Told:
    """What a caller was told."""

    events: list[wire.Wire] = field(default_factory=list)

    async def __call__(self, event: wire.Wire) -> None:
        self.events.append(event)

    def of(self, kind: type[wire.Wire]) -> list[wire.Wire]:
        return [e for e in self.events if isinstance(e, kind)]


@pytest.fixture
def told() -> Told:
    return Told()
