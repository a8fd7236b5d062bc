"""Who holds what: many CIDs are asked for in parts, and what an answer does not say is not taken for a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshd.mesh import certificate
from meshd.mesh.store import MeshStore
from meshd.pins.copies import Asker, Copies
from meshd.pins.gate import Fetched
from meshd.wire import Confirmed, ConfirmRequest, Member, verbs
from tests.waiting import until

MOST = 500  # CIDs in one question
MANY = [f"c{number}" for number in range(2 * MOST + 1)]


def member(name: str) -> Member:
    pem = certificate.make(Ed25519PrivateKey.generate())
    return Member(
        fingerprint=certificate.fingerprint_of(pem),
        name=name,
        certificate=pem,
        address="10.0.0.1",
        peer_port=4010,
        swarm_port=4001,
        cluster_port=9096,
        kubo_id=f"kubo{name}",
        cluster_id=f"cluster{name}",
    )


class Mesh:
    """attic asks itself and barn. asked: the questions that came, whoever got them. unnamed: what barn leaves out."""

    def __init__(self, folder: Path) -> None:
        self.attic, self.barn = member("attic"), member("barn")
        self.asked: list[list[str]] = []
        self.unnamed: set[str] = set()
        self.fetching: dict[str, Fetched] = {}
        self.not_here: set[str] = set()
        self.refused: dict[str, str] = {}
        itself = cast(Any, self)  # attic's gate, and its line to barn
        self.copies = Copies(itself, MeshStore(folder, self.attic.fingerprint), itself)

    async def held(self, cids: list[str]) -> set[str]:
        self.asked.append(cids)
        return set(cids) - self.not_here

    async def call(self, peer: Member, verb: object, question: ConfirmRequest) -> Confirmed:
        assert (peer, verb) == (self.barn, verbs.CONFIRM)
        cids = question.cids
        self.asked.append(cids)
        return Confirmed(states={cid: "held" for cid in cids if cid not in self.unnamed})


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


@pytest.mark.parametrize("name", ["attic", "barn"])
@pytest.mark.parametrize("count", [1, MOST, MOST + 1, 2 * MOST + 1])
async def test_a_question_carries_500_cids_and_none_of_more_is_lost(
    count: int, name: str, mesh: Mesh
) -> None:
    cids = MANY[:count]
    answer = await mesh.copies.ask_once(mesh.attic if name == "attic" else mesh.barn, cids)
    assert mesh.asked == [cids[start : start + MOST] for start in range(0, count, MOST)]
    assert answer.states == dict.fromkeys(cids, "held")


async def test_who_waits_for_more_than_500_is_asked_for_in_questions_of_500_and_none_is_lost() -> None:
    asked: list[list[str]] = []

    async def confirm(cids: list[str]) -> Confirmed:
        asked.append(cids)
        return Confirmed(states=dict.fromkeys(cids, "held"))

    asker = Asker("barn", confirm)
    questions = [asker.open(cid) for cid in MANY]
    await until(lambda: all(question.copy.state == "held" for question in questions))
    await asker.stop()
    assert max(map(len, asked)) == MOST


async def test_held_is_said_of_what_is_pinned_and_on_the_disk_and_of_nothing_that_is_on_its_way(
    mesh: Mesh,
) -> None:
    mesh.not_here = {"c2", "c3", "c4"}
    mesh.fetching = {"c2": Fetched(7, 70)}
    mesh.refused = {"c3": "it has no room"}
    answer = await mesh.copies.local(["c1", "c2", "c3", "c4"])
    assert answer.states == {"c1": "held", "c2": "fetching", "c3": "refused", "c4": "missing"}
    assert (answer.fetched, answer.fetched_bytes) == ({"c2": 7}, {"c2": 70})
    assert answer.details == {"c3": "it has no room"}


async def test_what_a_nodes_answer_does_not_name_is_missing_there_and_not_held(mesh: Mesh) -> None:
    mesh.unnamed = {"c2"}
    table = await mesh.copies.table(["c1", "c2"], [mesh.attic, mesh.barn])
    states = {cid: {copy.node: copy.state for copy in copies} for cid, copies in table.items()}
    assert states == {
        "c1": {"attic": "held", "barn": "held"},
        "c2": {"attic": "held", "barn": "missing"},
    }
