"""The rules of membership changes but for admission: what a state may become, and what it may not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from meshd.errors import Code, MeshError
from meshd.mesh import roster, transitions
from meshd.mesh.identity import Identity
from meshd.mesh.state import MeshState
from meshd.wire import Admitted, Joiner, Member, Roster
from tests.unit.members import joiner

NOW = 1_000_000.0
DAY_S = 86400.0
MESH_ID = "a" * 32


@dataclasses.dataclass
class Nodes:
    """attic founded the mesh, barn is a member of it; `state` is attic's. own: attic's document."""

    attic: str
    barn: str
    own: Joiner
    state: MeshState

    def admitted(self, **other: object) -> Admitted:
        """What barn is answered when it joins."""
        members = list(self.state.entries.values())
        said = Admitted(
            mesh_name="archive",
            mesh_id=MESH_ID,
            created=NOW,
            swarm_key="",
            cluster_secret="",
            roster=Roster(members=members),
        )
        return said.model_copy(update=other)

    def adopt(self, admitted: Admitted) -> tuple[MeshState, bool]:
        members = admitted.roster.members
        return transitions.adopt(
            None, admitted, members, secrets_digest="", network="", me=self.barn, now=NOW
        )

    def merge(self, *theirs: Member, own: Joiner | None = None) -> tuple[MeshState, bool]:
        return transitions.merge(self.state, theirs, own=own, leaving=0.0, me=self.attic, now=NOW)


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    attic, barn = (Identity.load_or_create(tmp_path / name) for name in ("attic", "barn"))
    own = joiner(attic, "attic", "10.0.0.1")
    state = transitions.found(
        None,
        own,
        name="archive",
        mesh_id=MESH_ID,
        secrets_digest="",
        network="",
        me=attic.fingerprint,
        now=NOW,
    )
    member = roster.member_of(
        joiner(barn, "barn", "10.0.0.2"),
        barn.fingerprint,
        admitted_by=attic.fingerprint,
        admitted=NOW,
        stamp=NOW,
    )
    entries = {**state.entries, barn.fingerprint: member}
    return Nodes(attic.fingerprint, barn.fingerprint, own, dataclasses.replace(state, entries=entries))


def test_the_answer_that_admits_makes_a_member(nodes: Nodes) -> None:
    state, new = nodes.adopt(nodes.admitted())
    assert new
    assert (state.name, state.id) == ("archive", MESH_ID)
    assert state.entries == nodes.state.entries


@pytest.mark.parametrize("wrong", [{"mesh_name": "../etc"}, {"mesh_name": ""}, {"mesh_id": "a/b"}])
def test_an_answer_with_a_name_that_no_mesh_can_have_is_refused(nodes: Nodes, wrong: dict[str, str]) -> None:
    with pytest.raises(MeshError) as refused:
        nodes.adopt(nodes.admitted(**wrong))
    assert refused.value.code is Code.BAD_REQUEST


def test_an_answer_in_which_this_node_is_forgotten_is_refused(nodes: Nodes) -> None:
    gone, _ = transitions.forget(nodes.state, nodes.barn, by=nodes.attic, relying_on=(), now=NOW + 1)
    with pytest.raises(MeshError) as refused:
        nodes.adopt(nodes.admitted(roster=Roster(members=list(gone.entries.values()))))
    assert refused.value.code is Code.BAD_REQUEST


def test_a_forgotten_node_says_nothing_more_of_itself(nodes: Nodes) -> None:
    gone = roster.forgotten(nodes.state.entries[nodes.attic], nodes.barn, NOW + 1)
    moved = nodes.own.model_copy(update={"address": "10.0.0.9"})
    state, new = nodes.merge(gone, own=moved)
    assert new
    assert state.entries[nodes.attic] == gone
    assert transitions.restate(state, moved, leaving=0.0, me=nodes.attic, now=NOW + 2) == (state, False)


def test_a_mark_that_nothing_could_take_back_is_not_believed(nodes: Nodes) -> None:
    barn = nodes.state.entries[nodes.barn]
    near = roster.with_leaving_mark(barn, NOW, NOW + DAY_S / 2)
    far = roster.with_leaving_mark(barn, NOW, NOW + 2 * DAY_S)
    assert nodes.merge(near)[0].entries[nodes.barn].leaving_since == NOW
    assert nodes.merge(far)[0].entries[nodes.barn].leaving_since == 0.0


def test_nobody_is_forgotten_relying_on_a_node_that_does_not_stay(nodes: Nodes) -> None:
    state = nodes.state
    with pytest.raises(MeshError) as refused:
        transitions.forget(state, nodes.barn, by=nodes.attic, relying_on=("f" * 64,), now=NOW)
    assert refused.value.code is Code.BUSY
    forgotten, new = transitions.forget(state, nodes.barn, by=nodes.attic, relying_on=(), now=NOW)
    assert new
    assert forgotten.entries[nodes.barn].forgotten
    assert transitions.forget(forgotten, nodes.barn, by=nodes.attic, relying_on=(), now=NOW) == (
        forgotten,
        False,
    )
