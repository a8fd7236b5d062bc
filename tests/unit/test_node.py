"""What the daemon puts together: a leave takes nothing new, and only private addresses are dialled."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from meshd import config, daemon, files, lifecycle
from meshd.errors import Code, MeshError
from meshd.http.query import Query
from meshd.http.request import Request
from meshd.mesh.identity import Identity
from meshd.mesh.secrets import Secrets
from meshd.model import OverlayState, Phase
from meshd.node import Node
from meshd.principal import Principal
from meshd.shutdown import Shutdown
from meshd.state_files import Of
from meshd.systemd import Notifier, ServiceManager
from meshd.wire import Emit, Member, Removal, Roster, Wire
from tests.engines.machine import short_folder
from tests.unit.built import close
from tests.unit.members import joiner
from tests.waiting import until

# -- a node that does not run --------------------------------------------------------------------------------------


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    """In a mesh of its own at 10.7.0.1; nothing of it was started."""
    with short_folder() as folder:
        settings = config.parse(
            f'[node]\nname = "attic"\n[paths]\nstate = "{folder}/s"\nrun = "{folder}/r"\n', "the test"
        )
        files.prepare_folders(settings.state, settings.paths.run, settings.private_sockets)
        made = Node(settings)
        Secrets.generate().save(settings.state)
        await made.mesh.store.create("archive", joiner(made.mesh.identity, "attic", "10.7.0.1"))
        made.overlay.publish(OverlayState("10.7.0.1"))
        yield made
        await close(made)


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Node]:
    """In no mesh, without the engines' programs."""
    with short_folder() as folder:
        text = f'[paths]\nstate = "{folder}/s"\nrun = "{folder}/r"\nengines = "{tmp_path}"\n'
        settings = config.parse(text, "the test")
        files.prepare_folders(settings.state, settings.paths.run, settings.private_sockets)
        made = Node(settings)
        yield made
        await close(made)


@pytest.fixture
def admit(node: Node, tmp_path: Path) -> Callable[[str, str], Member]:
    """A member that calls itself `name` and says that it is at `address`."""

    def make(name: str, address: str) -> Member:
        folder = tmp_path / name
        folder.mkdir()
        other = Identity.load_or_create(folder)
        facts = joiner(other, name, address).model_dump()
        return Member(
            **facts,
            fingerprint=other.fingerprint,
            admitted_by=node.mesh.identity.fingerprint,
            admitted=1.0,
            stamp=1.0,
        )

    return make


async def test_only_members_on_a_private_network_are_linked_to(
    node: Node, admit: Callable[[str, str], Member]
) -> None:
    """Where a member is, is its own word: one on the Internet would have kubo and the cluster dial out there."""
    near = {"near4": "10.7.0.2", "near6": "fd00::2", "tailscale": "100.64.0.9"}
    far = {"far4": "8.8.8.8", "far6": "2606:4700:4700::1111", "link": "169.254.1.1"}
    members = [admit(name, address) for name, address in (near | far).items()]
    await node.mesh.store.merge(Roster(members=members))
    assert len(node.mesh.store.peers()) == 6, "they are members, wherever they say that they are"

    linked = {link.rpartition("/p2p/kubo")[2] for link in node.reconciler.snapshot().links}
    assert linked == set(near)
    dialled = {
        peer.rpartition("/p2p/cluster")[2] for peer in node.mesh.settings.cluster_settings("10.7.0.1").peers
    }
    assert dialled == set(near)


# -- status --------------------------------------------------------------------------------------------------------


async def test_news_that_a_program_looked_at_stays_for_a_person(
    node: Node, admit: Callable[[str, str], Member]
) -> None:
    await node.mesh.store.merge(
        Roster(members=[admit("cellar", "10.7.0.2").model_copy(update={"admitted": 4e9})])
    )
    await node.diagnosis.update()
    assert [c.subject for c in node.health.board.conditions if c.code == "member-joined"] == ["cellar"]
    me = Principal(label="a test", how="local", role="read")
    await node.control.status.status(Request(principal=me, query=Query({"glance": "1"})))
    assert node.health.notices.unread()
    await node.control.status.status(Request(principal=me))
    assert not node.health.notices.unread()


async def test_how_long_meshd_runs_is_not_counted_anew_after_a_leave(alone: Node, tmp_path: Path) -> None:
    before = (await alone.control.status.document()).node.uptime_s
    after_a_leave = Node(
        config.parse(f'[paths]\nstate = "{tmp_path}/s2"\nrun = "{tmp_path}/r2"\n', "the test")
    )
    try:
        assert (await after_a_leave.control.status.document()).node.uptime_s > before
    finally:
        await close(after_a_leave)


async def test_a_migration_is_told_and_systemd_is_asked_to_wait_for_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(node.manager, "needs", asked.append)
    node.reconciler.publish()
    assert asked == []
    node.engine_room.engines.kubo.migrating = "17 to 18"
    node.engine_room.services["kubo"]._set(phase=Phase.STARTING)
    node.reconciler.publish()
    assert len(asked) == 1
    said = "waiting for kubo: it brings its repository from version 17 to 18, which may take long"
    assert node.health.readiness.why_not() == said


async def test_a_node_that_has_lost_its_address_does_not_show_itself_at_it(node: Node) -> None:
    (row,) = await node.control.status.peers()
    assert row.address == "10.7.0.1"
    node.overlay.publish(OverlayState())
    (row,) = await node.control.status.peers()
    assert (row.address, row.this_node, row.ready) == ("", True, False)


async def test_programs_that_are_missing_are_told_before_there_is_a_mesh(alone: Node) -> None:
    looking = asyncio.create_task(alone.health.probe.run())
    await until(lambda: alone.health.probe.unusable is not None)
    looking.cancel()
    await asyncio.wait([looking])
    await alone.diagnosis.update()
    (condition,) = [c for c in alone.health.board.conditions if c.code == "engine-missing"]
    assert condition.title == "cannot find ipfs"
    assert "make setup" in condition.hint


@pytest.mark.parametrize("way", ["init", "join"])
async def test_nobody_is_bothered_for_a_machine_that_cannot_run_the_programs(alone: Node, way: str) -> None:
    """Before it joins a network, on which a person would have to authorize it."""
    told: list[Wire] = []

    async def tell(event: Wire) -> None:
        told.append(event)

    member, network = alone.joining, "8056c2e21c000001"
    asked = (
        member.init("archive", network, tell) if way == "init" else member.join_network(network, None, tell)
    )
    with pytest.raises(MeshError) as caught:
        await asked
    assert (caught.value.code, caught.value.title) == (Code.ENGINE_MISSING, "cannot find ipfs")
    assert told == []


async def test_the_doctor_says_that_there_is_no_mesh_and_not_that_kubo_is_ill(alone: Node) -> None:
    findings = await alone.health.doctor.run()
    assert not [f for f in findings if f.area in ("kubo", "cluster")]
    (about,) = [f for f in findings if f.area == "mesh"]
    assert (about.held, about.found) == (None, "no mesh yet")
    assert "meshctl join" in about.hint


async def test_the_doctor_looks_at_kubo_where_there_is_a_mesh(node: Node) -> None:
    findings = await node.health.doctor.run()
    assert {"kubo", "cluster"} <= {f.area for f in findings}
    assert "mesh" not in {f.area for f in findings}


async def test_the_others_are_told_what_this_node_keeps_as_it_is_at_the_moment(node: Node) -> None:
    for count in (1, 2):
        await node.pins.journal.record([Removal(cid=f"c{count}", time=1.0, by="f1", name="diary.txt")])
        assert (await node.mesh.heartbeats._own_beat()).removals == count


# -- leaving -------------------------------------------------------------------------------------------------------


async def test_while_it_hands_over_it_takes_nothing_new_and_if_that_fails_it_does_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[MeshError] = []
    open_upload = asyncio.create_task(_upload(node))
    await until(lambda: node.pins.uploads.count)

    async def drain(_: Emit, __: object) -> None:
        assert node.mesh.store.me().leaving_since, "it says so before it looks"
        with pytest.raises(MeshError) as caught:
            node.pins.uploads.enter()
        refused.append(caught.value)
        raise MeshError(Code.LAST_COPY, "cannot leave", "diary.txt is nowhere else")

    monkeypatch.setattr(node.pins.drain, "drain", drain)
    monkeypatch.setattr(node.engine_room.services, "is_ready", lambda: True)
    stated: list[bool] = []
    with pytest.raises(MeshError, match="diary"):
        await node.leaving.leave(_nobody, force=False, network=False, stated=lambda: stated.append(True))
    assert stated == [], "it can be taken back until the end"
    assert not node.mesh.store.me().leaving_since
    assert [(e.code, e.detail) for e in refused] == [(Code.NOT_READY, "this node is leaving its mesh")]
    assert open_upload.cancelled(), "what was open could be nowhere else either"
    node.pins.uploads.enter()()


async def test_a_goodbye_that_cannot_be_written_down_leaves_a_node_that_takes_content(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resign(relying_on: object = ()) -> None:
        raise MeshError(Code.DISK_FLOOR, "cannot write mesh.json", "No space left on device")

    monkeypatch.setattr(node.mesh.membership, "resign", resign)
    with pytest.raises(MeshError, match="No space left"):
        await node.leaving.leave(_nobody, force=True, network=False)
    node.pins.uploads.enter()()


async def test_a_leave_that_is_cut_off_once_it_is_written_down_is_finished(node: Node) -> None:
    """Ctrl-C ends the request; the node is no member any more, and what it had must not stay."""
    written, forget = asyncio.Event(), node.mesh.store.forget

    async def slowly(*args: Any, **more: Any) -> bool:
        answer = await forget(*args, **more)
        written.set()
        await asyncio.Event().wait()
        return answer

    node.mesh.store.forget = slowly  # type: ignore[method-assign]
    leaving = asyncio.create_task(node.leaving.leave(_nobody, force=True, network=False))
    await asyncio.wait_for(written.wait(), 20)
    leaving.cancel()
    await asyncio.wait_for(node.leaving.left.wait(), 20)
    node.leaving.replaced.set()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    assert node.mesh.store.mesh is None
    await until(lambda: not node.leaving._under_way.locked())


async def test_who_types_leave_and_goes_away_once_the_mesh_was_told_has_left(node: Node) -> None:
    async def gone(_: Wire) -> None:
        raise ConnectionResetError

    stated = []

    def no_way_back() -> None:
        stated.append(node.mesh.store.forgotten)

    leaving = asyncio.create_task(node.leaving.leave(gone, force=True, network=False, stated=no_way_back))
    await asyncio.wait_for(node.leaving.left.wait(), 20)
    node.leaving.replaced.set()
    await asyncio.wait_for(leaving, 20)
    assert stated == [True], "once the roster says so, and before anything is removed"
    assert node.mesh.store.mesh is None
    assert not (node.config.state / "node.key").exists()


async def test_a_node_that_left_has_nothing_of_what_was_removed(node: Node) -> None:
    """Also not beside the database, where the newest of it is."""
    for cid in ("c1", "c2"):
        await node.pins.journal.record([Removal(cid=cid, time=1.0, by="f1", name="diary.txt")])
    assert {p.name for p in node.config.state.glob("trash*")} == {"trash.db", "trash.db-wal"}
    (node.config.state / "trash.json").write_text("{}")
    await asyncio.to_thread(node.state_files.remove_those_of_the_mesh)
    assert list(node.config.state.glob("trash*")) == []
    await node.pins.stop()
    assert list(node.config.state.glob("trash*")) == [], "nor is it made anew"


async def test_nothing_that_a_room_has_declared_as_the_mesh_s_stays_after_a_leave(node: Node) -> None:
    await node.pins.stop()
    for declared in node.state_files:
        path = node.config.state / declared.name
        if not declared.name.endswith("/"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    leaving = asyncio.create_task(node.leaving.leave(_nobody, force=True, network=False))
    await asyncio.wait_for(node.leaving.left.wait(), 20)
    node.leaving.replaced.set()
    await asyncio.wait_for(leaving, 20)
    left = {path.name for path in node.config.state.rglob("*") if not path.is_dir()}
    assert left == {declared.name for declared in node.state_files if declared.of is Of.MACHINE} == {"lock"}


async def _upload(node: Node) -> None:
    leave = node.pins.uploads.enter()
    try:
        await asyncio.Event().wait()
    finally:
        leave()


async def _nobody(_: Wire) -> None:
    """Nobody reads what is told."""


# -- reloading -----------------------------------------------------------------------------------------------------


async def test_what_was_reloaded_stays_in_force_for_the_node_after_a_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reserves: list[int] = []
    with short_folder() as folder, Shutdown(list) as end:
        paths = f'[paths]\nstate = "{folder}/s"\nrun = "{folder}/r"\n'
        first, second = (
            config.parse(f'{paths}[storage]\nreserve = "{size}"\n', "the test") for size in ("7MiB", "9MiB")
        )
        end.bind(asyncio.get_running_loop())

        async def run(node: Node, _: Shutdown, predecessor: Node | None) -> None:
            if predecessor is None:
                os.kill(os.getpid(), signal.SIGHUP)
                await until(lambda: node.pins.storage.reserve != first.storage.reserve)
            else:
                end.stop.set()
            reserves.append(node.pins.storage.reserve)
            await close(node)

        monkeypatch.setattr(lifecycle, "run", run)
        manager = ServiceManager(Notifier({"NOTIFY_SOCKET": "@nobody"}))
        await daemon.run(first, end, manager, lambda: second)
    assert reserves == [second.storage.reserve] * 2
