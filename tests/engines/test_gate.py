"""The socket that the cluster gets instead of kubo's, in front of a real kubo."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from meshd import files
from meshd.errors import Code, MeshError
from meshd.files import Disk
from meshd.kubo.rpc import Kubo, KuboError, json_lines
from meshd.pins import gate as gates
from meshd.pins.gate import Gate, GateRules
from tests.engines.machine import Machine, Part, Rules, noise, own_address
from tests.unit.slow_disk import slow
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MISSING = "bafkreigaknpexyvxt76zgkitavbwx6ejgfheup5oybpm77f3pxzrvwpfdi"
OTHER = "12D3KooWGRUcbkqPbVXu1KfRjP4yoKMt4aP4Z8cZcPYFMvPkBJV4"
_numbers = itertools.count()


class Open:
    """An open gate, its rules, and what the cluster has of it: a client that takes it for kubo."""

    def __init__(self, gate: Gate, rules: Rules) -> None:
        self.gate = gate
        self.rules = rules
        self.kubo = Kubo(gate.socket)

    async def pin(self, cid: str) -> list[dict[str, Any]]:
        """The lines of the answer."""
        async with self.kubo.call("pin/add", [cid], recursive="true", progress="true") as answer:
            return [line async for line in json_lines(answer.content)]


@contextlib.asynccontextmanager
async def opened(
    machine: Machine, *, disk: Disk | None = None, rules: GateRules | None = None, kubo: Kubo | None = None
) -> AsyncIterator[Open]:
    said = Rules()
    socket = machine.private / f"g{next(_numbers)}.sock"
    gate = Gate(socket, kubo or machine.kubo, disk or machine.disk, rules or said.as_gate_rules())
    await gate.start()
    made = Open(gate, said)
    try:
        yield made
    finally:
        await made.kubo.close()
        await gate.stop()
    assert not socket.exists()


async def unpinned(machine: Machine) -> str:
    """Content that is here and has no pin."""
    root = (await machine.add(Part("file", noise(50)))).root
    await machine.uploads.release(root)
    return root


# -- pin/add -------------------------------------------------------------------------------------------------------


async def test_a_pin_is_made_said_and_remembered_as_durable(machine: Machine) -> None:
    cid = await unpinned(machine)
    async with opened(machine) as door:
        assert (await door.pin(cid))[-1]["Pins"] == [cid]
        assert cid in door.gate.durable
        assert cid not in door.gate.fetching
    assert await machine.kubo.pinned([cid]) == {cid}


async def test_pinned_is_said_only_once_it_is_on_the_disk(machine: Machine) -> None:
    cid = await unpinned(machine)
    with slow(machine.state) as disk:
        async with opened(machine, disk=disk) as door:
            answer = asyncio.create_task(door.pin(cid))
            await disk.began.wait()
            assert await machine.kubo.pinned([cid]) == {cid}, "kubo is done"
            assert await door.gate.held([cid]) == set(), "and yet it is not held"
            assert not answer.done()
            disk.go_on()
            assert (await answer)[-1]["Pins"] == [cid]
            assert await door.gate.held([cid]) == {cid}


async def test_how_far_a_fetch_is_it_tells_in_blocks_and_in_bytes(machine: Machine) -> None:
    """The same block counts once, as it is fetched once."""
    mib = 1024**2  # of a block
    first = noise(mib)
    root = (await machine.add(Part("file", first + noise(mib) + first))).root
    await machine.uploads.release(root)
    with slow(machine.state) as disk:
        async with opened(machine, disk=disk) as door:
            answer = asyncio.create_task(door.pin(root))
            await disk.began.wait()
            fetched = door.gate.fetching[root]
            disk.go_on()
            await answer
    assert fetched.blocks == 3, "two of the file's, and the one that names them"
    assert 2 * mib < fetched.size < 2.001 * mib


async def test_where_the_disk_fails_pinned_is_not_said(machine: Machine) -> None:
    cid = await unpinned(machine)
    with slow(machine.state) as disk:
        disk.errors = [OSError(errno.EIO, "Input/output error")]
        disk.go_on()
        async with opened(machine, disk=disk) as door:
            with pytest.raises(MeshError):
                await door.pin(cid)
            assert cid not in door.gate.durable
            assert cid not in door.gate.fetching


async def test_below_the_floor_a_pin_is_refused_and_told(machine: Machine) -> None:
    cid = await unpinned(machine)
    async with opened(machine) as door:
        door.rules.full = "the disk has 5 bytes free"
        with pytest.raises(KuboError) as caught:
            await door.pin(cid)
        assert caught.value.message == "the disk has 5 bytes free"
        assert door.gate.refused[cid] == "the disk has 5 bytes free"
    assert await machine.kubo.pinned([cid]) == set()


async def test_what_this_node_does_not_take_is_refused_and_told(machine: Machine) -> None:
    cid = await unpinned(machine)
    async with opened(machine) as door:
        door.rules.refusals[cid] = "[storage] offer gives others 5 bytes"
        with pytest.raises(KuboError, match="offer gives others 5 bytes"):
            await door.pin(cid)
        assert cid in door.gate.refused
        door.rules.refusals.clear()
        await door.pin(cid)
        assert cid not in door.gate.refused, "what was taken later is no longer refused"


async def test_one_fetch_of_the_same_at_a_time_and_one_that_is_given_up_is_over(machine: Machine) -> None:
    async with opened(machine) as door:
        first = asyncio.create_task(door.pin(MISSING))
        await until(lambda: MISSING in door.gate.fetching)
        with pytest.raises(KuboError, match="being fetched already"):
            await door.pin(MISSING)
        assert MISSING in door.gate.fetching
        first.cancel()
        await asyncio.wait([first])
        await until(lambda: MISSING not in door.gate.fetching)


async def test_a_disk_that_fills_while_content_comes_cuts_the_answer_off(machine: Machine) -> None:
    """To the cluster an answer that ends in order means `pinned`, whatever is in it."""
    lines: list[dict[str, Any]] = []

    async def pin(door: Open) -> None:
        async with door.kubo.call("pin/add", [MISSING], recursive="true", progress="true") as answer:
            async for line in json_lines(answer.content):
                lines.append(line)
                door.rules.full = "the disk has 5 bytes free"

    async with opened(machine) as door:
        with pytest.raises(MeshError):
            await pin(door)
        assert lines
        assert not any(line.get("Pins") for line in lines)
        assert door.gate.refused[MISSING] == "the disk has 5 bytes free"
        assert MISSING not in door.gate.fetching


@pytest.mark.parametrize("cid", ["", "/ipfs/", "../x", "a b", "/ipns/name"])
async def test_what_is_no_cid_is_refused(cid: str, machine: Machine) -> None:
    async with opened(machine) as door:
        with pytest.raises(KuboError, match="not a CID"):
            await door.pin(cid)


async def test_what_kubo_cannot_do_is_told_in_its_own_words(machine: Machine) -> None:
    async with opened(machine) as door:
        with pytest.raises(KuboError) as caught:
            await door.pin("nonsense")
        assert "invalid" in caught.value.message
        assert not door.gate.fetching


# -- pin/rm --------------------------------------------------------------------------------------------------------


async def test_a_removal_is_recorded_and_answered_and_not_done(machine: Machine) -> None:
    cid = (await machine.add(Part("file", noise(50)))).root
    async with opened(machine) as door:
        assert await door.kubo.ask("pin/rm", cid) == {"Pins": [cid]}
        assert door.rules.removed == [cid]
    assert await machine.kubo.pinned([cid]) == {cid}


async def test_a_removal_that_cannot_be_recorded_is_not_acknowledged(machine: Machine) -> None:
    async def cannot(_: str) -> None:
        raise MeshError(Code.BAD_STATE, "cannot write trash.json", "the disk is full")

    rules = Rules().as_gate_rules()
    broken = GateRules(rules.refuse, rules.full, cannot, rules.free, rules.member)
    async with opened(machine, rules=broken) as door:
        with pytest.raises(KuboError, match=r"cannot write trash\.json"):
            await door.kubo.ask("pin/rm", MISSING)


# -- everything else -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["add", "block/put", "block/rm", "block/get", "cat", "get", "config", "config/show", "dag/put", "dag/import",
     "files/rm", "key/gen", "key/export", "log/level", "name/publish", "pin/update", "pin/verify", "refs", "repo/gc",
     "repo/verify", "shutdown", "swarm/disconnect", "swarm/peering/add", "update", "version", "", "id/", "pin/ls/",
     "ID", "pin/add/x"],
)  # fmt: skip
async def test_any_other_command_is_refused(command: str, machine: Machine) -> None:
    async with (
        opened(machine) as door,
        door_session(door) as session,
        session.post(f"http://kubo/api/v0/{command}") as answer,
    ):
        assert answer.status == 403
        assert "may not ask this" in (await answer.json())["Message"]


@pytest.mark.parametrize("path", ["/", "/api/v0", "/webui", "/ipfs/x", "/api/v1/id", "/debug/vars"])
async def test_there_is_nothing_beside_the_commands(path: str, machine: Machine) -> None:
    async with (
        opened(machine) as door,
        door_session(door) as session,
        session.post(f"http://kubo{path}") as answer,
    ):
        assert answer.status == 404


async def test_only_post_is_answered(machine: Machine) -> None:
    async with (
        opened(machine) as door,
        door_session(door) as session,
        session.get("http://kubo/api/v0/id") as answer,
    ):
        assert answer.status == 405


def door_session(door: Open) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(door.gate.socket)))


# -- what is passed on ---------------------------------------------------------------------------------------------


async def test_who_kubo_is_is_told(machine: Machine) -> None:
    async with opened(machine) as door:
        assert await door.kubo.id() == await machine.kubo.id()


async def test_what_is_pinned_is_told(machine: Machine) -> None:
    cid, without = (await machine.add(Part("file", noise(50)))).root, await unpinned(machine)
    async with opened(machine) as door:
        assert await door.kubo.pinned([cid, without]) == {cid}
        assert {pin.cid for pin in await door.kubo.pins()} == {pin.cid for pin in await machine.kubo.pins()}
        with pytest.raises(KuboError, match="not pinned"):
            await door.kubo.ask("pin/ls", without, type="recursive")


async def test_the_space_is_what_this_node_still_gives(machine: Machine) -> None:
    async with opened(machine) as door:
        for free in (12_345, 0):
            door.rules.free = free
            told = await door.kubo.ask("repo/stat")
            assert told["StorageMax"] - told["RepoSize"] == free
            assert told["RepoSize"] > 0


async def test_the_repository_s_size_is_asked_seldom_but_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "_SIZE_FOR_S", 0.3)
    async with opened(machine) as door:
        before = (await door.kubo.ask("repo/stat"))["RepoSize"]
        await machine.add(Part("file", noise(2**20)))

        async def grown() -> bool:
            return bool((await door.kubo.ask("repo/stat"))["RepoSize"] > before)

        await until(grown)


async def test_only_members_are_dialled(machine: Machine) -> None:
    address = f"/ip4/{own_address()}/tcp/1/p2p/{OTHER}"
    async with opened(machine) as door:
        with pytest.raises(KuboError, match="not a member of this mesh"):
            await door.kubo.connect(address)
        door.rules.members.add(OTHER)
        with pytest.raises(KuboError, match="dial"):
            await door.kubo.connect(address)


@pytest.mark.parametrize(
    "address",
    ["/ip4/8.8.8.8/tcp/4001", "/ip6/2606:4700:4700::1111/tcp/4001", "/dns4/example.org/tcp/4001",
     "/ip4/127.0.0.1/udp/4001/quic-v1", "/ip4/127.0.0.1/tcp/4001/ws", "/ip4/127.0.0.1/tcp/4001/p2p/" + OTHER + "/p2p-circuit",
     "/ip4/10.0.0.300/tcp/4001", ""],
)  # fmt: skip
async def test_a_member_is_dialled_on_a_private_network_by_tcp_or_not_at_all(
    address: str, machine: Machine
) -> None:
    """A member's word is where it is: it could name a machine on the Internet, or a way that leads there."""
    async with opened(machine) as door:
        door.rules.members.add(OTHER)
        with pytest.raises(KuboError, match="is not on a private network"):
            await door.kubo.connect(f"{address}/p2p/{OTHER}")


# -- held ----------------------------------------------------------------------------------------------------------


class CountingDisk(Disk):
    syncs = 0

    async def sync(self) -> None:
        self.syncs += 1
        await super().sync()


async def test_held_is_what_has_a_pin_and_is_on_the_disk(machine: Machine) -> None:
    pinned = [(await machine.add(Part("file", noise(50)))).root for _ in range(12)]
    without = await unpinned(machine)
    disk = CountingDisk(machine.state)
    async with opened(machine, disk=disk) as door:
        assert await door.gate.held([*pinned, without, MISSING]) == set(pinned)
        assert disk.syncs == 1
        assert await door.gate.held([*pinned, without]) == set(pinned)
        assert disk.syncs == 1, "what is on the disk needs no second sync"
        await machine.kubo.unpin(pinned[0])
        assert await door.gate.held(pinned) == set(pinned[1:]), "kubo is asked each time"
        door.gate.forget(pinned[1])
        assert await door.gate.held([pinned[1]]) == {pinned[1]}
        assert disk.syncs == 2
        assert await door.gate.held([]) == set()


# -- trouble -------------------------------------------------------------------------------------------------------


async def test_a_kubo_that_is_gone_is_told_to_the_cluster(machine: Machine) -> None:
    gone = Kubo(machine.private / "nobody.sock")
    async with opened(machine, kubo=gone) as door:
        for command in ("id", "pin/ls", "repo/stat"):
            with pytest.raises(KuboError, match="cannot reach kubo"):
                await door.kubo.ask(command)
        with pytest.raises(MeshError):
            await door.pin(MISSING)
        assert not door.gate.fetching
    await gone.close()


async def test_it_opens_over_the_socket_of_a_run_that_was_killed(machine: Machine) -> None:
    left = machine.private / "left.sock"
    files.write_durably(left, "")
    gate = Gate(left, machine.kubo, machine.disk, Rules().as_gate_rules())
    await gate.start()
    client = Kubo(left)
    assert json.dumps(await client.id())
    await client.close()
    await gate.stop()
    await gate.stop()
