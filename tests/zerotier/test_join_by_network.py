"""Getting onto a network, as the person reads it who has typed its id: nobody answers, nobody lets it in, or it itself may."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from meshd import config, wire
from meshd.errors import Code, MeshError
from meshd.mesh import join_by_network
from meshd.mesh.join_by_network import JoinByNetwork
from meshd.overlay import assess
from tests.waiting import until
from tests.zerotier.bench import POOL, Bench, bench
from tests.zerotier.membership import device_name
from tests.zerotier.planet import new_address

__all__ = ["bench"]
NOT_THERE = "is not there yet"
GIVES = {
    "v4AssignMode": {"zt": True},
    "ipAssignmentPools": [{"ipRangeStart": f"{POOL}.5", "ipRangeEnd": f"{POOL}.5"}],
}


class Person:
    """Somebody who types an id, and reads."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.steps: list[wire.StepEvent] = []
        self._typing: asyncio.Task[None] | None = None

    def types(self, network: str, **options: Any) -> None:
        """`meshctl join NETWORK`, as far as the network is concerned. It is over once the machine is on it."""
        home = str(self.bench.service.home)
        networks = options.pop("networks", [])
        settings = config.parse(
            f'[overlay]\n[overlay.zerotier]\nhome = "{home}"\n' + "".join(networks), "the test"
        )
        overlay = self.bench.follows(kind="auto")
        way = JoinByNetwork(settings, overlay)

        async def on() -> None:
            async with way.on(network, self._read, again=f"meshctl join {network}", **options):
                pass

        self._typing = asyncio.create_task(on())

    async def _read(self, event: wire.Wire) -> None:
        assert isinstance(event, wire.StepEvent)
        self.steps.append(event)

    @property
    def read(self) -> str:
        return "\n".join(step.message for step in self.steps)

    async def reads(self, words: str) -> str:
        """The step in which these words are."""
        await until(lambda: words in self.read or self._over)
        return next(step.message for step in self.steps if words in step.message)

    @property
    def _over(self) -> bool:
        return self._typing is not None and self._typing.done()

    async def is_on_it(self) -> None:
        assert self._typing is not None
        await asyncio.wait_for(self._typing, 20)

    async def fails(self) -> MeshError:
        with pytest.raises(MeshError) as caught:
            await self.is_on_it()
        return caught.value

    async def leaves(self) -> None:
        if self._typing is not None:
            self._typing.cancel()
            with contextlib.suppress(asyncio.CancelledError, MeshError):
                await self._typing


@pytest_asyncio.fixture
async def person(bench: Bench) -> AsyncIterator[Person]:
    made = Person(bench)
    yield made
    await made.leaves()


def own_network(bench: Bench) -> str:
    """One whose controller is this very machine, which has let nobody in."""
    network = bench.make_network(**GIVES)
    bench.kernel[device_name(network)] = [f"{POOL}.5"]
    return network


# -- nobody answers ------------------------------------------------------------------------------------------------------


async def test_a_controller_that_is_silent_is_told_when_it_becomes_a_trouble_and_not_each_second(
    bench: Bench, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words have the seconds in them."""
    monkeypatch.setattr(assess, "REQUESTING_TOO_LONG_S", 0.3)
    person.types(f"{new_address()}abcdef")
    await until(lambda: bench.now.problem is not None and "for 3 s now" in bench.now.problem.cause)
    told = [step for step in person.steps if NOT_THERE in step.message]
    assert len(told) == 2, [step.message for step in told]
    assert "wait a moment" in told[0].message
    assert "see that the id is right" in told[1].message


async def test_what_lasts_is_told_again_now_and_then_under_the_same_key(
    bench: Bench, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a terminal can put it in the place of what stands there."""
    monkeypatch.setattr(assess, "REQUESTING_TOO_LONG_S", 0.3)
    monkeypatch.setattr(join_by_network, "RENEW_S", 1.0)
    person.types(f"{new_address()}abcdef")
    await person.reads("for 3 s now")
    told = [step for step in person.steps if NOT_THERE in step.message]
    assert {step.key for step in told} == {"zerotier-waiting"}
    assert not {step.key for step in person.steps if step not in told} - {""}


async def test_who_waits_in_vain_is_told_how_to_leave_the_network(
    bench: Bench, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_by_network, "WAIT_S", 1.0)
    network = f"{new_address()}abcdef"
    person.types(network)
    error = await person.fails()
    assert error.code is Code.NOT_READY
    assert f"sudo zerotier-cli leave {network}" in error.hint
    assert f"then again: meshctl join {network}" in error.hint


# -- nobody has let it in --------------------------------------------------------------------------------------------------


async def test_the_machine_that_is_the_controller_lets_itself_in(bench: Bench, person: Person) -> None:
    network = own_network(bench)
    person.types(network, founding=True)
    await person.is_on_it()
    assert (
        f"this machine is the network's controller: authorizing itself, {bench.service.address}"
        in person.read
    )
    assert bench.planet.member(network, bench.service.address)["authorized"] is True
    assert f"on ZeroTier network {network} (lab) as {POOL}.5" in person.read
    assert "not authorized" not in person.read


async def test_where_its_controller_does_not_do_it_the_command_is_told_and_does(
    bench: Bench, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, changing = own_network(bench), bench.planet.change_member

    def deaf(network: str, member: str, changes: dict[str, Any]) -> dict[str, Any]:
        return changing(network, member, {})

    monkeypatch.setattr(bench.planet, "change_member", deaf)
    person.types(network, founding=True)
    assert "the controller took it" in await person.reads("cannot authorize itself: ")
    told = await person.reads("is not authorized on")
    typed = re.search(r"sudo (sh -c '.*')", told)
    assert typed is not None, told
    assert shutil.which("curl"), "what is told to be typed needs it"
    monkeypatch.setattr(bench.planet, "change_member", changing)
    await asyncio.to_thread(
        subprocess.run, shlex.split(typed.group(1)), check=True, capture_output=True, timeout=20
    )
    await person.is_on_it()
    assert bench.planet.member(network, bench.service.address)["authorized"] is True


async def test_on_another_one_s_network_it_waits_for_somebody(bench: Bench, person: Person) -> None:
    controller = new_address()
    bench.planet.hosted.add(controller)
    network = bench.planet.make_network(
        controller,
        {"private": True, "name": "lab", "routes": [{"target": f"{POOL}.0/24", "via": None}], **GIVES},
    )["id"]
    bench.kernel[device_name(network)] = [f"{POOL}.5"]
    person.types(network)
    told = await person.reads("is not authorized on")
    assert f"on a member type: meshctl approve {bench.service.address}" in told
    assert "authorizing itself" not in person.read
    assert not bench.planet.member(network, bench.service.address)["authorized"]
    bench.planet.change_member(network, bench.service.address, {"authorized": True})
    await person.is_on_it()


async def test_who_begins_a_mesh_is_not_sent_to_a_member(bench: Bench, person: Person) -> None:
    """There is none yet."""
    controller = new_address()
    bench.planet.hosted.add(controller)
    network = bench.planet.make_network(controller, {"private": True, "name": "lab"})["id"]
    person.types(network, founding=True)
    told = await person.reads("is not authorized on")
    assert told.endswith(
        f"(its ZeroTier address is {bench.service.address}); authorize that address in the network's admin page"
    )
