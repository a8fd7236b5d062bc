"""The loopback port: what it answers, and that no web page and no other host reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from meshd.component import StopPhase
from meshd.http.request import Request
from meshd.http.route import Route, Text
from meshd.metrics import component
from scripts import reference
from tests.engines.machine import free_port, own_address

SERVED = ["/metrics", "/healthz", "/readyz"]


async def _answer(request: Request) -> Text:
    assert (request.principal.how, request.principal.role) == ("loopback", "read")
    return Text("done\n")


@pytest.fixture
async def port() -> AsyncIterator[str]:
    """Address and port of one that was handed the whole control API."""
    address = own_address()
    where = f"{address}:{free_port(address)}"
    routes = [Route(r.method, r.path, r.access, _answer, "text/plain") for r in reference.routes()]
    made = component(where, routes)
    for start in made.start:
        await start()
    yield where
    (stop,) = made.stops
    assert stop.phase is StopPhase.LISTENERS
    await stop.work()


async def ask(
    port: str, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://{port}{path}", headers=headers) as response,
    ):
        return response.status, await response.text()


@pytest.mark.parametrize("path", SERVED)
async def test_what_is_for_monitoring_is_answered(port: str, path: str) -> None:
    assert await ask(port, path) == (200, "done\n")
    assert await ask(port, path, "HEAD") == (200, "")
    status, told = await ask(port, path, "POST")
    assert (status, "it takes GET, HEAD" in told) == (400, True)


async def test_nothing_else_of_the_control_api_is(port: str) -> None:
    for route in reference.routes():
        if route.path not in SERVED:
            path = route.path.replace("{", "").replace("}", "")
            assert (await ask(port, path, route.method))[0] == 404, route


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "10.0.0.1"}, {"Origin": "http://evil.example"}, {"Origin": "null"}],
)
async def test_a_web_page_reads_nothing_and_does_not_learn_what_is_there(
    port: str, headers: dict[str, str]
) -> None:
    for path in [*SERVED, "/nowhere"]:
        status, told = await ask(port, path, headers=headers)
        assert (status, "cannot answer web pages or other hosts" in told) == (403, True)
