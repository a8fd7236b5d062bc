"""A fake ZeroTier One: its local API on a real socket, with the states and times of the real one (1.14.1).

tests/zerotier/test_contract.py runs on both: where they differ, this one is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.zerotier.controllers import RefusedError
from tests.zerotier.devices import Devices
from tests.zerotier.membership import Membership, Timing, device_name, mac
from tests.zerotier.planet import ask

_NETWORK = r"{network:[0-9a-fA-F]{16}}"
_MEMBER = r"{member:[0-9a-fA-F]{10}}"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeService:
    """home: its folder, made if it is missing. planet: the Planet's socket. devices: None for no interfaces."""

    def __init__(
        self,
        home: Path,
        planet: Path,
        address: str,
        *,
        timing: Timing | None = None,
        devices: Devices | None = None,
        endpoint: str = "10.231.0.1/9993",
    ) -> None:
        self.home = home
        self.address = address
        self.timing = timing or Timing()
        self._planet = planet
        self._devices = devices
        self._endpoint = endpoint
        self._networks: dict[str, Membership] = {}
        self._changing = asyncio.Lock()
        """One thing at a time happens to the networks and their interfaces: a call may come while one is settled."""
        self._token = ""
        self._since = 0
        self._started = 0.0
        self._runner: web.AppRunner | None = None
        self._task: asyncio.Task[None] | None = None

    # -- start and stop ---------------------------------------------------------------------------------------------

    async def start(self, port: int = 9993) -> None:
        """Listen; port 0 takes a free one. Its number is in zerotier-one.port. Raises OSError."""
        self._make_home()
        self._started = time.monotonic()
        await self._ask("here", self.address, self._endpoint)
        app = web.Application(middlewares=[self._check])
        app.add_routes(self._routes())
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        (self.home / "zerotier-one.port").write_text(str(self._runner.addresses[0][1]))
        self._task = asyncio.create_task(self._run())

    async def failed(self) -> None:
        """Wait for a failure of its background task, and raise it: a service that only answers would hide it."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Stop: its files stay, the interfaces go. Raises what ended it before."""
        task, self._task = self._task, None
        try:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        finally:
            if self._runner is not None:
                await self._runner.cleanup()
            if self._devices is not None:
                await asyncio.to_thread(self._devices.remove_all)
            with contextlib.suppress(OSError):  # the planet may have ended before
                await self._ask("gone", self.address)

    def _make_home(self) -> None:
        (self.home / "networks.d").mkdir(parents=True, exist_ok=True)
        (self.home / "identity.public").write_text(f"{self.address}:0:{(self.address * 13)[:128]}")
        token = self.home / "authtoken.secret"
        if not token.exists():
            token.touch(mode=0o600)
            token.write_text(secrets.token_hex(12))
        self._token = token.read_text().strip()

    # -- networks ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        self._since = (await self._ask("pushes", self.address, sys.maxsize))["now"]
        await asyncio.sleep(self.timing.load)
        for kept in sorted((self.home / "networks.d").glob("*.conf")):
            remembered = json.loads(kept.read_text())
            joined = await self._join(kept.stem)
            joined.config, joined.settings = remembered["config"], remembered["settings"]
        while True:
            pushed = await self._ask("pushes", self.address, self._since)
            self._since = pushed["now"]
            for network, answer in pushed["sent"].items():
                if joined_one := self._networks.get(network):
                    joined_one.answered(answer, time.monotonic())
            for joined in list(self._networks.values()):
                now = time.monotonic()
                if joined.due(now, self.timing):
                    joined.answered(await self._ask("request", joined.network, self.address), now)
                await self._settle(joined, [] if pushed["kept_off"] else joined.addresses)
            await asyncio.sleep(self.timing.look)

    async def _join(self, network: str) -> Membership:
        async with self._changing:
            if network not in self._networks:
                joined = Membership(self.address, network, device_name(network))
                joined.next_request_at = time.monotonic() + self.timing.first_request
                if self._devices is not None:
                    await asyncio.to_thread(self._devices.add, joined.device, mac(network, self.address))
                self._networks[network] = joined
            return self._networks[network]

    async def _leave(self, network: str) -> bool:
        """Whether it was joined."""
        async with self._changing:
            left = self._networks.pop(network, None)
            if left is None:
                return False
            if self._devices is not None:
                await asyncio.to_thread(self._devices.remove, left.device)
            (self.home / "networks.d" / f"{network}.conf").unlink(missing_ok=True)
            return True

    async def _settle(self, joined: Membership, addresses: list[str]) -> None:
        """Apply a configuration to memory and interface. Write it to disk first, as a stop may come at any moment."""
        async with self._changing:
            if self._networks.get(joined.network) is not joined:  # it was left meanwhile
                return
            remembered = json.dumps({"config": joined.config, "settings": joined.settings})
            path = self.home / "networks.d" / f"{joined.network}.conf"
            if not path.exists() or path.read_text() != remembered:
                path.write_text(remembered)
            if self._devices is not None:
                await asyncio.to_thread(self._devices.sync, joined.device, addresses)

    # -- HTTP -------------------------------------------------------------------------------------------------------

    def _routes(self) -> list[web.RouteDef]:
        network, controlled = f"/network/{_NETWORK}", f"/controller/network/{_NETWORK}"
        return [
            web.get("/status", self._status),
            web.get("/network", self._list_networks),
            web.get(network, self._show_network),
            web.post(network, self._post_network),
            web.put(network, self._post_network),
            web.delete(network, self._delete_network),
            web.get("/peer", self._peers),
            web.get("/controller", self._controller),
            web.get("/controller/network", self._controlled("networks")),
            web.post("/controller/network", self._controlled("make_network")),
            web.post(r"/controller/network/{other:[0-9a-fA-F]{10}}______", self._controlled("make_network")),
            web.get(controlled, self._controlled("network")),
            web.post(controlled, self._controlled("change_network")),
            web.delete(controlled, self._controlled("remove_network")),
            web.get(f"{controlled}/member", self._member_list),
            web.get(f"/unstable{controlled}/member", self._member_documents),
            web.get(f"{controlled}/member/{_MEMBER}", self._controlled("member")),
            web.post(f"{controlled}/member/{_MEMBER}", self._controlled("change_member")),
            web.delete(f"{controlled}/member/{_MEMBER}", self._controlled("remove_member")),
        ]

    @web.middleware
    async def _check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the token before anything else, even the path."""
        bearer = re.sub(r"(?i)^bearer ", "", request.headers.get("Authorization", ""))
        given = request.headers.get("X-ZT1-Auth", request.query.get("auth", bearer))
        if given != self._token:
            return _json({}, status=401)
        try:
            return await handler(request)
        except web.HTTPException as exc:
            return web.Response(status=404 if exc.status == 405 else exc.status)
        except RefusedError as exc:
            return web.Response(status=exc.code)

    async def _status(self, request: web.Request) -> web.Response:
        port = int((self.home / "zerotier-one.port").read_text())
        mine = f"{self._endpoint.split('/')[0]}/{port}"
        return _json(
            {
                "address": self.address,
                "clock": time.time_ns() // 1_000_000,
                "config": {
                    "settings": {
                        "allowTcpFallbackRelay": True,
                        "forceTcpRelay": False,
                        "homeDir": str(self.home),
                        "listeningOn": [mine],
                        "portMappingEnabled": False,
                        "primaryPort": port,
                        "secondaryPort": 40887,
                        "softwareUpdate": "disable",
                        "softwareUpdateChannel": "release",
                        "surfaceAddresses": [mine],
                        "tertiaryPort": 0,
                    }
                },
                "online": time.monotonic() - self._started >= self.timing.online,
                "planetWorldId": 149604618,
                "planetWorldTimestamp": 1644592324813,
                "publicIdentity": (self.home / "identity.public").read_text(),
                "tcpFallbackActive": False,
                "version": "1.14.1",
                "versionBuild": 0,
                "versionMajor": 1,
                "versionMinor": 14,
                "versionRev": 1,
            }
        )

    async def _list_networks(self, request: web.Request) -> web.Response:
        return _json([joined.as_json() for _, joined in sorted(self._networks.items())])

    async def _show_network(self, request: web.Request) -> web.Response:
        joined = self._networks.get(request.match_info["network"].lower())
        return _json({}, status=404) if joined is None else _json(joined.as_json())

    async def _post_network(self, request: web.Request) -> web.Response:
        """Join a network. Ignores a body that is no JSON."""
        joined = await self._join(request.match_info["network"].lower())
        with contextlib.suppress(ValueError, UnicodeDecodeError):
            changes = json.loads(await request.read())
            known = joined.settings if isinstance(changes, dict) else {}
            joined.settings.update({n: v for n, v in changes.items() if n in known and isinstance(v, bool)})
        await self._settle(joined, joined.addresses)
        return _json(joined.as_json())

    async def _delete_network(self, request: web.Request) -> web.Response:
        return _json({"result": True} if await self._leave(request.match_info["network"].lower()) else {})

    async def _peers(self, request: web.Request) -> web.Response:
        return _json([_peer(one) for one in await self._ask("peers", self.address)])

    async def _controller(self, request: web.Request) -> web.Response:
        now = time.time_ns() // 1_000_000
        return _json({"controller": True, "apiVersion": 4, "clock": now, "databaseReady": True})

    async def _member_list(self, request: web.Request) -> web.Response:
        found = await self._ask("members", request.match_info["network"].lower())
        return _json({one["id"]: one["revision"] for one in found})

    async def _member_documents(self, request: web.Request) -> web.Response:
        found = await self._ask("members", request.match_info["network"].lower())
        let_in = sum(one["authorized"] for one in found)
        return _json({"data": found, "meta": {"authorizedCount": let_in, "totalCount": len(found)}})

    def _controlled(self, name: str) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            words: list[Any] = [
                request.match_info[k].lower() for k in ("network", "member") if k in request.match_info
            ]
            if request.match_info.get("other", self.address).lower() != self.address:
                raise RefusedError("", 400)
            if request.method in ("POST", "PUT"):
                try:
                    words.append(json.loads(await request.read()))
                except ValueError as exc:
                    return _json(
                        {"error": 500, "description": f"[json.exception.parse_error.101] {exc}"}, status=500
                    )
            return _json(
                await self._ask(
                    name, *(words if name not in ("networks", "make_network") else [self.address, *words])
                )
            )

        return handle

    async def _ask(self, name: str, *words: Any) -> Any:
        return await asyncio.to_thread(ask, self._planet, name, *words)


def _peer(one: dict[str, Any]) -> dict[str, Any]:
    """As GET /peer shows it. Who has no endpoint is relayed, or not reached at all."""
    now = time.time_ns() // 1_000_000
    known = [int(part) for part in one["version"].split(".")] if one["version"] else [-1, -1, -1]
    path = {
        "active": True,
        "address": one["endpoint"],
        "expired": False,
        "lastReceive": now,
        "lastSend": now,
        "localPort": 0,
        "localSocket": 94163193970864,
        "preferred": True,
        "trustedPathId": 0,
    }
    return {
        "address": one["address"],
        "isBonded": False,
        "latency": 1 if one["endpoint"] else -1,
        "paths": [path] if one["endpoint"] else [],
        "role": one["role"],
        "tunneled": False,
        "version": ".".join(map(str, known)),
        "versionMajor": known[0],
        "versionMinor": known[1],
        "versionRev": known[2],
    }


def _json(document: object, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(document).encode(), content_type="application/json", status=status)
