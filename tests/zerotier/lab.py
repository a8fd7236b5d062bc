"""The machines of the contract, on the fake or the real ZeroTier, and how to observe them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import aiohttp

from meshd.config.zerotier import ZeroTier as Config
from meshd.overlay.zerotier import Network, ZeroTier, ZeroTierError
from tests.mesh.cables import Cables
from tests.waiting import until
from tests.zerotier import real
from tests.zerotier.membership import Timing
from tests.zerotier.namespaces import Window, addresses, devices
from tests.zerotier.planet import Planet, new_address
from tests.zerotier.process import ServiceProcess
from tests.zerotier.world import Place, make_interface, network_settings

Kind = Literal["fake", "real"]
SOON_S = 20.0
"""Time-out for what takes the real one five seconds."""
# As the real one, but with a refresh each two seconds, not each minute.
FAKE_TIMING = Timing(retry=0.5, refresh=2.0, online=0.5)


class Answer(NamedTuple):
    """An HTTP response. body: None where there is none."""

    code: int
    content_type: str
    body: Any


class Service(Protocol):
    """A process, fake or real. namespace: "" for none."""

    home: Path
    address: str
    namespace: str

    def start(self) -> None: ...
    def stop(self) -> None: ...


class Machine:
    """One ZeroTier service. home: its folder. address: 10 hex digits."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._window: Window | None = None
        self.home = service.home
        self.address = service.address

    @property
    def url(self) -> str:
        """The URL at which the tests reach its API, even after a restart."""
        if self._window is not None:
            return self._window.url
        return f"http://127.0.0.1:{(self.home / 'zerotier-one.port').read_text()}"

    @property
    def token(self) -> str:
        return (self.home / "authtoken.secret").read_text().strip()

    async def start(self) -> None:
        """Return when it answers. It may not know its networks yet."""
        await asyncio.to_thread(self._service.start)
        if self._service.namespace and self._window is None:
            self._window = Window(self._service.namespace, self.home / "zerotier-one.port")
            await self._window.open()
        await until(self._answers, SOON_S)

    async def stop(self) -> None:
        await asyncio.to_thread(self._service.stop)

    async def close(self) -> None:
        await self.stop()
        if self._window is not None:
            await self._window.close()

    async def _answers(self) -> bool:
        try:
            return bool(await self.status())
        except ZeroTierError:
            return False

    # -- through the client -----------------------------------------------------------------------------------------

    def client(self) -> ZeroTier:
        return ZeroTier(Config(home=self.home, api=self.url), lambda name: None)

    async def status(self) -> str:
        """Its address, as it says itself."""
        client = self.client()
        try:
            return (await client.status()).address
        finally:
            await client.close()

    async def network(self, network: str) -> Network | None:
        client = self.client()
        try:
            return await client.network(network)
        finally:
            await client.close()

    async def join(self, network: str) -> Network:
        client = self.client()
        try:
            return await client.join(network)
        finally:
            await client.close()

    async def leave(self, network: str) -> bool:
        client = self.client()
        try:
            return await client.leave(network)
        finally:
            await client.close()

    async def says(self, network: str, status: str, seconds: float) -> Network:
        """Wait until it reports that status of a network."""
        seen: list[Network | None] = []

        async def looks() -> bool:
            seen.append(await self.network(network))
            return seen[-1] is not None and seen[-1].status == status

        await until(looks, seconds)
        assert seen[-1] is not None
        return seen[-1]

    # -- beside the client ------------------------------------------------------------------------------------------

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        token: str | None = None,
    ) -> Answer:
        """Send plain HTTP, where the schema matters."""
        headers = {"X-ZT1-Auth": self.token if token is None else token}
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.request(method, self.url + path, data=data, headers=headers) as response,
        ):
            raw = await response.read()
            kind = response.headers.get("Content-Type", "")
            return Answer(response.status, kind, json.loads(raw) if raw else None)

    @property
    def has_interfaces(self) -> bool:
        return bool(self._service.namespace)

    def on_device(self, device: str) -> set[str]:
        """CIDRs on that interface; needs a namespace."""
        return addresses(self._service.namespace, device) if device in self.devices() else set()

    async def has_on_interface(self, device: str, addresses: list[str], seconds: float = SOON_S) -> None:
        """Wait until an interface has exactly these addresses; does nothing without interfaces."""
        if self.has_interfaces:
            await until(lambda: self.on_device(device) == set(addresses), seconds)

    def devices(self) -> set[str]:
        return devices(self._service.namespace)


class Lab:
    """Some machines; the first is the controller of its networks. Without root the fake ones have no interfaces."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.machines: list[Machine] = []
        self.refresh_s = 60.0 if kind == "real" else FAKE_TIMING.refresh
        """After its last configuration a member requests anew, and learns of a deauthorization only then."""
        self.planet: Planet | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="zt", dir="/tmp"))  # a socket's path must be short
        self._cables: Cables | None = None

    async def open(self, count: int) -> None:
        services = await asyncio.to_thread(self._prepare, count)
        self.machines = [Machine(one) for one in services]
        await asyncio.gather(*(machine.start() for machine in self.machines))

    def _prepare(self, count: int) -> list[Service]:
        if self.kind == "real" or os.geteuid() == 0:
            self._cables = Cables()
        if self.kind == "real":
            assert self._cables is not None
            return list(real.prepare(self._cables, self._folder, count))
        self.planet = Planet(self._folder / "planet")
        self.planet.start()
        made: list[Service] = []
        for number in range(count):
            place = self._cables.plug("west") if self._cables else None
            if place is not None:
                make_interface(place.namespace)
            made.append(
                (Place if place else ServiceProcess)(
                    self._folder / f"zt{number}",
                    self.planet,
                    new_address(),
                    timing=FAKE_TIMING,
                    namespace=place.namespace if place else "",
                    endpoint=f"{place.address if place else '10.231.0.1'}/9993",
                )
            )
        self.planet.moon = made[0].address
        return made

    async def close(self) -> None:
        await asyncio.gather(*(machine.close() for machine in self.machines))
        if self._cables is not None:
            await asyncio.to_thread(self._cables.remove)
        if self.planet is not None:
            await asyncio.to_thread(self.planet.stop)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def controller(self) -> Machine:
        return self.machines[0]

    async def make_network(self, **more: Any) -> str:
        """Its id. more: see network_settings."""
        answer = await self.controller.ask(
            "POST", f"/controller/network/{self.controller.address}______", network_settings(**more)
        )
        assert answer.code == 200, answer
        return str(answer.body["id"])

    async def change_network(self, network: str, **changes: Any) -> None:
        answer = await self.controller.ask("POST", f"/controller/network/{network}", changes)
        assert answer.code == 200, answer

    async def change_member(self, network: str, member: Machine, **changes: Any) -> dict[str, Any]:
        """Change a member at the controller; its record then."""
        answer = await self.controller.ask(
            "POST", f"/controller/network/{network}/member/{member.address}", changes
        )
        assert answer.code == 200, answer
        return dict(answer.body)

    async def let_in(self, network: str, member: Machine) -> Network:
        """Authorize and join a machine, and wait for OK."""
        await self.change_member(network, member, authorized=True)
        await member.join(network)
        return await member.says(network, "OK", SOON_S)
