"""Client of ZeroTier One's local API, as ZeroTier's own command line uses it (measured on 1.14.1).

It is HTTP on loopback; the token is in a file that only root may read. A network that is not joined is 404 with `{}`,
a wrong token 401, and an invalid network id 404 with an empty body.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import aiohttp
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from meshd.config.zerotier import ZeroTier as Config
from meshd.errors import Code, MeshError

DEFAULT_PORT = 9993
_TIMEOUT_S = 5.0
_TOKEN_MOST = 256
_CREDENTIAL = (
    "zerotier.token"  # as systemd hands it over: LoadCredential=zerotier.token:/var/lib/zerotier-one/…
)
_M = TypeVar("_M", bound=BaseModel)


class ZeroTierError(MeshError):
    """The error for a service that cannot be used. kind: a condition's code."""

    def __init__(self, kind: str, title: str, detail: str, hint: str) -> None:
        super().__init__(Code.NO_OVERLAY, title, detail, hint)
        self.kind = kind


class _Answer(BaseModel):
    """The base of the responses. Ignores members that are not named here, as newer versions add some."""


class Status(_Answer):
    """GET /status. address: this node's ZeroTier address, 10 hex digits. online: it reaches ZeroTier's roots."""

    address: Annotated[str, Field(pattern=r"^[0-9a-f]{10}$")]
    online: bool = False
    version: str = ""


class Route(_Answer):
    """A managed route. target: a CIDR; via: the gateway's address, None for a route into the network itself."""

    target: str
    via: str | None = None


class Network(_Answer):
    """One joined network. addresses: CIDRs, v4 and v6 in no fixed order. device: the interface's name."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    name: str = ""
    status: str = ""
    addresses: list[str] = Field(default_factory=list, alias="assignedAddresses")
    device: str = Field("", alias="portDeviceName")
    routes: list[Route] = Field(default_factory=list)
    login_url: str = Field(
        "", alias="authenticationURL"
    )  # read, not measured: only with AUTHENTICATION_REQUIRED


class Way(_Answer):
    """A path to a peer. address: "ip/port"."""

    address: str = ""
    active: bool = False
    expired: bool = False


class Peer(_Answer):
    """GET /peer: nodes by ZeroTier address, never by overlay address. latency: ms, -1 for unknown."""

    address: str
    latency: int = -1
    role: str = ""
    paths: Annotated[list[Way], BeforeValidator(lambda v: v or [])] = Field(default_factory=list)

    @property
    def direct(self) -> bool:
        """Whether there is a direct path; without one ZeroTier's roots relay."""
        return any(path.active and not path.expired for path in self.paths)

    @property
    def ip(self) -> str:
        """The IP address of the direct path; "" where there is none."""
        paths = (path.address for path in self.paths if path.active and not path.expired)
        return next(paths, "").rpartition("/")[0]


class ZeroTier:
    """Client of one service. Reads token and port at each call: both may change when the service is set up anew."""

    def __init__(self, config: Config, environment: Callable[[str], str | None] = os.environ.get) -> None:
        self.config = config
        self._environment = environment
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # -- each raises ZeroTierError where the service cannot be used -------------------------------------------------

    async def status(self) -> Status:
        """This machine's ZeroTier address and whether it is online."""
        return _read(Status, (await self._call("GET", "/status"))[1])

    async def networks(self) -> list[Network]:
        """All joined networks."""
        return [_read(Network, one) for one in await self._list("/network")]

    async def network(self, network_id: str) -> Network | None:
        """One joined network; None where it is not joined."""
        code, answer = await self._call("GET", f"/network/{network_id}")
        return None if code == 404 or not answer else _read(Network, answer)

    async def join(self, network_id: str) -> Network:
        """Join a network, idempotently. Returns its state at that moment."""
        code, answer = await self._call("POST", f"/network/{network_id}", body={})
        if code != 200:
            raise _strange(f"to joining {network_id} it answered {code}")
        return _read(Network, answer)

    async def leave(self, network_id: str) -> bool:
        """Leave a network; whether it was joined."""
        return bool((await self._call("DELETE", f"/network/{network_id}"))[1])

    async def peers(self) -> list[Peer]:
        """The nodes that the service talks to."""
        return [_read(Peer, one) for one in await self._list("/peer")]

    async def controller(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Call the controller in the same service; HTTP status and JSON. path: below /controller."""
        return await self._call(method, f"/controller{path}", body=body)

    # -- token, port, call ------------------------------------------------------------------------------------------

    @property
    def handed_over(self) -> Path | None:
        """The token's file as systemd handed it over at meshd's start: a later token needs a restart.

        Where there was none the unit hands over an empty one, as a unit whose credential is missing would not start.
        """
        path = self._credential()
        return path if path is not None and path.read_bytes().strip() else None

    def _credential(self) -> Path | None:
        folder = self._environment("CREDENTIALS_DIRECTORY")
        path = Path(folder) / _CREDENTIAL if folder else None
        return path if path is not None and path.exists() else None

    @property
    def token_file(self) -> Path:
        """The token's file: as configured, as handed over, in the service's folder, or in the user's."""
        if self.config.token_file is not None:
            return self.config.token_file
        if (handed := self.handed_over) is not None:
            return handed
        usual = self.config.home / "authtoken.secret"
        own = Path(self._environment("HOME") or "/") / ".zeroTierOneAuthToken"
        return own if not _readable(usual) and _readable(own) else usual

    def base_url(self) -> str:
        """http://127.0.0.1:PORT"""
        if self.config.api:
            return self.config.api
        port = str(DEFAULT_PORT)
        with contextlib.suppress(OSError, UnicodeDecodeError):
            port = (self.config.home / "zerotier-one.port").read_text(encoding="ascii").strip() or port
        return f"http://127.0.0.1:{port if port.isdigit() and 0 < int(port) < 65536 else DEFAULT_PORT}"

    def _token(self) -> str:
        path = self.token_file
        try:
            raw = path.read_bytes()[:_TOKEN_MOST]
        except FileNotFoundError:
            if self.config.token_file is None and not self.config.home.exists():
                raise _not_installed(self.config.home) from None
            raise self._no_such_token(path) from None
        except PermissionError:
            came_later = (
                self._credential() is not None
            )  # the unit hands it over, and had nothing to hand over
            hint = "sudo systemctl restart meshd (it is handed over then)" if came_later else _let_read(path)
            raise _no_token(path, f"user {_user()} may not read it", hint) from None
        except OSError as exc:
            raise _no_token(path, exc.strerror or str(exc), f"ls -l {path}") from None
        try:
            token = raw.decode("ascii").strip()
        except UnicodeDecodeError:
            token = ""
        if not token or not token.isprintable():
            raise _no_token(path, "no token stands in it", "sudo systemctl restart zerotier-one")
        return token

    async def _list(self, path: str) -> list[Any]:
        """A response that must be a list. Anything else is an error: taken as empty, each network would seem left."""
        answer = (await self._call("GET", path))[1]
        if not isinstance(answer, list):
            raise _strange(f"its answer to GET {path} is no list")
        return answer

    async def _call(self, method: str, path: str, *, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        token = await asyncio.to_thread(self._token)
        url = await asyncio.to_thread(self.base_url)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                connector=aiohttp.TCPConnector(force_close=True, limit=4),
            )
        try:
            async with self._session.request(
                method, url + path, json=body, headers={"X-ZT1-Auth": token}, allow_redirects=False
            ) as response:
                raw = await response.read()
                if response.status == 401:
                    raise self._wrong_token()
                if response.status not in (200, 404):
                    raise _strange(f"to {method} {path} it answered {response.status}")
                return response.status, await _json(response, raw)
        except TimeoutError:
            raise ZeroTierError(
                "zerotier-not-running",
                "cannot ask ZeroTier One",
                f"its service at {url} did not answer within {_TIMEOUT_S:.0f} s",
                "sudo systemctl restart zerotier-one",
            ) from None
        except (aiohttp.ClientError, OSError) as exc:
            raise ZeroTierError(
                "zerotier-not-running",
                "cannot ask ZeroTier One",
                f"its service does not answer at {url}: {_reason(exc)}",
                "sudo systemctl enable --now zerotier-one",
            ) from None

    def _no_such_token(self, path: Path) -> ZeroTierError:
        """The error for a missing token, which the service writes beside its identity at its first start."""
        if self.config.token_file is not None:
            hint = f"copy it: sudo install -D -m 0400 -o {_user()} {self.config.home}/authtoken.secret {path}"
            return _no_token(path, "there is no such file", hint)
        if (self.config.home / "identity.public").exists():
            return _no_token(path, "there is no such file", "sudo systemctl restart zerotier-one")
        cause = "there is no such file: ZeroTier One was never started here"
        return _no_token(path, cause, "sudo systemctl enable --now zerotier-one")

    def _wrong_token(self) -> ZeroTierError:
        path = self.token_file
        if path == self.handed_over:
            hint = "sudo systemctl restart meshd (the token was handed over when it was started)"
        elif self.config.token_file is not None:
            hint = (
                f"copy it anew: sudo install -m 0400 -o {_user()} {self.config.home}/authtoken.secret {path}"
            )
        else:
            hint = "sudo systemctl restart zerotier-one"
        return ZeroTierError(
            "zerotier-token", "cannot ask ZeroTier One", f"it does not take the token in {path}", hint
        )


def _read(model: type[_M], document: object) -> _M:
    try:
        return model.model_validate(document)
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, error["loc"])) or "it"
        raise _strange(f"in its answer {where}: {error['msg']}") from None


async def _json(response: aiohttp.ClientResponse, raw: bytes) -> Any:
    if not raw:
        return {}
    try:
        return await response.json(content_type=None)
    except ValueError:
        raise _strange("its answer is not JSON") from None


def _readable(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except OSError:
        return False


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _let_read(path: Path) -> str:
    user, copy = _user(), "/etc/meshd/zerotier.token"
    return (
        f"give it a copy: sudo install -D -m 0400 -o {user} {path} {copy}; then in /etc/meshd/meshd.toml:"
        f' [overlay.zerotier] token_file = "{copy}"; and: sudo systemctl restart meshd'
    )


def _reason(exc: BaseException) -> str:
    found = exc.os_error if isinstance(exc, aiohttp.ClientConnectorError) else exc
    if isinstance(found, OSError) and found.errno is not None and found.errno in errno.errorcode:
        return os.strerror(found.errno)  # asyncio's own message repeats the address and hides the cause
    return str(exc) or type(exc).__name__


def _not_installed(home: Path) -> ZeroTierError:
    return ZeroTierError(
        "zerotier-not-installed",
        "cannot use ZeroTier: it is not installed",
        f"there is no {home}",
        "install ZeroTier One as https://www.zerotier.com/download says, then: sudo systemctl enable --now"
        " zerotier-one",
    )


def _no_token(path: Path, cause: str, hint: str) -> ZeroTierError:
    return ZeroTierError("zerotier-token", f"cannot read ZeroTier's token {path}", cause, hint)


def _strange(cause: str) -> ZeroTierError:
    return ZeroTierError(
        "zerotier-strange",
        "cannot understand ZeroTier One",
        cause,
        "see that it is ZeroTier One 1.10 or newer: zerotier-cli info",
    )
