"""Joins a ZeroTier network and discovers members on it. Tells the person who waits each step."""

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
ALONE_S = 10.0  # members are found, and answer, within a few seconds
RENEW_S = 10.0  # how often a person is told that nothing has changed, and for how long it lasts
_LET_IN_S = 10.0  # from authorizing itself: within that ZeroTier's service hears of it from the controller
_HOPELESS = {  # seconds; what waiting does not mend is waited for a while, as it may be of the moment
    "zerotier-not-found": 6.0,  # ZeroTier asks the controller each 5 s: it has said it twice by then
    "zerotier-port-error": 15.0,
    "zerotier-too-old": 15.0,
    "zerotier-no-address": 15.0,
    "overlay-down": 15.0,
}
_LOG = structlog.get_logger(part="mesh")


class JoinByNetwork:
    """What `init --network`, `join NETWORK` and an invite that carries a network do before anything else."""

    def __init__(self, config: Config, overlay: Overlay) -> None:
        self._config = config
        self._overlay = overlay

    @contextlib.asynccontextmanager
    async def on(
        self, network: str, emit: wire.Emit, *, again: str, founding: bool = False
    ) -> AsyncIterator[None]:
        """This machine is on that network, with an address; "" asks for none. again: what to type to go on later.
        founding: there is no member yet who could let it in.

        Where this machine itself has the right to, it authorizes itself. A network that turns out not to be there is left
        again; else the machine stays on it, so that who authorizes it later does not do it in vain.
        Raises MeshError BAD_CONFIG, NO_OVERLAY (a ZeroTierError among them), NOT_FOUND, NOT_READY.
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
        """Whether it did: a machine that may authorize others needs nobody who authorizes it."""
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
        """Looks for members there while it is entered."""
        return Discovery(
            self._config.overlay.zerotier.network(network),
            self._overlay.zerotier,
            lambda: self._overlay.state,
            self._config.ports.peer,
        )


class _Telling:
    """What one person is told who waits: a trouble when it comes, and now and then how long it lasts."""

    def __init__(self, network: str, emit: wire.Emit, *, founding: bool) -> None:
        self.network = network
        self._emit = emit
        self.hint = "authorize that address in the network's admin page" if founding else ""
        """What to type, or do, where this machine is not authorized; "" for what the problem says itself."""
        self._loop = asyncio.get_running_loop()
        self._said = ("", "", "")  # what it is, whatever the figures in its words
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
        """For how long the present trouble has been the same."""
        return self._loop.time() - self._since

    def _words(self, problem: Condition) -> str:
        own = self.hint if problem.code == "zerotier-denied" else ""
        return f"{problem.title} ({problem.cause}); {own or problem.hint}"


@contextlib.asynccontextmanager
async def unless_answered(network: str, emit: wire.Emit) -> AsyncIterator[wire.Emit]:
    """Passes events on; where none comes for a while, says that nobody has answered."""
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
