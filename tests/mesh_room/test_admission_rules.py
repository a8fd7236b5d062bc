"""What a node that joins takes for an answer, and which statements of a roster nobody takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.errors import Code
from meshd.mesh import roster
from meshd.mesh.admission import why_unusable
from meshd.mesh.secrets import Secrets
from meshd.mesh.store import MeshStore
from meshd.wire import Admitted
from tests.mesh_room.nodes import Node, refusal_of

Pair = tuple[Node, Node]


def answer(attic: Node) -> Admitted:
    """What attic answers to a node that it admits."""
    mesh, secrets = attic.store.mesh, Secrets.load(attic.folder)
    assert mesh is not None
    return Admitted(
        mesh_name=mesh.name,
        mesh_id=mesh.id,
        created=mesh.created,
        swarm_key=secrets.swarm_key,
        cluster_secret=secrets.cluster_secret,
        roster=attic.store.roster(),
    )


async def test_an_answer_is_about_the_two_that_talked(pair: Pair) -> None:
    attic, barn = pair
    assert why_unusable(answer(attic), attic.fingerprint, barn.fingerprint) == ""
    assert why_unusable(answer(attic), attic.fingerprint, "0" * 64) == "it is about other members"
    await attic.store.forget(barn.fingerprint, by=attic.fingerprint)
    assert why_unusable(answer(attic), attic.fingerprint, barn.fingerprint) == "it is about other members"


async def test_an_answer_without_secrets_is_of_no_use_and_is_not_quoted(pair: Pair) -> None:
    told = answer(pair[0]).model_copy(update={"swarm_key": "half a key"})
    assert why_unusable(told, pair[0].fingerprint) == "the swarm key is not in kubo's format"


async def test_a_node_that_was_forgotten_does_not_become_a_member_by_an_answer(
    pair: Pair, tmp_path: Path
) -> None:
    attic, barn = pair
    await attic.store.forget(barn.fingerprint, by=attic.fingerprint)
    folder = tmp_path / "anew"
    folder.mkdir()
    anew = MeshStore(folder, barn.fingerprint)
    assert (await refusal_of(anew.adopt(answer(attic)))).code is Code.BAD_REQUEST
    assert anew.mesh is None


@pytest.mark.parametrize(
    "address", ["8056c2e21", "8056c2e21c1", "8056C2E21C", "../../../..", "\x1b[2J567890"]
)
async def test_a_zerotier_address_that_is_none_is_not_taken(pair: Pair, address: str) -> None:
    """It is put into the path of a request to the controller of the network."""
    attic, barn = pair
    member = attic.view_of(barn)
    roster.check_member(member.model_copy(update={"zerotier": "8056c2e21c"}))
    with pytest.raises(ValueError, match="ZeroTier"):
        roster.check_member(member.model_copy(update={"zerotier": address}))
