"""Fifty members, simulated in this process, and 400 copies that are waited for at once: how long the loop is ever held up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.ground import Row, Scale
from meshd import wire
from meshd.mesh import certificate
from meshd.mesh.heartbeat import Heartbeats
from meshd.mesh.store import MeshStore
from meshd.model import Pin
from meshd.pins.copies import Copies
from meshd.pins.nodes import Nodes
from meshd.pins.wait import Waiter, silent
from scripts.nodes import NodeError

_MEMBERS = 50
_COPIES_EACH = 3
_OUTSTANDING = 400
_HOLD_S = 0.05
_SHARE = 0.25


def run(folder: Path, scale: Scale) -> list[Row]:
    """The other members answer at once, and are fetching for ever. Raises NodeError where one is given up."""
    print(f"members: {_OUTSTANDING} copies are waited for on {_MEMBERS} members", flush=True)
    return asyncio.run(_run(folder, scale.idle_s))


async def _run(folder: Path, seconds: float) -> list[Row]:
    store = await _mesh(folder)
    peers = cast(Any, _Fetching())
    heartbeats = Heartbeats(store, peers)
    copies = Copies(cast(Any, None), store, peers)
    waiter = Waiter(copies, Nodes(cast(Any, None), store, cast(Any, None), heartbeats.states))
    others = [m.cluster_id for m in store.peers()]
    pins = [_pin(number, others) for number in range(_OUTSTANDING // _COPIES_EACH + 1)]
    with _holds() as holds:
        before = time.thread_time()
        waits = [asyncio.create_task(waiter.wait(pin, silent)) for pin in pins]
        await asyncio.sleep(seconds)
        share = (time.thread_time() - before) / seconds
    if len(others) != _MEMBERS - 1 or any(wait.done() for wait in waits):
        raise NodeError(f"{sum(w.done() for w in waits)} of {len(waits)} entries were waited for no longer")
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await copies.stop()
    what = f"{_OUTSTANDING} copies on {_MEMBERS} members"
    longest = max(holds)
    return [
        Row(
            f"{what}: the loop's longest hold",
            f"{longest * 1000:.0f} ms",
            "",
            "",
            f"< {_HOLD_S * 1000:.0f} ms",
            longest < _HOLD_S,
        ),
        Row(f"{what}: share of a core", f"{share:.0%}", "", "", f"< {_SHARE:.0%}", share < _SHARE),
    ]


@contextmanager
def _holds() -> Iterator[list[float]]:
    """Processor seconds of each callback that the loop runs meanwhile: on a busy machine the clock would tell of others."""
    found: list[float] = []
    handle = cast(Any, asyncio.Handle)
    ordinary = handle._run

    def timed(self: Any) -> None:
        before = time.thread_time()
        ordinary(self)
        found.append(time.thread_time() - before)

    handle._run = timed
    try:
        yield found
    finally:
        handle._run = ordinary


class _Fetching:
    """All the others: each has a little more of everything whenever it is asked."""

    def __init__(self) -> None:
        self._bytes = 0

    async def call(self, member: wire.Member, verb: object, asked: wire.ConfirmRequest) -> wire.Confirmed:
        self._bytes += 1
        await asyncio.sleep(0)
        return wire.Confirmed(
            states=dict.fromkeys(asked.cids, "fetching"),
            fetched=dict.fromkeys(asked.cids, self._bytes),
            fetched_bytes=dict.fromkeys(asked.cids, self._bytes),
        )

    def address_of(self, member: wire.Member) -> str:
        return member.address


def _pin(number: int, others: list[str]) -> Pin:
    first = number * _COPIES_EACH
    allocations = tuple(others[(first + n) % len(others)] for n in range(_COPIES_EACH))
    return Pin(f"c{number}", f"name-{number}", "f1", "r", 10**9, 1.0, _COPIES_EACH, allocations=allocations)


async def _mesh(folder: Path) -> MeshStore:
    own = folder / "members"
    own.mkdir()
    members = [_member(number) for number in range(_MEMBERS)]
    store = MeshStore(own, members[0].fingerprint)
    await store.create(
        "bench", wire.Joiner.model_validate(members[0].model_dump(include={*wire.Joiner.model_fields}))
    )
    await store.merge(wire.Roster(members=[*store.roster().members, *members[1:]]))
    return store


def _member(number: int) -> wire.Member:
    pem = certificate.make(Ed25519PrivateKey.generate())
    return wire.Member(
        fingerprint=certificate.fingerprint_of(pem),
        name=f"node-{number}",
        certificate=pem,
        address=f"10.0.0.{number + 1}",
        peer_port=4010,
        swarm_port=4001,
        cluster_port=9096,
        kubo_id=f"kubo{number}",
        cluster_id=f"cluster{number}",
        admitted=time.time(),
        stamp=time.time(),
    )
