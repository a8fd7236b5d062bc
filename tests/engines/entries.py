"""An entry in a real kubo, and in a real cluster."""

from __future__ import annotations

import dataclasses

from meshd.errors import MeshError
from meshd.model import Pin
from meshd.pins.entries import to_node
from tests.engines.machine import Machine, Part, noise
from tests.waiting import until


async def entry(node: Machine, name: str = "minutes ä.pdf") -> Pin:
    """An entry that kubo has and the cluster does not know."""
    root = (await node.add(Part("file", noise(50)))).root
    pin = Pin(
        cid="",
        name=name,
        owner="f1" * 32,
        root=root,
        size=2**53 + 1,
        time=1700000000.125,
        wanted=3,
        directory=True,
        allocations=((await node.cluster.id())["id"],),
        files=7,
    )
    return dataclasses.replace(pin, cid=await node.kubo.put_entry(to_node(pin)))


async def committed(node: Machine, pin: Pin) -> Pin:
    """Pin it, and return what is read back."""

    # The cluster refuses it for some seconds after its start, until it knows its own free space.
    async def taken() -> bool:
        try:
            await node.cluster.pin(pin)
        except MeshError as error:
            if "not enough peers" not in error.detail:
                raise
            return False
        return True

    async def read() -> bool:
        return await node.cluster.allocation(pin.cid) is not None

    await until(taken, 20)
    await until(read)
    found = await node.cluster.allocation(pin.cid)
    assert found is not None
    return found
