"""One HTTP exchange with another node, and its failures as errors for a person."""

from __future__ import annotations

import errno
import io
import ssl

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from meshd.errors import Code, MeshError
from meshd.mesh.invites import host_port
from meshd.wire import Nothing
from meshd.wire.verbs import A, Q, Verb

CONNECT_S = 3.0
ANSWER_MOST = 8 * 1024 * 1024  # bytes
_IDLE_S = 20.0  # shorter than the server's, so that the server rarely closes a connection that is about to be reused
_RESETS = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)
_NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)


class WrongNodeError(MeshError):
    """Another node answers at that address. fingerprint: that node's."""

    def __init__(self, where: str, fingerprint: str) -> None:
        super().__init__(
            Code.PEER_UNREACHABLE,
            f"cannot trust {where}",
            "another node answers there, or somebody between",
            "see who has that address: meshctl peers",
        )
        self.fingerprint = fingerprint


def open_session(local: str, trust: ssl.SSLContext | aiohttp.Fingerprint) -> aiohttp.ClientSession:
    """A session with connections from the address `local`; without cookies, proxies and decompression."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(local_addr=(local, 0), ssl=trust, limit=16, keepalive_timeout=_IDLE_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", "User-Agent": "meshd"},
        auto_decompress=False,
        trust_env=False,
    )


async def exchange(session: aiohttp.ClientSession, address: str, port: int, verb: Verb[Q, A], asked: Q) -> A:
    """Send one request, return its answer.

    Raises the MeshError of the answer, aiohttp.ClientError, TimeoutError, OSError.
    """
    by_query, says = verb.method == "GET", not isinstance(asked, Nothing)
    query = {name: str(value) for name, value in asked.model_dump().items()} if by_query else {}
    where = URL.build(scheme="https", host=address, port=port, path=verb.path, query=query)
    # A stream, as aiohttp writes it in pieces: a long body does not block the event loop.
    data = io.BytesIO(asked.model_dump_json().encode()) if says and not by_query else None
    headers = {"Content-Type": "application/json"} if data is not None else None
    async with session.request(
        verb.method, where, data=data, headers=headers, allow_redirects=False
    ) as response:
        raw = await _read(response)
        status = response.status
    try:
        if status == 200:
            return verb.gives.model_validate_json(raw)
        problem = _Problem.model_validate_json(raw)
    except ValidationError:
        raise MeshError(
            Code.PEER_UNREACHABLE,
            f"cannot understand {where.authority}",
            f"its answer to {verb.method} {verb.path} ({status}) is not what a meshd answers",
            "see that both machines run a meshd of about the same age: meshctl version",
        ) from None
    raise MeshError.from_problem(problem.model_dump())


class _Problem(BaseModel):
    code: str
    title: str
    detail: str = ""
    hint: str = ""
    by: str = ""


async def _read(response: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > ANSWER_MOST:
            raise aiohttp.ClientPayloadError(f"the answer is longer than {ANSWER_MOST} bytes")
    return bytes(raw)


def hung_up(exc: BaseException) -> bool:
    """Whether the server closed an established connection, as its restart does with a kept-alive one."""
    if isinstance(exc, aiohttp.ClientConnectorError):
        return False
    return isinstance(exc, (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError)) or (
        isinstance(exc, OSError) and exc.errno in _RESETS
    )


def explain(name: str, address: str, port: int, exc: BaseException) -> MeshError:
    """A failed exchange as PEER_UNREACHABLE, with cause and hint. name: the member's, "" for a stranger."""
    where = host_port(address, port)
    called = f"{name} ({where})" if name else where
    there = f"on {name}" if name else "on that machine"
    if isinstance(exc, aiohttp.ServerFingerprintMismatch):
        return WrongNodeError(where, exc.got.hex())
    if isinstance(exc, (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError)):
        return WrongNodeError(called, "")
    cause, hint = _cause(exc, there)
    return MeshError(Code.PEER_UNREACHABLE, f"cannot reach {called}", cause, hint)


def _cause(exc: BaseException, there: str) -> tuple[str, str]:
    number = exc.errno if isinstance(exc, OSError) else None
    if isinstance(exc, TimeoutError):
        return (
            "it did not answer in time",
            f"see that it is on and not overloaded; {there} type: systemctl status meshd",
        )
    if isinstance(exc, ssl.SSLError) or isinstance(exc.__cause__, ssl.SSLError) or "SSL" in str(exc):
        return (
            "it refused this node's certificate: it does not know this node yet, or is in another mesh",
            f"{there} type: meshctl peers",
        )
    if number == errno.ECONNREFUSED:
        return ("nothing listens there", f"{there} type: systemctl status meshd")
    if number == errno.EADDRNOTAVAIL:
        return ("this machine's overlay address is gone", "meshctl status")
    if number in _NO_WAY:
        return (
            "there is no way to it on the overlay",
            "see that both machines are on the overlay: meshctl status",
        )
    if hung_up(exc):
        return ("it hung up", f"{there} type: systemctl status meshd")
    reason = exc.strerror if isinstance(exc, OSError) else ""
    return (reason or str(exc) or type(exc).__name__, f"{there} type: systemctl status meshd")
