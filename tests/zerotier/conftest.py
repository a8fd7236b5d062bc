"""The ZeroTiers for the contract: the fake one, and the real one where it can run; a fake for one machine."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from meshd.config.zerotier import ZeroTier as Config
from meshd.overlay.zerotier import ZeroTier
from tests.zerotier.fake import FakeService
from tests.zerotier.lab import Lab
from tests.zerotier.membership import Timing
from tests.zerotier.planet import NODE, Planet
from tests.zerotier.real import why_not

AsZeroTier = Callable[..., ZeroTier]

BOTH = [
    "fake",
    pytest.param("real", marks=[pytest.mark.root, pytest.mark.skipif(bool(why_not()), reason=why_not())]),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BOTH)
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """Three machines for the tests of a module, which make their own networks and stop no service."""
    made = Lab(request.param)
    try:
        await made.open(3)
        yield made
    finally:
        await made.close()


@pytest_asyncio.fixture(params=BOTH)
async def own_lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """Two machines for one test alone."""
    made = Lab(request.param)
    try:
        await made.open(2)
        yield made
    finally:
        await made.close()


@pytest.fixture
def planet() -> Iterator[Planet]:
    with tempfile.TemporaryDirectory(prefix="zt", dir="/tmp") as folder:  # a socket's path must be short
        made = Planet(Path(folder, "planet"))
        made.start()
        yield made
        made.stop()


@pytest_asyncio.fixture
async def service(planet: Planet, tmp_path: Path) -> AsyncIterator[FakeService]:
    made = FakeService(tmp_path / "zt", planet.path, NODE, timing=Timing.quick())
    await made.start(0)
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def make_client(tmp_path: Path) -> AsyncIterator[AsZeroTier]:
    made: list[ZeroTier] = []

    def make(environment: dict[str, str] | None = None, **config: object) -> ZeroTier:
        settings = Config.model_validate({"home": tmp_path / "zt", **config})
        made.append(ZeroTier(settings, {"HOME": str(tmp_path), **(environment or {})}.get))
        return made[-1]

    yield make
    for client in made:
        await client.close()
