"""The ZeroTiers for the contract: the fake one, and the real one where it can be run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.zerotier.lab import Lab
from tests.zerotier.real import why_not

BOTH = [
    "fake",
    pytest.param("real", marks=[pytest.mark.root, pytest.mark.skipif(bool(why_not()), reason=why_not())]),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BOTH)
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """Three machines for a module's tests, which make networks of their own and stop no service."""
    made = Lab(request.param)
    try:
        await made.open(3)
        yield made
    finally:
        await made.close()


@pytest_asyncio.fixture(params=BOTH)
async def own_lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """Two machines for one test, which may do to them what it likes."""
    made = Lab(request.param)
    try:
        await made.open(2)
        yield made
    finally:
        await made.close()
