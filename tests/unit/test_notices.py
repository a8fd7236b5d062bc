"""`X joined, invited by A`: who is news to the people of this node, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from meshd.health.notices import Notices
from meshd.mesh.identity import Identity
from meshd.mesh.store import MeshStore
from meshd.wire import Member, Roster
from tests.mesh_room.nodes import Clock
from tests.unit.members import joiner

JOINED = 1_700_000_000.0  # when this node did


@pytest.fixture
async def store(tmp_path: Path) -> MeshStore:
    """Of attic, in a mesh of its own."""
    identity = Identity.load_or_create(tmp_path)
    made = MeshStore(tmp_path, identity.fingerprint, now=Clock(JOINED))
    await made.create("archive", joiner(identity, "attic", "10.7.0.1"))
    return made


Admit = Callable[[str, float], Member]


@pytest.fixture
def admit(store: MeshStore, tmp_path: Path) -> Admit:
    """A member of that name that joined so many seconds after this node."""

    def make(name: str, after_s: float) -> Member:
        folder = tmp_path / name
        folder.mkdir()
        identity = Identity.load_or_create(folder)
        return Member(
            **joiner(identity, name, "10.7.0.2").model_dump(),
            fingerprint=identity.fingerprint,
            admitted_by=store.fingerprint,
            admitted=JOINED + after_s,
            stamp=JOINED + after_s,
        )

    return make


@pytest.fixture
def notices(store: MeshStore, tmp_path: Path) -> Notices:
    return Notices(tmp_path / "notices.json", store)


async def test_who_joined_after_this_node_is_news_and_who_was_there_is_not(
    store: MeshStore, notices: Notices, admit: Admit
) -> None:
    await store.merge(Roster(members=[admit("barn", -60.0), admit("cellar", 60.0)]))
    assert notices.unread() == (("cellar", "attic", "approved"),)


async def test_what_was_read_is_no_news_any_more_and_what_was_not_shown_is(
    store: MeshStore, notices: Notices, admit: Admit
) -> None:
    await store.merge(Roster(members=[admit("cellar", 60.0), admit("dairy", 70.0)]))
    notices.mark_read(["cellar"])
    assert notices.unread() == (("dairy", "attic", "approved"),)


async def test_what_was_read_stays_read_after_a_restart(
    store: MeshStore, notices: Notices, admit: Admit, tmp_path: Path
) -> None:
    await store.merge(Roster(members=[admit("cellar", 60.0)]))
    notices.mark_read(["cellar"])
    again = Notices(tmp_path / "notices.json", store)
    assert again.unread() == ()


async def test_without_a_mesh_there_is_no_news(store: MeshStore, notices: Notices, admit: Admit) -> None:
    await store.merge(Roster(members=[admit("cellar", 60.0)]))
    await store.clear()
    assert notices.unread() == ()


async def test_who_was_forgotten_is_no_news(store: MeshStore, notices: Notices, admit: Admit) -> None:
    member = admit("cellar", 60.0)
    await store.merge(Roster(members=[member]))
    await store.forget(member.fingerprint, by=store.fingerprint)
    assert notices.unread() == ()
