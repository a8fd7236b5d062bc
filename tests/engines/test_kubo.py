"""What meshd relies on of kubo, asked of a real one."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from meshd import files
from meshd.errors import Code, MeshError
from meshd.kubo import policy
from meshd.kubo.rpc import EMPTY_BLOCK, Kubo, KuboError
from meshd.kubo.service import REPO_VERSION, KuboProgram
from meshd.model import Pin
from meshd.pins.entries import from_node, to_node
from meshd.supervise.engine import check_version, run_once
from tests.engines.machine import ENGINES, Machine, Part, free_port, noise, own_address, short_folder

pytestmark = pytest.mark.asyncio(loop_scope="module")

MISSING = "bafkreigaknpexyvxt76zgkitavbwx6ejgfheup5oybpm77f3pxzrvwpfdi"


async def add(machine: Machine, content: bytes | None = None) -> str:
    """A file that is pinned."""
    return (await machine.add(Part("file", noise(50) if content is None else content))).root


# -- who it is -----------------------------------------------------------------------------------------------------


async def test_it_is_the_one_of_this_repository(machine: Machine) -> None:
    assert (await machine.kubo.id())["ID"] == await machine.kubo_program.create()


async def test_its_version_is_known(machine: Machine) -> None:
    assert await machine.kubo.version() == machine.kubo_program.version
    check_version("kubo", machine.kubo_program.version, ("0.43.",))


async def test_its_repositorys_version_is_known(machine: Machine) -> None:
    said = await run_once(
        [str(await machine.kubo_program.find()), "version", "--repo"], machine.kubo_program._env()
    )
    assert said == REPO_VERSION == (machine.kubo_program.repo / "version").read_text().strip()
    assert machine.kubo_program.migrating == ""


async def test_an_older_repository_is_brought_up_to_date_and_given_the_time() -> None:
    with short_folder() as folder:
        old = Machine(folder)
        await old.kubo_program.create()
        (old.kubo_program.repo / "version").write_text("17")
        old.place_kubo()
        usual = old.kubo_program.ready_timeout
        await old.kubo_program.prepare()
        assert old.kubo_program.migrating == f"17 to {REPO_VERSION}"
        assert old.kubo_program.ready_timeout > usual
        try:
            await old.start_kubo()
            assert (old.kubo_program.repo / "version").read_text().strip() == REPO_VERSION
            assert old.kubo_program.migrating == ""
        finally:
            await old.stop()


async def test_the_running_program_holds_every_rule_of_the_private_swarm(machine: Machine) -> None:
    place = machine.kubo_program.place
    assert place is not None
    assert policy.audit(await machine.kubo.config(), place) == []


async def test_its_secrets_are_not_shown(machine: Machine) -> None:
    assert "PrivKey" not in json.dumps(await machine.kubo.config())


async def test_it_announces_no_address_but_the_overlay_s(machine: Machine) -> None:
    for address in (await machine.kubo.id())["Addresses"]:
        assert address.startswith(f"/ip4/{machine.address}/tcp/{machine.kubo_port}/")


async def test_a_fresh_repository_keeps_its_identity_under_the_rules() -> None:
    with short_folder() as folder:
        program = KuboProgram(folder / "kubo", Kubo(folder / "k.sock"), ENGINES, folder)
        peer_id = await program.create()
        fresh = files.read_json(folder / "kubo" / "config")
        assert isinstance(fresh, dict)
        place = policy.KuboEndpoint(own_address(), 4001, folder / "k.sock")
        assert policy.audit(fresh, place) != []
        made = policy.apply(fresh, place)
        assert policy.audit(made, place) == []
        assert made["Identity"] == fresh["Identity"]
        assert made["Datastore"]["Spec"] == fresh["Datastore"]["Spec"]
        assert await program.create() == peer_id


async def test_its_advice_to_announce_what_is_kept_is_passed_on_to_nobody() -> None:
    with short_folder() as folder:
        machine = Machine(folder)
        try:
            await machine.start_kubo()
            await machine.kubo_service.stop("to read all that it says")
        finally:
            await machine.stop()
        said = "\n".join(line for _, line in machine.kubo_service.lines)
        assert "Daemon is ready" in said
        assert not re.search("DHT|Provide|announce-on", said), said


async def test_a_start_writes_the_rules_back_where_somebody_changed_them() -> None:
    with short_folder() as folder:
        program = KuboProgram(folder / "kubo", Kubo(folder / "k.sock"), ENGINES, folder)
        address = own_address()
        program.place = policy.KuboEndpoint(address, free_port(address), folder / "k.sock")
        program.swarm_key = "key"
        await program.create()
        await program.prepare()
        config = folder / "kubo" / "config"
        config.write_text(config.read_text().replace('"Type": "none"', '"Type": "auto"'))
        await program.prepare()
        assert policy.audit(json.loads(config.read_text()), program.place) == []
        assert config.stat().st_mode & 0o777 == 0o600
        assert (folder / "kubo" / "swarm.key").stat().st_mode & 0o777 == 0o600


async def test_a_repository_without_an_identity_is_told() -> None:
    with short_folder() as folder:
        (folder / "kubo").mkdir()
        (folder / "kubo" / "config").write_text("{}")
        with pytest.raises(MeshError) as caught:
            await KuboProgram(folder / "kubo", Kubo(folder / "k.sock"), ENGINES, folder).create()
        assert caught.value.code is Code.BAD_STATE


async def test_an_identity_that_is_lost_is_told_and_never_made_anew() -> None:
    with short_folder() as folder:
        program = KuboProgram(folder / "kubo", Kubo(folder / "k.sock"), ENGINES, folder)
        address = own_address()
        program.place = policy.KuboEndpoint(address, free_port(address), folder / "k.sock")
        await program.create()
        (folder / "kubo" / "config").unlink()
        with pytest.raises(MeshError) as caught:
            await program.prepare()
        assert caught.value.code is Code.BAD_STATE
        assert str(folder / "kubo" / "config") in caught.value.title
        assert "from a backup" in caught.value.hint
        assert not (folder / "kubo" / "config").exists()


# -- pins ----------------------------------------------------------------------------------------------------------


async def test_a_pin_comes_and_goes(machine: Machine) -> None:
    cid = await add(machine)
    assert await machine.kubo.pinned([cid]) == {cid}
    assert await machine.kubo.unpin(cid)
    assert await machine.kubo.pinned([cid]) == set()
    assert not await machine.kubo.unpin(cid)
    await machine.kubo.pin(cid)
    assert await machine.kubo.pinned([cid]) == {cid}


async def test_of_many_some_of_which_are_missing_the_pinned_ones_are_told(machine: Machine) -> None:
    cids = [await add(machine) for _ in range(30)]
    for cid in cids[::3]:
        await machine.kubo.unpin(cid)
    assert await machine.kubo.pinned([*cids, MISSING]) == set(cids) - set(cids[::3])
    assert await machine.kubo.pinned([]) == set()
    assert await machine.kubo.pinned([MISSING]) == set()


async def put_and_pin(machine: Machine, entry: Pin) -> str:
    """An entry as it is made: put, then pinned under its name."""
    cid = await machine.kubo.put_entry(to_node(entry))
    await machine.kubo.pin(cid, entry.name)
    return cid


async def test_what_is_only_part_of_a_pinned_thing_has_no_pin_of_its_own(machine: Machine) -> None:
    entry = await put_and_pin(machine, pin(await add(machine)))
    root = from_node(entry, await machine.kubo.get_node(entry))
    assert root is not None
    await machine.kubo.unpin(root.root)
    assert await machine.kubo.pinned([entry, root.root]) == {entry}


async def test_a_pin_has_the_name_it_was_given(machine: Machine) -> None:
    cid = await add(machine)
    await machine.kubo.pin(cid, "minutes")
    assert {p.cid: p.name for p in await machine.kubo.pins()}[cid] == "minutes"


async def test_a_pin_of_what_nobody_has_is_given_up_in_time(machine: Machine) -> None:
    with pytest.raises(KuboError):
        await machine.kubo.pin(MISSING, timeout=0.2)
    assert await machine.kubo.pinned([MISSING]) == set()


async def test_what_is_no_cid_is_an_error_in_kubo_s_own_words(machine: Machine) -> None:
    with pytest.raises(KuboError) as caught:
        await machine.kubo.pin("nonsense")
    assert caught.value.code is Code.ENGINE_FAILED
    assert "invalid" in caught.value.message


# -- entries -------------------------------------------------------------------------------------------------------


def pin(root: str, name: str = "minutes.pdf") -> Pin:
    return Pin(cid="", name=name, owner="f1", root=root, size=50, time=1700000000.5, wanted=3)


async def test_an_entry_is_pinned_and_read_back(machine: Machine) -> None:
    root = await add(machine)
    cid = await put_and_pin(machine, pin(root, "Protokoll ä.pdf"))
    assert await machine.kubo.pinned([cid]) == {cid}
    entry = from_node(cid, await machine.kubo.get_node(cid, offline=True))
    assert entry is not None
    assert (entry.cid, entry.name, entry.root, entry.time) == (cid, "Protokoll ä.pdf", root, 1700000000.5)


async def test_content_is_no_entry(machine: Machine) -> None:
    cid = await add(machine)
    assert from_node(cid, await machine.kubo.get_node(cid, offline=True)) is None


async def test_an_entry_that_is_not_here_is_not_waited_for_offline(machine: Machine) -> None:
    with pytest.raises(MeshError):
        await machine.kubo.get_node(MISSING, offline=True)
    assert not await machine.kubo.has(MISSING)
    assert await machine.kubo.has(EMPTY_BLOCK)


# -- garbage -------------------------------------------------------------------------------------------------------


async def test_collecting_garbage_keeps_what_is_pinned_and_nothing_else(machine: Machine) -> None:
    kept, dropped = await add(machine), await add(machine)
    await machine.kubo.unpin(dropped)
    assert await machine.kubo.collect_garbage() >= 1
    assert await machine.kubo.has(kept)
    assert not await machine.kubo.has(dropped)


async def test_the_same_bytes_twice_are_two_entries_and_one_outlives_the_other(machine: Machine) -> None:
    content = noise(3 * 2**20 + 5)
    root = await add(machine, content)
    one, two = [await put_and_pin(machine, pin(root)) for _ in range(2)]
    assert one != two
    assert await add(machine, content) == root
    await machine.uploads.unpin(root)
    await machine.kubo.unpin(one)
    await machine.kubo.collect_garbage()
    assert not await machine.kubo.has(one)
    assert await machine.kubo.has(two)
    async with machine.kubo.call("cat", [root]) as answer:
        assert await answer.read() == content


async def test_the_block_of_no_bytes_stays_whatever_is_removed(machine: Machine) -> None:
    """Other nodes never deliver it, so without it a directory with an empty file can not be copied to this one."""
    empty = await machine.add(Part("nothing", b""))
    assert empty.root == EMPTY_BLOCK
    await machine.uploads.release(empty.root)
    await machine.kubo.collect_garbage()
    assert await machine.kubo.has(EMPTY_BLOCK)


async def test_the_repository_s_size_grows_with_what_is_in_it(machine: Machine) -> None:
    before = (await machine.kubo.repo_stat()).size
    await add(machine, noise(300_000))
    assert (await machine.kubo.repo_stat()).size >= before + 300_000


# -- the swarm -----------------------------------------------------------------------------------------------------


async def test_a_node_alone_has_no_peers_and_a_dead_one_cannot_be_dialled(machine: Machine) -> None:
    other = "12D3KooWGRUcbkqPbVXu1KfRjP4yoKMt4aP4Z8cZcPYFMvPkBJV4"
    assert await machine.kubo.swarm_peers() == {}
    with pytest.raises(KuboError):
        await machine.kubo.connect(f"/ip4/{own_address()}/tcp/1/p2p/{other}")
    await machine.kubo.keep_connected(f"/ip4/{own_address()}/tcp/1/p2p/{other}")
    await machine.kubo.remove_peering(other)
    await machine.kubo.remove_peering(other)


# -- nobody there --------------------------------------------------------------------------------------------------


async def test_a_kubo_that_is_gone_is_not_ready_rather_than_a_mistake() -> None:
    with short_folder() as folder:
        gone = Kubo(folder / "kubo.sock")
        with pytest.raises(MeshError) as caught:
            await gone.version()
        await gone.close()
    assert caught.value.code is Code.NOT_READY
    assert caught.value.hint == "meshctl status"


async def test_a_client_that_is_closed_for_a_restart_serves_whoever_asks_meanwhile(machine: Machine) -> None:
    client = Kubo(machine.kubo.socket)
    for _ in range(5):
        await client.version()
        _, version = await asyncio.gather(client.close(), client.version())
        assert version == machine.kubo_program.version
    await client.close()
