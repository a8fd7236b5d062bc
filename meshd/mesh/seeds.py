"""Bootstrap peers: looks for members that are away at the configured seeds, and at the roster's addresses.

All nodes can get new addresses at once (pods, a router that hands out others), and then the roster is wrong about all.
An address counts only once the member's certificate was seen there; from then on the member is called there as always,
by mutual TLS, and its own statement comes with the roster.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from meshd.config import parse_where
from meshd.errors import Code, MeshError, quoted
from meshd.mesh.address_book import AddressBook, Where
from meshd.mesh.certificate import grouped
from meshd.mesh.heartbeat import Heartbeats
from meshd.mesh.invites import host_port
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.store import MeshStore
from meshd.overlay.addresses import is_private
from meshd.wire import Member, PeerAddress

ASKED_MOST = 64  # addresses a round
_OF_ONE_NAME_MOST = 16  # addresses of one name
_AT_ONCE = 8  # addresses asked concurrently
_RESOLVE_S = 5.0
_FIRST_S, _LONGEST_S = 2.0, 60.0  # between two rounds, doubling while the same members are away
_JITTER = 0.2  # of that, so that nodes that were started together do not ask together
_TICK_S = 1.0
_LOG = structlog.get_logger(part="seeds")

Resolve = Callable[[str], Awaitable[list[str]]]


class Resolver:
    """Resolves host names, each in a daemon thread of its own, which is never joined.

    A resolver may hang for long, and the event loop's own threads write files. Callers that ask for a name that is
    being resolved share the result.
    """

    def __init__(self) -> None:
        self._under_way: dict[
            str, tuple[asyncio.Future[list[str]], float]
        ] = {}  # deadline of each, by the loop's time

    async def __call__(self, host: str) -> list[str]:
        """The addresses of a host name, or the address itself.

        Raises OSError; TimeoutError, and at once where resolving that name takes too long already.
        """
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        if host not in self._under_way:
            loop = asyncio.get_running_loop()
            begun: asyncio.Future[list[str]] = loop.create_future()
            threading.Thread(target=self._ask, args=(host, begun), name="resolve", daemon=True).start()
            self._under_way[host] = (begun, loop.time() + _RESOLVE_S)
        answer, deadline = self._under_way[host]
        async with asyncio.timeout_at(deadline):
            return await asyncio.shield(answer)  # other callers may wait for it, too

    def _ask(self, host: str, answer: asyncio.Future[list[str]]) -> None:
        found: list[str] | OSError
        try:
            infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(info[4][0]).partition("%")[0] for info in infos))
        except (OSError, UnicodeError) as exc:
            found = exc if isinstance(exc, OSError) else OSError(str(exc))
        with contextlib.suppress(RuntimeError):  # the event loop has ended meanwhile
            answer.get_loop().call_soon_threadsafe(self._done, host, answer, found)

    def _done(self, host: str, answer: asyncio.Future[list[str]], found: list[str] | OSError) -> None:
        self._under_way.pop(host, None)
        if isinstance(found, OSError):
            answer.set_exception(found)
            answer.exception()  # maybe no caller waits any more
        else:
            answer.set_result(found)


def usable(address: str, local: str) -> bool:
    """Whether a member may be called at `address` from `local`: private, and of the same family. Pure."""
    with contextlib.suppress(ValueError):
        return is_private(address) and (":" in address) == (":" in local)
    return False


def asked(candidates: Iterable[Where], local: str, known: Iterable[Where]) -> list[Where]:
    """The candidates to ask, each once, ASKED_MOST at most. known: where this node and reachable members are. Pure."""
    left_out = set(known)
    usable_ones = (w for w in dict.fromkeys(candidates) if w not in left_out and usable(w[0], local))
    return [where for where, _ in zip(usable_ones, range(ASKED_MOST), strict=False)]


class Pace:
    """Exponential back-off of the rounds: at once in a new situation, then ever more rarely while it stays the same."""

    def __init__(self) -> None:
        self._situation: object = None
        self._pause = self._due = 0.0

    def due(self, situation: object, now: float) -> bool:
        """Whether a round is due. now: monotonic seconds."""
        if situation != self._situation:
            self._situation, self._pause, self._due = situation, _FIRST_S, now
        if now < self._due:
            return False
        self._due = now + self._pause * random.uniform(1 - _JITTER, 1)  # noqa: S311 -- no secret
        self._pause = min(2 * self._pause, _LONGEST_S)
        return True


class Seeds:
    """Looks for members that are away (`run`), and takes an address that a person gives (`set_address`)."""

    def __init__(
        self,
        *,
        seeds: Sequence[str],
        port: int,
        store: MeshStore,
        peers: PeerClient,
        address_book: AddressBook,
        heartbeats: Heartbeats,
        local_address: Callable[[], str | None],
        resolve: Resolve | None = None,
    ) -> None:
        """seeds: as in the configuration. port: of a seed without one. local_address: this node's overlay address.

        heartbeats: knows who is away, and sends a beat at once to a member that was found elsewhere.
        """
        self._seeds = [(host, given or port) for host, given in map(parse_where, seeds)]
        self._port = port
        self._store = store
        self._peers = peers
        self._whereabouts = address_book
        self._heartbeats = heartbeats
        self._local_address = local_address
        self._resolve = resolve or Resolver()

    async def run(self) -> None:
        """Look in rounds, until cancelled."""
        pace = Pace()
        while True:
            await self._whereabouts.tidy(self._store.peers())
            local, away = self._local_address(), frozenset(m.fingerprint for m in self._away())
            if local is not None and away and pace.due((local, away), time.monotonic()):
                await self.look()
            await asyncio.sleep(_TICK_S)

    async def look(self) -> set[str]:
        """Make one round: ask wherever an away member may be; the fingerprints of those found elsewhere."""
        local, away = self._local_address(), {m.fingerprint: m for m in self._away()}
        if local is None or not away:
            return set()
        stated = [(m.address, m.peer_port) for m in away.values()]  # one may have got the address of another
        there = [self._whereabouts.of(m) for m in self._store.peers() if m.fingerprint not in away]
        targets = asked([*await self._seeded(), *stated], local, [(local, self._port), *there])
        free = asyncio.Semaphore(_AT_ONCE)

        async def ask(where: Where) -> str:
            async with free:
                with contextlib.suppress(MeshError):  # nothing there, or no meshd
                    fingerprint = (await self._peers.hello(*where)).fingerprint
                    member = away.get(fingerprint)
                    if member is not None and self._whereabouts.of(member) != where:
                        await self._believe(member, where)
                        return fingerprint
            return ""

        return set(await asyncio.gather(*map(ask, targets))) - {""}

    async def set_address(self, name: str, text: str) -> PeerAddress:
        """Override a member's address, after its certificate was seen there.

        Raises MeshError NOT_FOUND, BAD_REQUEST, NO_OVERLAY, PEER_UNREACHABLE; then nothing has changed.
        """
        member = self._store.by_name(name)
        if member is None or member.fingerprint == self._store.fingerprint:
            own = member is not None
            raise MeshError(
                Code.BAD_REQUEST if own else Code.NOT_FOUND,
                f"cannot set the address of {name[:80]!a}",
                "it is this node, which says itself where it is" if own else "no member has that name",
                "meshctl status" if own else "meshctl peers",
            )
        title = f"cannot use {text[:80]!a} as the address of {name}"
        problems: list[MeshError] = []
        for where in await self._candidates(text, title, name):
            try:
                shown = (await self._peers.hello(*where)).fingerprint
            except MeshError as exc:
                cause = f"{host_port(*where)}: {exc.detail or exc.title}"
                problems.append(MeshError(exc.code, title, cause, exc.hint))
                continue
            if shown == member.fingerprint:
                await self._believe(member, where)
                return PeerAddress(name=name, address=where[0], port=where[1])
            problems.append(self._another(title, where, shown))
        raise problems[-1]

    async def _candidates(self, text: str, title: str, name: str) -> list[Where]:
        again = f"meshctl peers set {quoted(name)} 10.144.0.23"
        local = self._local_address()
        if local is None:
            raise MeshError(
                Code.NO_OVERLAY, title, "this machine has no overlay address now", "meshctl status"
            )
        try:
            host, port = parse_where(text)
            found = await self._resolve(host)
        except ValueError as exc:
            raise MeshError(Code.BAD_REQUEST, title, str(exc), again) from None
        except OSError as exc:  # TimeoutError is one
            cause = exc.strerror or "its name was not resolved in time"
            raise MeshError(Code.BAD_REQUEST, title, cause, again) from None
        candidates = [(a, port or self._port) for a in found if usable(a, local)]
        if not candidates:
            cause = (
                f"{', '.join(found[:4]) or 'nothing'}: expected an address that can be reached from {local}"
            )
            raise MeshError(Code.BAD_REQUEST, title, cause, again)
        return candidates[:_OF_ONE_NAME_MOST]

    def _another(self, title: str, where: Where, shown: str) -> MeshError:
        there = self._store.by_fingerprint(shown)
        if shown == self._store.fingerprint:
            cause, hint = "this node itself answers there", "meshctl peers"
        elif there is not None and not there.forgotten:
            called = self._store.name_of(shown)
            cause = f"{called} answers there"
            hint = f"meshctl peers set {quoted(called)} {host_port(*where)}"
        else:
            cause = f"a node answers there that is no member of this mesh: {grouped(shown)}"
            hint = "on the machine that you mean: meshctl status"
        return MeshError(Code.PEER_UNREACHABLE, title, cause, hint)

    async def _believe(self, member: Member, where: Where) -> None:
        await self._whereabouts.found(member, where)
        _LOG.info("a member is at another address", peer=member.name, address=host_port(*where))
        self._heartbeats.poke(member.fingerprint)

    def _away(self) -> list[Member]:
        """The members that were called at their addresses, and do not answer."""
        if self._store.mesh is None or self._store.forgotten:
            return []
        away = {s.fingerprint for s in self._heartbeats.states() if not s.reachable and s.problem}
        return [m for m in self._store.peers() if m.fingerprint in away]

    async def _seeded(self) -> list[Where]:
        """The seeds' addresses now. A name that cannot be resolved has none."""
        found = await asyncio.gather(*(self._addresses(host) for host, _ in self._seeds))
        return [(a, port) for (_, port), all_ in zip(self._seeds, found, strict=True) for a in all_]

    async def _addresses(self, host: str) -> list[str]:
        try:
            return (await self._resolve(host))[:_OF_ONE_NAME_MOST]
        except OSError as exc:  # TimeoutError is one
            _LOG.debug("a seed has no address now", seed=host, error=str(exc))
            return []
