"""Who may be on a network, asked of APIs that behave: one's own controller; and of some that do not: any of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import pytest_asyncio
from aiohttp import web
from structlog.testing import capture_logs

from meshd.config.zerotier import Network as Config
from meshd.config.zerotier import ZeroTier as ServiceConfig
from meshd.errors import Code, MeshError
from meshd.overlay.zerotier import ZeroTier, ZeroTierError
from meshd.overlay.zerotier_admin import Admin, Controller, LegacyCentral, NewCentral, admin_of
from tests.zerotier.fake import FakeService
from tests.zerotier.membership import Timing
from tests.zerotier.planet import Planet, new_address

TOKEN = "a-token-that-nobody-else-may-see"
NETWORK, ASKING = "8056c2e21c000001", "1a2b3c4d5e"
Kind = Literal["central", "central-v2"]
KINDS: list[Kind] = ["central", "central-v2"]


@dataclass
class Api:
    """A server that answers as a test says, and notes what it was asked."""

    url: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Authorization
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path, request.headers.get("Authorization", "")))
        assert self.answer is not None
        return await self.answer(request)

    def says(self, text: str | bytes, status: int = 200, **headers: str) -> None:
        """To everything."""
        body = text.encode() if isinstance(text, str) else text

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=body, status=status, headers=headers)

        self.answer = answer


@pytest_asyncio.fixture
async def make_api() -> AsyncIterator[Callable[[], Awaitable[Api]]]:
    runners: list[web.AppRunner] = []

    async def make() -> Api:
        api = Api()
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", api.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api"
        return api

    yield make
    for runner in runners:
        await runner.cleanup()


@pytest_asyncio.fixture
async def api(make_api: Callable[[], Awaitable[Api]]) -> Api:
    return await make_api()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "central.token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.fixture(params=KINDS)
def admin(request: pytest.FixtureRequest, api: Api, token_file: Path) -> Admin:
    """Of either kind of Central."""
    config = Config(id=NETWORK, admin=request.param, admin_token_file=token_file, admin_url=api.url)
    found = admin_of(config, ZeroTier(ServiceConfig()), ASKING)
    assert found is not None
    return found


async def refusal(asked: Awaitable[object]) -> MeshError:
    """It is refused in words for a person, and the token is neither in them nor in a log."""
    with capture_logs() as logs, pytest.raises(MeshError) as caught:
        await asked
    error = caught.value
    said = f"{error.title} {error.detail} {error.hint} {error!r}"
    assert TOKEN not in said
    assert TOKEN not in repr(logs)
    assert error.title.startswith("cannot ")
    assert error.detail
    assert error.hint
    return error


async def refused_by_central(asked: Awaitable[object]) -> MeshError:
    error = await refusal(asked)
    assert error.code is Code.DENIED
    assert error.title == f"cannot see or change who is on the ZeroTier network {NETWORK}"
    return error


# -- Central's APIs, when they do not do as they should ----------------------------------------------------------------------


async def test_a_redirect_is_not_followed_and_the_token_goes_nowhere_else(
    admin: Admin, api: Api, make_api: Callable[[], Awaitable[Api]]
) -> None:
    other = await make_api()
    other.says("[]")
    for status in (301, 302, 307, 308):
        api.says("", status=status, Location=f"{other.url}/elsewhere")
        assert f"answered {status}" in (await refused_by_central(admin.authorize(ASKING))).detail
        assert f"answered {status}" in (await refused_by_central(admin.members())).detail
    assert other.asked == []
    assert all(authorization.endswith(f" {TOKEN}") for _, _, authorization in api.asked)


async def test_an_authorization_that_was_taken_and_did_not_happen_is_told(admin: Admin, api: Api) -> None:
    for members in (
        "[]",
        f'[{{"nodeId": "{ASKING}", "config": {{"authorized": false}}}}]',
        f'[{{"deviceId": "{ASKING}", "authorized": false}}]',
        f'[{{"nodeId": "{ASKING}", "config": {{"authorized": "yes"}}}}]',
        '[{"nodeId": "1111111111", "config": {"authorized": true}}]',
    ):
        api.says(members)
        error = await refused_by_central(admin.authorize(ASKING))
        assert f"it took it, and {ASKING} is not authorized" in error.detail
        assert "admin page" in error.hint


@pytest.mark.parametrize(
    ("status", "cause", "hint"),
    [
        (401, "does not take the token in", "make a new API token"),
        (403, "does not take the token in", "make a new API token"),
        (404, f"knows no network {NETWORK}", "compare the id"),
        (429, "was asked too often", "try again in a minute"),
        (500, "answered 500", "admin page"),
        (503, "answered 503", "admin page"),
    ],
)
async def test_each_refusal_is_told_with_what_to_do(
    admin: Admin, api: Api, status: int, cause: str, hint: str
) -> None:
    api.says("a page for people", status=status)
    for asked in (admin.authorize(ASKING), admin.members()):
        error = await refused_by_central(asked)
        assert cause in error.detail
        assert hint in error.hint


@pytest.mark.parametrize(
    "text",
    [
        "<html>welcome</html>",
        '{"items": 5}',
        '{"message": "ok"}',
        "5",
        "null",
        '"text"',
        b"\xff\xfe\x00",
        "[" * 100_000,
        '[{"nodeId": ' * 50_000,
    ],
    ids=["html", "no list", "a message", "a number", "null", "text", "not UTF-8", "too deep", "too deep too"],
)
async def test_an_answer_that_is_none_is_told(admin: Admin, api: Api, text: str | bytes) -> None:
    api.says(text)
    await refused_by_central(admin.members())


async def test_members_that_are_none_are_passed_over(admin: Admin, api: Api) -> None:
    api.says(
        '[5, null, [], {}, {"nodeId": 5}, {"nodeId": "short"}, {"config": 5}, {"id": "x-zzzzzzzzzz"},'
        f' {{"nodeId": "{ASKING}", "name": ["a"], "config": {{"authorized": true}}}}]'
    )
    (member,) = await admin.members()
    assert (member.address, member.authorized) == (ASKING, True)


async def test_an_answer_without_an_end_is_given_up(admin: Admin, api: Api) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(b" " * 65536)
            sent += 65536
        return response

    api.answer = endless
    error = await refused_by_central(admin.members())
    assert "longer than 4194304 bytes" in error.detail
    assert sent < 64 << 20


async def test_a_server_that_is_not_there_is_told(token_file: Path) -> None:
    for kind in KINDS:
        config = Config(
            id=NETWORK, admin=kind, admin_token_file=token_file, admin_url="http://127.0.0.1:9/api"
        )
        found = admin_of(config, ZeroTier(ServiceConfig()), "")
        assert found is not None
        error = await refused_by_central(found.members())
        assert error.detail.startswith("127.0.0.1:9: ")


@pytest.mark.parametrize("content", [None, b"", b" \n", b"two\nlines", b"\xff\xfe", b"esc\x1b[2J", "folder"])
async def test_a_token_file_that_holds_no_token_is_told_and_nobody_is_asked(
    admin: Admin, api: Api, token_file: Path, content: bytes | str | None
) -> None:
    token_file.unlink()
    if isinstance(content, bytes):
        token_file.write_bytes(content)
    elif content is not None:
        token_file.mkdir()
    error = await refused_by_central(admin.authorize(ASKING))
    assert str(token_file) in error.detail + error.hint
    assert api.asked == []


async def test_a_token_that_was_changed_is_used_from_then_on(
    admin: Admin, api: Api, token_file: Path
) -> None:
    api.says("[]")
    await admin.members()
    token_file.write_text("another")
    await admin.members()
    assert [a.split(" ")[1] for _, _, a in api.asked] == [TOKEN, "another"]


# -- who has the right -------------------------------------------------------------------------------------------------------


def test_the_configuration_says_by_what_and_a_controller_needs_none(token_file: Path) -> None:
    service = ZeroTier(ServiceConfig())
    assert admin_of(Config(id=NETWORK), service, ASKING) is None
    assert admin_of(Config(id=NETWORK), service, "") is None
    assert isinstance(admin_of(Config(id=NETWORK), service, NETWORK[:10]), Controller)
    assert isinstance(admin_of(Config(id=NETWORK, admin="controller"), service, ASKING), Controller)
    legacy, new = (Config(id=NETWORK, admin=kind, admin_token_file=token_file) for kind in KINDS)
    assert isinstance(admin_of(legacy, service, NETWORK[:10]), LegacyCentral)
    assert isinstance(admin_of(new, service, ASKING), NewCentral)


# -- one's own controller ----------------------------------------------------------------------------------------------------


class Own(NamedTuple):
    """A fake service that is a controller, one network of its own, and meshd's client of it."""

    planet: Planet
    service: FakeService
    network: str
    client: ZeroTier


@pytest_asyncio.fixture
async def own() -> AsyncIterator[Own]:
    folder = Path(tempfile.mkdtemp(prefix="zt", dir="/tmp"))
    planet = Planet(folder / "planet")
    planet.start()
    service = FakeService(folder / "zt", planet.path, new_address(), timing=Timing.quick())
    await service.start(0)
    network = str(planet.make_network(service.address, {"private": True})["id"])
    client = ZeroTier(ServiceConfig(home=folder / "zt"), lambda _: None)
    yield Own(planet, service, network, client)
    await client.close()
    await service.stop()
    planet.stop()
    shutil.rmtree(folder)


async def test_a_controller_shows_who_asked_and_lets_them_in(own: Own) -> None:
    controller = Controller(own.client, own.network)
    assert await controller.members() == []
    own.planet.request(own.network, ASKING)  # a machine asks
    assert [(m.address, m.authorized) for m in await controller.members()] == [(ASKING, False)]
    await controller.authorize(ASKING)
    assert own.planet.member(own.network, ASKING)["authorized"] is True
    assert [(m.address, m.authorized) for m in await controller.members()] == [(ASKING, True)]


async def test_who_has_not_asked_yet_can_be_let_in_before(own: Own) -> None:
    await Controller(own.client, own.network).authorize(ASKING)
    assert own.planet.member(own.network, ASKING)["authorized"] is True


async def test_a_controller_that_takes_it_and_does_not_do_it_is_told(
    own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = own.planet.change_member

    def deaf(network: str, member: str, changes: dict[str, Any]) -> dict[str, Any]:
        return changing(network, member, {})

    monkeypatch.setattr(own.planet, "change_member", deaf)
    error = await refusal(Controller(own.client, own.network).authorize(ASKING))
    assert f"the controller took it and {ASKING} is not authorized" in error.detail
    assert own.network in error.hint


async def test_a_network_of_another_controller_is_told(own: Own) -> None:
    elsewhere = Controller(own.client, NETWORK)
    assert "is not its controller" in (await refusal(elsewhere.members())).detail
    assert ASKING in (await refusal(elsewhere.authorize(ASKING))).detail


async def test_a_service_that_does_not_take_the_token_or_is_down_is_told_as_such(own: Own) -> None:
    controller = Controller(own.client, own.network)
    token = own.service.home / "authtoken.secret"
    before = token.read_text()
    token.write_text(TOKEN)
    error = await refusal(controller.members())
    assert isinstance(error, ZeroTierError)
    assert error.kind == "zerotier-token"
    token.write_text(before)
    await own.service.stop()
    error = await refusal(controller.authorize(ASKING))
    assert isinstance(error, ZeroTierError)
    assert error.kind == "zerotier-not-running"
    await own.service.start(0)
    assert await controller.members() == []
