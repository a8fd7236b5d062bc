"""Whether a state folder is whole, and what a try to join that failed leaves in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshd import files
from meshd.errors import Code, MeshError
from meshd.mesh import state_check
from meshd.mesh.identity import Identity
from meshd.mesh.secret_store import SecretStore
from meshd.mesh.secrets import Secrets
from meshd.mesh.state_check import JoinTransaction
from meshd.mesh.store import MeshStore
from tests.unit.members import joiner


class Folder:
    """The state folder of a node in a mesh of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = Identity.load_or_create(path)
        self.store = MeshStore(path, self.identity.fingerprint)
        self.secrets = Secrets.generate()

    async def found(self) -> None:
        self.secrets.save(self.path)
        own = joiner(self.identity, "attic", "10.7.0.1")
        await self.store.create("archive", own, self.secrets.digest())
        for folder in ("kubo", "cluster"):
            files.private_directory(self.path / folder)
        self.write("kubo/config", {"Identity": {"PeerID": own.kubo_id}})
        self.write("kubo/version", 18)
        self.write("kubo/swarm.key", "")
        self.write("cluster/identity.json", {"id": own.cluster_id})
        self.write("cluster/service.json", {})

    def write(self, name: str, document: object) -> None:
        (self.path / name).write_text(json.dumps(document))

    def names(self) -> set[str]:
        return {str(p.relative_to(self.path)) for p in self.path.rglob("*") if p.is_file()}

    def check(self, *, store: MeshStore | None = None) -> str:
        """What is wrong; "" where all fits together. Nothing is changed by looking."""
        before = self.names()
        mesh = (store or self.store).mesh
        try:
            secrets = SecretStore(self.path, self.path, lambda _: None)
            state_check.check(self.path, mesh, self.identity.fingerprint, secrets)
        except MeshError as exc:
            return f"{exc.title}: {exc.detail}" if exc.code is Code.BAD_STATE else str(exc.code)
        finally:
            assert self.names() == before
        return ""


@pytest.fixture
async def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    await made.found()
    return made


async def test_what_fits_together_is_well(folder: Folder) -> None:
    assert folder.check() == ""


async def test_a_lost_mesh_file_is_told_where_kubo_ran_in_a_mesh(folder: Folder) -> None:
    (folder.path / "mesh.json").unlink()
    alone = MeshStore(folder.path, folder.identity.fingerprint)
    assert "says that this node is in a mesh" in folder.check(store=alone)
    (folder.path / "kubo" / "swarm.key").unlink()
    assert folder.check(store=alone) == ""


async def test_secrets_of_another_mesh_are_told(folder: Folder) -> None:
    Secrets.generate().save(folder.path)
    assert "another mesh's" in folder.check()


@pytest.mark.parametrize(
    ("file", "document"),
    [("kubo/config", {"Identity": {"PeerID": "other"}}), ("cluster/identity.json", {"id": "other"})],
)
async def test_an_engine_of_another_node_is_told(folder: Folder, file: str, document: object) -> None:
    folder.write(file, document)
    assert "it is another node's: it says other" in folder.check()
    (folder.path / file).unlink()
    assert "the file is missing, and a new one would be a stranger" in folder.check()
    folder.write(file, [])
    assert "damaged" in folder.check()


async def test_a_node_that_was_forgotten_may_have_lost_what_it_held(folder: Folder) -> None:
    await folder.store.forget(folder.identity.fingerprint, by=folder.identity.fingerprint)
    (folder.path / "kubo" / "config").unlink()
    assert folder.check() == ""


# -- a try to join -------------------------------------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path: Path) -> Folder:
    """Of a node in no mesh."""
    made = Folder(tmp_path)
    for folder in ("kubo", "cluster"):
        files.private_directory(made.path / folder)
    return made


def test_a_try_that_failed_leaves_nothing(empty: Folder) -> None:
    before = empty.names()
    attempt = JoinTransaction(empty.path)
    empty.secrets.save(empty.path)
    empty.write("kubo/config", {})
    empty.write("cluster/identity.json", {})
    attempt.undo()
    assert empty.names() == before
    assert (empty.path / "kubo").is_dir(), "it may be a mount point"


async def test_a_try_that_failed_takes_nothing_away_that_was_there_before(folder: Folder) -> None:
    before = folder.names()
    JoinTransaction(folder.path).undo()
    assert folder.names() == before


def test_engines_that_are_whole_stay_though_the_secrets_go(empty: Folder) -> None:
    for name in ("kubo/config", "kubo/version", "cluster/identity.json", "cluster/service.json"):
        empty.write(name, {})
    before = empty.names()
    attempt = JoinTransaction(empty.path)
    empty.secrets.save(empty.path)
    attempt.undo()
    assert empty.names() == before


@pytest.mark.parametrize(
    ("there", "goes"),
    [
        (("kubo/config",), True),
        (("kubo/config", "kubo/version"), False),
        (("cluster/identity.json",), True),
        (("cluster/service.json",), True),
        (("cluster/identity.json", "cluster/service.json"), False),
    ],
)
def test_what_a_crash_left_half_made_is_made_anew_and_what_is_whole_is_not(
    empty: Folder, there: tuple[str, ...], goes: bool
) -> None:
    for name in there:
        empty.write(name, {})
    JoinTransaction(empty.path)
    assert empty.names().isdisjoint(there) == goes
