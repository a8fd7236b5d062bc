"""mesh.json: what is shown was written, and what was written is found again."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from meshd.errors import Code, MeshError
from meshd.mesh import invites, state
from meshd.mesh.identity import Identity
from meshd.mesh.store import MeshStore
from meshd.wire import Admitted, Joiner, Roster
from tests.mesh_room.nodes import Clock
from tests.waiting import until


class Home:
    """One node's folder, identity and store."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder, self.clock = folder, clock
        self.identity = Identity.load_or_create(folder)
        self.store = self.open()

    @property
    def fingerprint(self) -> str:
        return self.identity.fingerprint

    @property
    def file(self) -> Path:
        return self.folder / "mesh.json"

    def open(self) -> MeshStore:
        return MeshStore(self.folder, self.fingerprint, now=self.clock)

    def joiner(self, name: str, **other: object) -> Joiner:
        facts: dict[str, object] = {
            "name": name,
            "certificate": self.identity.certificate,
            "address": "10.0.0.1",
            "peer_port": 4010,
            "swarm_port": 4001,
            "cluster_port": 9096,
            "kubo_id": "",
            "cluster_id": "",
        }
        return Joiner.model_validate(facts | other)


@pytest.fixture
def home(tmp_path: Path, clock: Clock) -> Callable[[str], Home]:
    return lambda name: Home(tmp_path / name, clock)


@pytest.fixture
async def attic(home: Callable[[str], Home]) -> Home:
    made = home("attic")
    await made.store.create("archive", made.joiner("attic"))
    return made


async def _ticket(home: Home, expires_s: float = 60.0) -> tuple[str, str]:
    line = (await home.store.issue_invite(expires_s)).invite
    assert line is not None
    invitation = invites.decode(line, home.clock())
    return invitation.invite_id, invitation.token


def _answer(home: Home) -> Admitted:
    mesh = home.store.mesh
    assert mesh is not None
    return Admitted(
        mesh_name=mesh.name,
        mesh_id=mesh.id,
        created=mesh.created,
        swarm_key="",
        cluster_secret="",
        roster=home.store.roster(),
    )


async def _code(coroutine: object) -> Code:
    with pytest.raises(MeshError) as caught:
        await coroutine  # type: ignore[misc]
    assert caught.value.title.startswith("cannot ")
    return caught.value.code


async def test_found_and_find_again(attic: Home) -> None:
    assert attic.file.stat().st_mode & 0o777 == 0o600
    again = attic.open()
    assert again.mesh == attic.store.mesh
    assert again.digest() == attic.store.digest() != ""
    assert [member.name for member in again.members()] == ["attic"]
    assert again.me().admitted_by == attic.fingerprint
    assert await _code(attic.store.create("other", attic.joiner("attic"))) is Code.IN_OTHER_MESH


async def test_in_no_mesh(home: Callable[[str], Home]) -> None:
    store = home("attic").store
    assert store.mesh is None
    assert (store.members(), store.peers(), store.invites(), store.digest()) == ([], [], [], "")
    assert store.roster() == Roster(members=[])
    assert not store.forgotten
    assert store.by_name("attic") is None
    assert await _code(store.issue_invite(1.0)) is Code.NO_MESH
    assert await _code(store.merge(Roster(members=[]))) is Code.NO_MESH
    with pytest.raises(MeshError):
        store.me()


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 64])
async def test_bad_names(home: Callable[[str], Home], name: str) -> None:
    made = home("attic")
    assert await _code(made.store.create(name, made.joiner("attic"))) is Code.BAD_NAME
    assert await _code(made.store.create("archive", made.joiner(name))) is Code.BAD_NAME
    assert not made.file.exists()


# -- the file ----------------------------------------------------------------------------------------------------------


async def _damage(attic: Home, how: str, home: Callable[[str], Home]) -> None:
    text = attic.file.read_text()
    document = json.loads(text)
    if how == "foreign":
        other = home("other")
        await other.store.create("archive", other.joiner("other"))
        text = other.file.read_text()
    elif how == "shape":
        del document["roster"][0]["certificate"]
        text = json.dumps(document)
    elif how == "certificate":
        document["roster"][0]["certificate"] = "x"
        text = json.dumps(document)
    elif how == "newer":
        text = json.dumps(document | {"version": 2})
    else:
        text = {"empty": "", "cut": text[: len(text) // 2], "list": "[]", "zeros": "\0" * 100}[how]
    attic.file.write_text(text)


@pytest.mark.parametrize("how", ["empty", "cut", "list", "zeros", "shape", "certificate", "foreign", "newer"])
async def test_a_damaged_file_is_said_and_left_as_it_is(
    attic: Home, home: Callable[[str], Home], how: str
) -> None:
    await _damage(attic, how, home)
    before = attic.file.read_bytes()
    with pytest.raises(MeshError) as caught:
        attic.open()
    assert caught.value.code is Code.BAD_STATE
    assert str(attic.file) in caught.value.title
    assert caught.value.detail
    assert caught.value.hint
    assert attic.file.read_bytes() == before


async def test_bytes_that_are_no_text(attic: Home) -> None:
    attic.file.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(MeshError) as caught:
        attic.open()
    assert caught.value.code is Code.BAD_STATE


# -- admitting ---------------------------------------------------------------------------------------------------------


async def test_a_token_admits_one_node(attic: Home, home: Callable[[str], Home]) -> None:
    barn, cellar = home("barn"), home("cellar")
    invite_id, token = await _ticket(attic)
    member, new = await attic.store.admit(invite_id, token, barn.joiner("barn"))
    assert new
    assert (member.fingerprint, member.admitted_by) == (barn.fingerprint, attic.fingerprint)
    assert await attic.store.admit(invite_id, token, barn.joiner("barn")) == (member, False)
    assert await _code(attic.store.admit(invite_id, token, cellar.joiner("cellar"))) is Code.INVITE_USED
    again = attic.open()
    assert {member.name for member in again.members()} == {"attic", "barn"}
    assert again.invites()[0].used_by == "barn"
    assert token not in attic.file.read_text()


async def test_a_retry_from_another_address_and_after_the_time(
    attic: Home, home: Callable[[str], Home]
) -> None:
    barn = home("barn")
    invite_id, token = await _ticket(attic)
    await attic.store.admit(invite_id, token, barn.joiner("barn"))
    attic.clock.at += 1000
    member, new = await attic.store.admit(invite_id, token, barn.joiner("barn", address="10.0.0.7"))
    assert (member.address, new) == ("10.0.0.7", False)


async def test_what_does_not_admit(attic: Home, home: Callable[[str], Home]) -> None:
    barn = home("barn")
    invite_id, token = await _ticket(attic)
    revoked_id, revoked_token = await _ticket(attic)
    await attic.store.revoke(revoked_id)
    admit = attic.store.admit
    before = attic.file.read_bytes()
    assert await _code(admit("0" * 8, token, barn.joiner("barn"))) is Code.BAD_INVITE
    assert await _code(admit(invite_id, "0" * 64, barn.joiner("barn"))) is Code.BAD_INVITE
    assert await _code(admit(revoked_id, revoked_token, barn.joiner("barn"))) is Code.BAD_INVITE
    assert await _code(admit(invite_id, token, barn.joiner("Attic"))) is Code.NAME_TAKEN
    assert await _code(admit(invite_id, token, barn.joiner("a b"))) is Code.BAD_NAME
    assert await _code(admit(invite_id, token, barn.joiner("barn", address="0.0.0.0"))) is Code.BAD_REQUEST
    attic.clock.at += 60
    assert await _code(admit(invite_id, token, barn.joiner("barn"))) is Code.INVITE_EXPIRED
    assert attic.file.read_bytes() == before
    assert attic.store.peers() == []


async def test_revoke_and_list(attic: Home) -> None:
    invite_id, _ = await _ticket(attic)
    assert [invite.id for invite in attic.store.invites()] == [invite_id]
    assert attic.store.invites()[0].invite is None
    await attic.store.revoke(invite_id)
    assert attic.store.invites() == []
    assert await _code(attic.store.revoke(invite_id)) is Code.NOT_FOUND
    assert attic.open().invites() == []


async def test_old_invites_are_dropped(attic: Home) -> None:
    await _ticket(attic)
    attic.clock.at += 40 * 86400
    await _ticket(attic)
    assert len(attic.store.invites()) == 1


# -- writes that fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["write", "rename"])
async def test_a_failed_write_admits_nobody_and_spends_nothing(
    attic: Home, home: Callable[[str], Home], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    barn = home("barn")
    invite_id, token = await _ticket(attic)
    before = attic.file.read_bytes()
    shown = attic.store.mesh
    told: list[int] = []
    attic.store.subscribe(lambda: told.append(1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync" if step == "write" else "replace", full)
        assert await _code(attic.store.admit(invite_id, token, barn.joiner("barn"))) is Code.DISK_FLOOR
    assert attic.store.mesh is shown
    assert attic.file.read_bytes() == before
    assert told == []
    assert [path.name for path in attic.folder.iterdir() if path.name.endswith(".tmp")] == []
    cellar = home("cellar")  # the token is still good, for anybody
    _, new = await attic.store.admit(invite_id, token, cellar.joiner("cellar"))
    assert new
    assert told == [1]


async def test_a_write_that_is_refused_names_the_file_itself_and_says_what_helps(
    attic: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: Path, *options: int, **more: int) -> int:
        if ".mesh.json." in str(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, *options, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(MeshError) as caught:
        await attic.store.set_leaving(True)
    assert str(caught.value) == f"cannot write {attic.file}: Read-only file system"
    assert f"findmnt -T {attic.folder}" in caught.value.hint


async def test_a_caller_that_goes_away_stops_nothing(
    attic: Home, home: Callable[[str], Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    barn = home("barn")
    invite_id, token = await _ticket(attic)
    writing, go_on, write = threading.Event(), threading.Event(), state.write

    def slow(path: Path, mesh: state.MeshState) -> None:
        writing.set()
        assert go_on.wait(30)
        write(path, mesh)

    monkeypatch.setattr(state, "write", slow)
    task = asyncio.create_task(attic.store.admit(invite_id, token, barn.joiner("barn")))
    await until(writing.is_set)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    go_on.set()
    await attic.store.settled()
    assert attic.open().mesh == attic.store.mesh
    assert len(attic.store.members()) == 2


async def test_two_with_one_token_at_the_same_moment(attic: Home, home: Callable[[str], Home]) -> None:
    barn, cellar = home("barn"), home("cellar")
    invite_id, token = await _ticket(attic)
    answers = await asyncio.gather(
        attic.store.admit(invite_id, token, barn.joiner("barn")),
        attic.store.admit(invite_id, token, cellar.joiner("cellar")),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if isinstance(answer, MeshError)]
    assert [error.code for error in refused] == [Code.INVITE_USED]
    assert len(attic.store.members()) == 2


# -- the roster --------------------------------------------------------------------------------------------------------


async def _join(attic: Home, other: Home, name: str) -> None:
    invite_id, token = await _ticket(attic)
    await attic.store.admit(invite_id, token, other.joiner(name))
    assert await other.store.adopt(_answer(attic))


async def test_adopt(attic: Home, home: Callable[[str], Home]) -> None:
    barn, cellar = home("barn"), home("cellar")
    await _join(attic, barn, "barn")
    assert barn.store.digest() == attic.store.digest()
    assert not await barn.store.adopt(_answer(attic))
    assert await _code(cellar.store.adopt(_answer(attic))) is Code.BAD_REQUEST
    await cellar.store.create("other", cellar.joiner("cellar"))
    invite_id, token = await _ticket(attic)
    await attic.store.admit(invite_id, token, cellar.joiner("cellar"))
    assert await _code(cellar.store.adopt(_answer(attic))) is Code.IN_OTHER_MESH


async def test_two_sides_that_were_apart_agree(attic: Home, home: Callable[[str], Home]) -> None:
    barn, cellar, dairy, loft = home("barn"), home("cellar"), home("dairy"), home("loft")
    attic.clock.at += 1
    await _join(attic, barn, "barn")
    attic.clock.at += 1
    await _join(attic, cellar, "cellar")
    await barn.store.merge(attic.store.roster())
    await _join(attic, dairy, "loft")  # both sides admit a node of one name
    attic.clock.at += 1
    await _join(barn, loft, "loft")
    await attic.store.forget(cellar.fingerprint, by=attic.fingerprint)
    attic.clock.at += 1
    await barn.store.update_self(barn.joiner("barn", address="10.0.0.8"))
    await cellar.store.update_self(cellar.joiner("cellar", address="10.0.0.9"))  # it does not know yet
    for one, other in ((attic, barn), (barn, cellar), (attic, cellar), (barn, attic)):
        await one.store.merge(other.store.roster())
        await other.store.merge(one.store.roster())
    assert attic.store.digest() == barn.store.digest() == cellar.store.digest() == barn.open().digest()
    assert cellar.store.forgotten
    assert not attic.store.forgotten
    names = [attic.store.name_of(member.fingerprint) for member in attic.store.members()]
    assert names == ["attic", "barn", "loft", f"loft~{loft.fingerprint[:4]}"]
    second = attic.store.by_name(f"LOFT~{loft.fingerprint[:4]}")
    assert second is not None
    assert second.fingerprint == loft.fingerprint
    assert attic.store.by_name("cellar") is None
    assert attic.store.name_of(cellar.fingerprint) == "cellar"
    assert attic.store.name_of("f" * 64) == "f" * 16


async def test_the_forgotten_stay_out(attic: Home, home: Callable[[str], Home]) -> None:
    barn = home("barn")
    await _join(attic, barn, "barn")
    assert await attic.store.forget(barn.fingerprint, by=attic.fingerprint)
    assert not await attic.store.forget(barn.fingerprint, by=attic.fingerprint)
    assert await _code(attic.store.forget("f" * 64, by=attic.fingerprint)) is Code.NOT_FOUND
    invite_id, token = await _ticket(attic)
    assert await _code(attic.store.admit(invite_id, token, barn.joiner("barn"))) is Code.FORGOTTEN
    await barn.store.merge(attic.store.roster())
    assert await _code(barn.store.issue_invite(60.0)) is Code.FORGOTTEN
    assert not await barn.store.update_self(barn.joiner("barn", address="10.0.0.8"))
    await _join(attic, home("new"), "barn")  # its name is free again


async def test_update_self(attic: Home) -> None:
    stamp = attic.store.me().stamp
    assert not await attic.store.update_self(attic.joiner("attic"))
    attic.clock.at = 5.0  # a board without a clock, after a power cut
    assert await attic.store.update_self(attic.joiner("attic", address="10.0.0.2", site="home"))
    assert attic.store.me().stamp > stamp
    assert attic.open().me().site == "home"


async def test_a_node_speaks_for_itself(attic: Home, home: Callable[[str], Home]) -> None:
    """Somebody's newer word about this node does not stand: the node says again what is so."""
    await attic.store.update_self(attic.joiner("attic"))
    me = attic.store.me()
    lie = me.model_copy(update={"address": "10.0.0.66", "stamp": me.stamp + 1000})
    assert await attic.store.merge(Roster(members=[lie]))
    assert attic.store.me().address == "10.0.0.1"
    assert attic.store.me().stamp > lie.stamp
    barn = home("barn")
    assert await _code(attic.store.update_self(barn.joiner("barn"))) is Code.BAD_REQUEST


async def test_statements_that_cannot_be_are_left_out(attic: Home, home: Callable[[str], Home]) -> None:
    barn = home("barn")
    await _join(attic, barn, "barn")
    good = attic.store.by_fingerprint(barn.fingerprint)
    assert good is not None
    later = {"stamp": good.stamp + 1}
    stolen = good.model_copy(update=later | {"certificate": attic.identity.certificate})
    rude = good.model_copy(update=later | {"name": "\x1b[2J"})
    assert not await attic.store.merge(Roster(members=[stolen, rude]))
    assert attic.store.by_fingerprint(barn.fingerprint) == good


async def test_clear(attic: Home) -> None:
    await attic.store.clear()
    assert attic.store.mesh is None
    assert not attic.file.exists()
    await attic.store.clear()
    await attic.store.create("second", attic.joiner("attic"))
