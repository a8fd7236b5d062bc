"""Who may be on the mesh's network, as far as a member knows: where to authorize, who asks, and who was deauthorized."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import RawTestServer, TestClient

from meshd import config
from meshd.control import requests
from meshd.control.requests import RequestsApi
from meshd.errors import Code
from meshd.health.notices import Notices
from meshd.http.adapter import Api as Kernel
from meshd.http.problem import Surface
from meshd.http.route import Route
from meshd.mesh.join_by_invite import join
from meshd.mesh.network_admin import NetworkAdmin
from meshd.mesh.secrets import Secrets
from meshd.model import OverlayState, PeerState
from meshd.overlay.monitor import Overlay
from meshd.overlay.zerotier import ZeroTier
from meshd.principal import Access, Principal
from meshd.wire import AuthorizedEvent, JoinRequests
from tests.mesh_room.nodes import Clock, Node, refusal_of
from tests.zerotier.fake import FakeService
from tests.zerotier.membership import Timing
from tests.zerotier.planet import Planet, new_address

MakeNode = Callable[..., Node]
Client = TestClient[web.BaseRequest, None]
Api = Callable[[Node, str], Awaitable[Client]]
BARN, DAIRY = "1b00000001", "1d00000001"


class Site:
    """attic and barn are a mesh on `network`. controller: its ZeroTier address, which is attic's."""

    def __init__(self, folder: Path, attic: Node, barn: Node) -> None:
        self.folder = folder
        self.attic, self.barn = attic, barn
        self.planet = Planet(folder / "planet")
        self.planet.start()
        self.controller = new_address()
        self.service = FakeService(folder / "zt", self.planet.path, self.controller, timing=Timing.quick())
        self.network = str(self.planet.make_network(self.controller, {"private": True})["id"])
        self._clients: list[ZeroTier] = []

    async def open(self, *, attic_at: str) -> None:
        """attic_at: attic's ZeroTier address."""
        await self.service.start(0)
        await self.attic.start()
        await self.barn.start()
        Secrets.generate().save(self.attic.folder)
        await self.attic.store.create("archive", self.attic.joiner(zerotier=attic_at), "", self.network)
        line = await self.attic.invite()
        own = self.barn.joiner(zerotier=BARN)
        admitted = await join(line, own, self.barn.identity, self.barn.peers, now=self.barn.now)
        await self.barn.store.adopt(admitted, "", self.network)

    def admin(self, node: Node, zerotier: str, text: str = "") -> NetworkAdmin:
        """As that member has it. zerotier: its own address, "" while its service is down. text: of its configuration."""
        settings = config.parse(f'[overlay.zerotier]\nhome = "{self.service.home}"\n{text}', "the test")
        client = ZeroTier(settings.overlay.zerotier, lambda _: None)
        self._clients.append(client)
        overlay = Overlay(settings.overlay, client)
        overlay.state = OverlayState("10.144.0.1", network=self.network, node=zerotier)
        return NetworkAdmin(settings, node.store, overlay)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        await self.service.stop()
        self.planet.stop()
        shutil.rmtree(self.folder)


@pytest_asyncio.fixture
async def site(make_node: MakeNode) -> AsyncIterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="zt", dir="/tmp"))  # a socket's path must be short
    made = Site(folder, make_node("attic"), make_node("barn"))
    yield made
    await made.close()


# -- where to authorize ----------------------------------------------------------------------------------------------


async def test_a_member_without_the_right_names_the_member_that_has_it(site: Site) -> None:
    """The network's id begins with its controller's address, and that is attic's."""
    await site.open(attic_at=site.controller)
    admin = site.admin(site.barn, BARN)
    assert not admin.has_right
    error = await refusal_of(admin.authorize(DAIRY))
    assert error.code is Code.DENIED
    assert error.hint.startswith(f"on attic, the network's controller, type: meshctl approve {DAIRY}; or ")
    assert "my.zerotier.com" not in error.hint
    listing = await refusal_of(admin.waiting())
    assert listing.hint.startswith("on attic, the network's controller, type: meshctl requests; or ")


async def test_only_where_no_member_is_the_controller_it_may_be_zerotiers_own(site: Site) -> None:
    await site.open(attic_at="1a00000001")
    error = await refusal_of(site.admin(site.barn, BARN).authorize(DAIRY))
    assert f"on ZeroTier Central that is https://my.zerotier.com/network/{site.network}" in error.hint


async def test_a_controller_whose_service_is_down_is_the_controller_still(site: Site) -> None:
    """And says that its service is down, rather than that it has no right."""
    await site.open(attic_at=site.controller)
    await site.service.stop()
    error = await refusal_of(site.admin(site.attic, "").authorize(DAIRY))
    assert error.hint == "sudo systemctl enable --now zerotier-one"


# -- who waits, and who was deauthorized ---------------------------------------------------------------------------


async def deauthorized(admin: NetworkAdmin, *peers: PeerState) -> Mapping[str, str]:
    await admin.look_for_deauthorized(peers)
    return admin.deauthorized


async def test_who_waits_is_told_with_the_time_since_when(site: Site) -> None:
    await site.open(attic_at=site.controller)
    before = time.time()
    site.planet.request(site.network, DAIRY)
    (waiting,) = await site.admin(site.attic, site.controller).waiting()
    assert waiting.address == DAIRY
    assert before - 1 <= waiting.since <= time.time() + 1


async def test_a_member_that_was_deauthorized_is_known_by_its_name(site: Site) -> None:
    await site.open(attic_at=site.controller)
    site.planet.change_member(site.network, BARN, {"authorized": True})
    away = PeerState(site.barn.fingerprint, "barn", "10.144.0.2", last_seen=1.0)
    admin = site.admin(site.attic, site.controller)
    assert await deauthorized(admin, away) == {}
    before = time.time()
    site.planet.change_member(site.network, BARN, {"authorized": False})
    assert await deauthorized(admin, away) == {site.barn.fingerprint: BARN}
    (waiting,) = await admin.waiting()
    assert admin.member(waiting.address) == "barn"
    assert waiting.since >= before - 1, "since it was deauthorized, not since it first came"
    here = PeerState(site.barn.fingerprint, "barn", "10.144.0.2", last_seen=1.0, reachable=True)
    assert await deauthorized(admin, here) == {}, "who is here is not asked about"


async def test_of_whom_the_controller_knows_nothing_it_is_not_said_that_it_was_deauthorized(
    site: Site,
) -> None:
    """As of a network that this machine's service does not control, though the configuration says so."""
    await site.open(attic_at=site.controller)
    away = PeerState(site.barn.fingerprint, "barn", "10.144.0.2", last_seen=1.0)
    admin = site.admin(site.attic, site.controller)
    assert await deauthorized(admin, away) == {}, "barn never asked"
    site.planet.remove_network(site.network)
    assert await deauthorized(admin, away) == {}


async def test_who_is_not_the_controller_does_not_say_why_a_member_is_away(site: Site) -> None:
    await site.open(attic_at=site.controller)
    site.planet.change_member(site.network, BARN, {"authorized": False})
    away = PeerState(site.attic.fingerprint, "attic", "10.144.0.1", last_seen=1.0)
    assert await deauthorized(site.admin(site.barn, BARN), away) == {}


async def test_a_controller_that_does_not_answer_is_no_trouble_for_who_asks_what_is_wrong(site: Site) -> None:
    await site.open(attic_at=site.controller)
    site.planet.change_member(site.network, BARN, {"authorized": False})
    away = PeerState(site.barn.fingerprint, "barn", "10.144.0.2", last_seen=1.0)
    admin = site.admin(site.attic, site.controller)
    assert await deauthorized(admin, away) == {site.barn.fingerprint: BARN}
    await site.service.stop()
    assert await deauthorized(admin, away) == {site.barn.fingerprint: BARN}


# -- as meshctl is answered ------------------------------------------------------------------------------------------------


async def identify(_: web.BaseRequest, __: Access) -> Principal:
    return Principal(label="root", how="local", role="admin", uid=0)


@pytest_asyncio.fixture
async def api(site: Site) -> AsyncIterator[Api]:
    """The routes of `meshctl requests` and `approve` on that member."""
    clients: list[Client] = []

    async def make(node: Node, zerotier: str) -> Client:
        served = RequestsApi(lambda: node.approval, site.admin(node, zerotier))
        routes = [
            Route("GET", "/v1/requests", "admin", served.waiting, JoinRequests),
            Route("POST", "/v1/requests/{ref}/authorize", "admin", served.authorize, (AuthorizedEvent,)),
        ]
        clients.append(TestClient(RawTestServer(Kernel(Surface(part="test"), identify, routes))))
        await clients[-1].start_server()
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


async def events_of(client: Client, path: str) -> list[dict[str, Any]]:
    answer = await client.post(path)
    return [json.loads(line) for line in (await answer.text()).splitlines()]


async def test_approving_one_that_is_gone_ends_and_says_meanwhile_what_to_look_at(
    site: Site, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert requests.HELLO_S <= 120.0
    assert requests.BY_HAND_S <= 600.0
    monkeypatch.setattr(requests, "HELLO_S", 1.5)
    monkeypatch.setattr(requests, "DOUBT_S", 0.5)
    await site.open(attic_at=site.controller)
    client = await api(site.attic, site.controller)
    *steps, last = await events_of(client, f"/v1/requests/{DAIRY}/authorize")
    assert site.planet.member(site.network, DAIRY)["authorized"] is True
    assert [step["message"] for step in steps] == [
        f"authorizing {DAIRY} on the network {site.network}",
        f"waiting for {DAIRY} to ask to join",
        f"it has not asked yet; see that on that machine this still waits: meshctl join {site.network}",
    ]
    assert last["problem"]["code"] == "not-ready"
    assert f"on that machine type: meshctl join {site.network}" in last["problem"]["hint"]


async def test_approving_without_the_right_says_on_which_member_to_type_it(
    site: Site, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "HELLO_S", 0.0)
    monkeypatch.setattr(requests, "DOUBT_S", 0.0)
    monkeypatch.setattr(requests, "BY_HAND_S", 0.5)
    await site.open(attic_at=site.controller)
    first, waiting, last = await events_of(await api(site.barn, BARN), f"/v1/requests/{DAIRY}/authorize")
    assert waiting["message"] == f"waiting for {DAIRY} to ask to join", "somebody has to go there first"
    assert last["problem"]["code"] == "not-ready"
    assert first["message"] == (
        f"this node may not authorize {DAIRY} on {site.network}: on attic, the network's controller, type:"
        f" meshctl approve {DAIRY}"
    )


async def test_a_list_of_who_asks_names_a_member_and_where_it_cannot_be_seen_who_can_see_it(
    site: Site, api: Api
) -> None:
    await site.open(attic_at=site.controller)
    site.planet.request(site.network, DAIRY)
    site.planet.here(DAIRY, "203.0.113.7/9993")
    site.planet.change_member(site.network, BARN, {"authorized": False})
    seen = await (await (await api(site.attic, site.controller)).get("/v1/requests")).json()
    rows = {r["node"]: (r["name"], r["member"], r["address"], r["since"] > 0) for r in seen["requests"]}
    assert rows == {DAIRY: ("", False, "203.0.113.7", True), BARN: ("barn", True, "", True)}
    blind = await (await (await api(site.barn, BARN)).get("/v1/requests")).json()
    assert "on attic, the network's controller, type: meshctl requests" in blind["why_no_network"]


# -- how a member came ----------------------------------------------------------------------------------------------------


async def test_who_had_an_invite_was_invited_and_who_had_none_was_approved(
    site: Site, make_node: MakeNode, clock: Clock
) -> None:
    """Only the node that let it in knows which; the others know who it was."""
    await site.open(attic_at=site.controller)
    clock.at += 10.0  # who came with barn, or before, is no news to it
    shed, desk = await make_node("shed").start(), make_node("desk")
    await desk.start()
    await shed.join(await site.attic.invite())
    await site.attic.store.admit_asked(desk.joiner())
    await site.barn.store.merge(site.attic.store.roster())
    told = Notices(site.folder / "attic.json", site.attic.store).unread()
    assert set(told) == {("shed", "attic", "invited"), ("desk", "attic", "approved")}
    told = Notices(site.folder / "barn.json", site.barn.store).unread()
    assert set(told) == {("shed", "attic", "let in"), ("desk", "attic", "let in")}
