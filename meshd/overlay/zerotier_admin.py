"""Authorization on a ZeroTier network: clients of its admin API, where this node has access to it.

Three kinds: this machine's own controller (measured), ZeroTier's older Central (its OpenAPI document v1), and the new
Central (read, not tried: its members are parsed leniently, and what cannot be read back is reported). Only the
configured API is ever called. A token is read from its file at each call, and goes into a header and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp

from meshd.config.zerotier import NODE_ADDRESS
from meshd.config.zerotier import Network as Config
from meshd.errors import Code, MeshError
from meshd.overlay.zerotier import ZeroTier

LEGACY_URL = "https://api.zerotier.com/api/v1"
NEW_URL = "https://central.zerotier.com/api/v2"
_TIMEOUT_S = 15.0
_ANSWER_MOST = 4 * 1024 * 1024
_MEMBERS_MOST = 200  # of our own controller, which needs one call for each


@dataclass(frozen=True, slots=True)
class Member:
    """A node that has asked for access to the network, by its ZeroTier address.

    name: as on the admin page. since: wall clock seconds of its first request or last deauthorization; 0 where
    unknown.
    """

    address: str
    authorized: bool
    name: str = ""
    since: float = 0.0


class Admin(Protocol):
    """The interface of an admin API. Each call raises MeshError that begins with what cannot be done on the network."""

    async def members(self) -> list[Member]:
        """All nodes that asked or are authorized, in no order."""
        ...

    async def authorize(self, address: str) -> None:
        """Authorize a node, even before it asks, and read that back."""
        ...


class Controller:
    """This machine's own controller, a part of its ZeroTier One."""

    def __init__(self, zerotier: ZeroTier, network: str) -> None:
        self._zerotier = zerotier
        self._network = network

    async def members(self) -> list[Member]:
        code, answer = await self._zerotier.controller("GET", f"/network/{self._network}/member")
        if code != 200 or not isinstance(answer, dict):
            raise _cannot(self._network, "this machine's ZeroTier One is not its controller", "")
        addresses = [a for a in answer if NODE_ADDRESS.fullmatch(a)][:_MEMBERS_MOST]
        return [await self.member(address) or Member(address, False) for address in addresses]

    async def authorize(self, address: str) -> None:
        path = f"/network/{self._network}/member/{address}"
        code, _ = await self._zerotier.controller("POST", path, {"authorized": True})
        if code != 200:
            cause = f"this machine's ZeroTier One is not its controller, and {address} is not authorized"
            raise _cannot(self._network, cause, "")
        found = await self.member(address)
        if found is None or not found.authorized:
            raise _cannot(self._network, f"the controller took it and {address} is not authorized", "")

    async def member(self, address: str) -> Member | None:
        """The controller's record of that node; None where it has none, or does not control this network."""
        path = f"/network/{self._network}/member/{address}"
        code, found = await self._zerotier.controller("GET", path)
        if code != 200 or not isinstance(found, dict) or "authorized" not in found:
            return None
        return Member(address, found["authorized"] is True, since=_since(found))


class _Central:
    """The common part of ZeroTier's two hosted APIs."""

    scheme = ""
    default_url = ""

    def __init__(self, config: Config) -> None:
        assert config.admin_token_file is not None  # noqa: S101 - the configuration has checked it
        self._network = config.id
        self._url = config.admin_url or self.default_url
        self._token_file = config.admin_token_file

    async def members(self) -> list[Member]:
        answer = await self._call("GET", "/member")
        listed = answer.get("items") if isinstance(answer, dict) else answer  # v2 wraps some of its lists so
        if not isinstance(listed, list):
            raise self._cannot("its list of members is not what it was known to be", "")
        return [m for m in map(_member, listed) if m is not None]

    async def _read_back(self, address: str) -> None:
        if not any(m.address == address and m.authorized for m in await self.members()):
            raise self._cannot(f"it took it, and {address} is not authorized", "look at its admin page")

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        token = await asyncio.to_thread(self._token)
        url = f"{self._url}/network/{self._network}{path}"
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    trust_env=False,
                ) as session,
                session.request(
                    method,
                    url,
                    json=body,
                    headers={"Authorization": f"{self.scheme} {token}", "User-Agent": "meshd"},
                    allow_redirects=False,  # the token goes to the configured host only
                ) as response,
            ):
                self._check(response.status)
                return _parsed(await _whole(response))
        except TimeoutError:
            raise self._cannot(
                f"{self._host} did not answer within {_TIMEOUT_S:.0f} s", "try again"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise self._cannot(f"{self._host}: {str(exc) or type(exc).__name__}", "try again") from None

    @property
    def _host(self) -> str:
        return urlsplit(self._url).netloc

    def _check(self, status: int) -> None:
        if status in (401, 403):
            raise self._cannot(
                f"{self._host} does not take the token in {self._token_file}, or it has no right to this network",
                f"make a new API token on its account page and write it to {self._token_file}",
            )
        if status == 404:
            raise self._cannot(
                f"{self._host} knows no network {self._network}, or no such member on it",
                "compare the id with the one in [[overlay.zerotier.networks]]",
            )
        if status == 429:
            raise self._cannot(f"{self._host} was asked too often", "try again in a minute")
        if status >= 300:
            raise self._cannot(f"{self._host} answered {status}", "try again; or use its admin page")

    def _token(self) -> str:
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as exc:
            cause = exc.strerror if isinstance(exc, OSError) else "it is not ASCII"
            raise self._cannot(f"{self._token_file}: {cause}", f"ls -l {self._token_file}") from None
        if not token or not token.isprintable():
            raise self._cannot(f"no token stands in {self._token_file}", "write the API token to it")
        return token

    def _cannot(self, cause: str, hint: str) -> MeshError:
        return _cannot(self._network, cause, hint)


class LegacyCentral(_Central):
    """my.zerotier.com, API v1."""

    scheme = "token"
    default_url = LEGACY_URL

    async def authorize(self, address: str) -> None:
        await self._call("POST", f"/member/{address}", {"config": {"authorized": True}})
        await self._read_back(address)


class NewCentral(_Central):
    """central.zerotier.com, API v2."""

    scheme = "Bearer"
    default_url = NEW_URL

    async def authorize(self, address: str) -> None:
        await self._call("POST", "/member/authorize", [address])
        await self._read_back(address)


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > _ANSWER_MOST:
            raise ValueError(f"the answer is longer than {_ANSWER_MOST} bytes")
    return bytes(raw)


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw or b"{}")
    except RecursionError:  # nested more deeply than Python parses
        raise ValueError("its answer is nested too deeply") from None


def _member(document: object) -> Member | None:
    """Parse a member. v1 has nodeId, name and config.authorized, v2 deviceId; the rest only where it is unambiguous."""
    if not isinstance(document, dict):
        return None
    inner = document.get("config")
    config: dict[str, Any] = inner if isinstance(inner, dict) else {}
    address = next(
        (
            v[-10:]
            for k in ("nodeId", "deviceId", "address", "id")
            if isinstance(v := document.get(k, config.get(k)), str) and NODE_ADDRESS.fullmatch(v[-10:])
        ),
        None,
    )
    authorized = config.get("authorized", document.get("authorized"))
    name, since = str(document.get("name") or ""), _since(document | config)
    return Member(address, authorized is True, name, since) if address else None


def _since(document: dict[str, Any]) -> float:
    """`Member.since`. The controller and API v1 have both times in milliseconds, 0 for never."""
    times = [document.get(key) for key in ("lastDeauthorizedTime", "creationTime")]
    return next((t / 1000 for t in times if isinstance(t, int | float) and 0 < t < 1e15), 0.0)


def admin_of(config: Config, zerotier: ZeroTier, node: str) -> Admin | None:
    """The admin API by which this node can authorize others on a network; None without access.

    node: this node's ZeroTier address.
    """
    if config.admin == "central":
        return LegacyCentral(config)
    if config.admin == "central-v2":
        return NewCentral(config)
    if config.admin == "controller" or (node and config.id.startswith(node)):
        return Controller(zerotier, config.id)  # a network's id begins with its controller's address
    return None


def by_hand(zerotier: ZeroTier, network: str, address: str) -> str:
    """The command that authorizes a node on this machine's controller. Blocks (reads the port)."""
    token = shlex.quote(str(zerotier.config.home / "authtoken.secret"))
    url = f"{zerotier.base_url()}/controller/network/{network}/member/{address}"
    call = f'curl -H "X-ZT1-Auth: $(cat {token})" -d "{{\\"authorized\\": true}}" {url}'
    return f"sudo sh -c {shlex.quote(call)}"


def _cannot(network: str, cause: str, hint: str) -> MeshError:
    return MeshError(
        Code.DENIED,
        f"cannot see or change who is on the ZeroTier network {network}",
        cause,
        hint or f"authorize it in the admin page of {network}",
    )
