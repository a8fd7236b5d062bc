"""Authorizing over ZeroTier Central, its older and its new API, and each way in which that is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from meshd.config.zerotier import Network as Config
from meshd.config.zerotier import ZeroTier as ServiceConfig
from meshd.errors import MeshError
from meshd.overlay.zerotier import ZeroTier
from meshd.overlay.zerotier_admin import Admin, admin_of
from tests.waiting import until
from tests.zerotier.central import FakeCentral
from tests.zerotier.fake import FakeService
from tests.zerotier.planet import NODE, Planet

VERSIONS = ["v1", "v2"]


@pytest.fixture
def central(planet: Planet) -> Iterator[FakeCentral]:
    made = FakeCentral(planet)
    made.start()
    yield made
    made.stop()


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def admin(central: FakeCentral, version: str, network: str, folder: Path, token: str | None = None) -> Admin:
    file = folder / "central.token"
    file.write_text((central.token if token is None else token) + "\n")
    kind: Literal["central", "central-v2"] = "central" if version == "v1" else "central-v2"
    config = Config(id=network, admin=kind, admin_token_file=file, admin_url=central.url(version))
    found = admin_of(config, ZeroTier(ServiceConfig(home=folder)), NODE)
    assert found is not None
    return found


async def test_who_is_authorized_there_is_let_in(
    central: FakeCentral, service: FakeService, version: str, tmp_path: Path
) -> None:
    network = central.make_network()
    client = ZeroTier(ServiceConfig(home=service.home), lambda name: None)

    async def says(status: str) -> bool:
        found = await client.network(network)
        return found is not None and found.status == status

    await client.join(network)
    await until(lambda: says("ACCESS_DENIED"))
    there = admin(central, version, network, tmp_path)
    assert [(m.address, m.authorized) for m in await there.members()] == [(NODE, False)]
    await there.authorize(NODE)
    await until(lambda: says("OK"))
    assert [(m.address, m.authorized) for m in await there.members()] == [(NODE, True)]
    await client.close()


async def test_the_token_is_in_a_header_and_nowhere_else(
    central: FakeCentral, version: str, tmp_path: Path
) -> None:
    network = central.make_network()
    await admin(central, version, network, tmp_path).authorize(NODE)
    scheme = {"v1": "token", "v2": "Bearer"}[version]
    assert {asked.authorization for asked in central.requests} == {f"{scheme} {central.token}"}
    assert not any(central.token in f"{asked.path}{asked.body}" for asked in central.requests)


async def test_a_wrong_token_is_said_to_be_wrong(central: FakeCentral, version: str, tmp_path: Path) -> None:
    there = admin(central, version, central.make_network(), tmp_path, token="another-token")
    with pytest.raises(MeshError) as refused:
        await there.authorize(NODE)
    assert "does not take the token in" in refused.value.detail
    assert "another-token" not in f"{refused.value.detail} {refused.value.hint}"
    assert str(tmp_path / "central.token") in refused.value.hint


async def test_an_unknown_network_is_said_to_be_unknown(
    central: FakeCentral, version: str, tmp_path: Path
) -> None:
    there = admin(central, version, "8056c2e21c0000ff", tmp_path)
    with pytest.raises(MeshError) as refused:
        await there.authorize(NODE)
    assert "knows no network 8056c2e21c0000ff" in refused.value.detail


async def test_asking_too_often_is_said(central: FakeCentral, version: str, tmp_path: Path) -> None:
    there = admin(central, version, central.make_network(), tmp_path)
    central.busy = True
    with pytest.raises(MeshError) as refused:
        await there.members()
    assert "too often" in refused.value.detail
    central.busy = False
    assert await there.members() == []


async def test_a_central_that_is_down_is_said_to_be_down(
    central: FakeCentral, version: str, tmp_path: Path
) -> None:
    there = admin(central, version, central.make_network(), tmp_path)
    await asyncio.to_thread(central.stop)
    with pytest.raises(MeshError) as refused:
        await there.authorize(NODE)
    assert central.url(version).split("/")[2] in refused.value.detail
    await asyncio.to_thread(central.start)
    await there.authorize(NODE)
