"""Joins a ZeroTier network and discovers members on it, and reports each step to the person who waits."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

import structlog

from meshd import wire
from meshd.config import Config
from meshd.errors import Code, MeshError
from meshd.model import Condition, OverlayState
from meshd.overlay.discovery import Discovery
from meshd.overlay.monitor import Overlay
from meshd.overlay.zerotier_admin import Controller, admin_of, by_hand

WAIT_S = 1800.0  # for a person to authorize this machine
ALONE_S = 10.0  # discovery finds members, and they answer, within a few seconds
RENEW_S = 10.0  # how often to report that nothing has changed, and for how long
_LET_IN_S = 10.0  # after it authorizes itself: within that the controller informs ZeroTier's service
_HOPELESS = {  # seconds to wait for what waiting does not mend, as it may be transient
    "zerotier-not-found": 6.0,  # ZeroTier asks the controller each 5 s: it has said it twice by then
    "zerotier-port-error": 15.0,
    "zerotier-too-old": 15.0,
    "zerotier-no-address": 15.0,
    "overlay-down": 15.0,
}
_LOG = structlog.get_logger(part="mesh")


class JoinByNetwork:
    """The first step of `init --network`, `join NETWORK`, and an invite that carries a network."""

    def __init__(self, config: Config, overlay: Overlay) -> None:
        self._config = config
        self._overlay = overlay

    @contextlib.asynccontextmanager
    async def on(
        self, network: str, emit: wire.Emit, *, again: str, founding: bool = False
    ) -> AsyncIterator[None]:
        """Put this machine on that network, and wait for its address; "" for no network.

        again: what to type to go on later. founding: no member exists yet that could authorize it. A machine with
        access to the network's admin API authorizes itself. Leaves a network that does not exist; else stays on it, so
        that a later authorization is not in vain. Raises MeshError BAD_CONFIG, NO_OVERLAY (a ZeroTierError among
        them), NOT_FOUND, NOT_READY.
        """
        if not network:
            yield
            return
        if self._config.overlay.kind == "static":
            raise MeshError(
                Code.BAD_CONFIG,
                f"cannot use the ZeroTier network {network}",
                'the configuration says [overlay] kind = "static"',
                'take that out of /etc/meshd/meshd.toml, or set kind = "zerotier"; then: sudo systemctl restart meshd',
            )
        zerotier = self._overlay.zerotier
        joined = await zerotier.network(network) is not None
        if not joined:
            await emit(wire.StepEvent(message=f"joining the ZeroTier network {network}"))
            await zerotier.join(network)
        with self._overlay.choosing(network):
            try:
                await self._until_there(_Telling(network, emit, founding=founding), again)
            except MeshError as exc:
                if joined or exc.code is not Code.NOT_FOUND:
                    raise
                await zerotier.leave(network)
                hint = (
                    f"compare the id with the one that a member shows (meshctl status); then again: {again}"
                )
                raise MeshError(
                    exc.code, exc.title, f"{exc.detail}; this machine has left it again", hint
                ) from exc
            yield

    async def _until_there(self, telling: _Telling, again: str) -> None:
        loop, network = asyncio.get_running_loop(), telling.network
        began, tried, quiet_until = loop.time(), False, 0.0
        while True:
            state = self._overlay.state
            problem = state.problem if state.network == network else None
            if state.network == network and state.address is not None:
                await telling.tell(f"on {state.why} as {state.address}")
                return
            if problem is not None and problem.code == "zerotier-denied" and not tried:
                tried = True
                if await self._let_itself_in(state, telling):
                    quiet_until = loop.time() + _LET_IN_S
            elif problem is not None and loop.time() > quiet_until:
                await telling.trouble(problem)
                if telling.lasts_s > _HOPELESS.get(problem.code, math.inf):
                    code = Code.NOT_FOUND if problem.code == "zerotier-not-found" else Code.NO_OVERLAY
                    title = f"cannot get on the network {network}: {problem.title}"
                    raise MeshError(code, title, problem.cause, problem.hint)
            if loop.time() - began > WAIT_S:
                raise MeshError(
                    Code.NOT_READY,
                    f"cannot get on the network {network}",
                    f"{problem.title}: {problem.cause}" if problem else "ZeroTier says nothing of it",
                    f"{problem.hint if problem else 'zerotier-cli info'}; then again: {again}; if it is not the network that"
                    f" you mean: sudo zerotier-cli leave {network}",
                )
            await self._overlay.next_look()

    async def _let_itself_in(self, state: OverlayState, telling: _Telling) -> bool:
        """Authorize this machine by its own access to the admin API; whether it could."""
        network, zerotier = telling.network, self._overlay.zerotier
        admin = admin_of(self._config.overlay.zerotier.network(network), zerotier, state.node)
        if admin is None:
            return False
        controls = isinstance(admin, Controller)
        right = "is the network's controller" if controls else "has a token for the network"
        await telling.tell(f"this machine {right}: authorizing itself, {state.node}")
        try:
            await admin.authorize(state.node)
        except MeshError as exc:
            await telling.tell(f"cannot authorize itself: {exc.detail}")
            if controls:
                telling.hint = await asyncio.to_thread(by_hand, zerotier, network, state.node)
            return False
        _LOG.info("authorized itself on the network", node=state.node, network=network)
        return True

    def seeker(self, network: str) -> Discovery:
        """A discovery of members on that network; it runs while its context is entered."""
        return Discovery(
            self._config.overlay.zerotier.network(network),
            self._overlay.zerotier,
            lambda: self._overlay.state,
            self._config.ports.peer,
        )


class _Telling:
    """Progress events for the person who waits: each trouble when it comes, and periodically how long it lasts."""

    def __init__(self, network: str, emit: wire.Emit, *, founding: bool) -> None:
        self.network = network
        self._emit = emit
        self.hint = "authorize that address in the network's admin page" if founding else ""
        """What to do where this machine is not authorized; "" for the problem's own hint."""
        self._loop = asyncio.get_running_loop()
        self._said = ("", "", "")  # the trouble's identity, without the figures in its text
        self._last = ""
        self._since = self._told = self._loop.time()

    async def tell(self, message: str) -> None:
        await self._emit(wire.StepEvent(message=message))

    async def trouble(self, problem: Condition) -> None:
        now, words = self._loop.time(), self._words(problem)
        what = (problem.code, str(problem.severity), problem.title)
        if what != self._said:
            self._said, self._since = what, now
        elif now - self._told < RENEW_S or words == self._last:
            return
        self._told, self._last = now, words
        await self._emit(wire.StepEvent(message=words, key=problem.code))

    @property
    def lasts_s(self) -> float:
        """Seconds for which the present trouble has lasted."""
        return self._loop.time() - self._since

    def _words(self, problem: Condition) -> str:
        own = self.hint if problem.code == "zerotier-denied" else ""
        return f"{problem.title} ({problem.cause}); {own or problem.hint}"


@contextlib.asynccontextmanager
async def unless_answered(network: str, emit: wire.Emit) -> AsyncIterator[wire.Emit]:
    """Pass events on; where none comes for a while, emit one that says that nobody has answered."""
    answered = asyncio.Event()

    async def pass_on(event: wire.Wire) -> None:
        answered.set()
        await emit(event)

    async def say() -> None:
        try:
            async with asyncio.timeout(ALONE_S):
                await answered.wait()
        except TimeoutError:
            message = (
                "no member of a mesh has answered there yet; if there is none, type on the machine that is to be the"
                f" first: meshctl init --network {network}; this one goes on looking"
            )
            await emit(wire.StepEvent(message=message))

    saying = asyncio.create_task(say(), name="alone")
    try:
        yield pass_on
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
