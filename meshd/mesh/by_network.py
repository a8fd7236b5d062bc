"""Getting onto a ZeroTier network, and finding there whom to ask: each step said to the person who waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from meshd import wire
from meshd.config import Config
from meshd.errors import Code, MeshError
from meshd.model import Condition
from meshd.overlay.follow import Overlay
from meshd.overlay.seek import Seeker

WAIT_S = 1800.0  # for a person to authorize this machine
ALONE_S = 10.0  # members are found, and answer, within a few seconds
_HOPELESS = {  # seconds; what waiting does not mend is waited for a while, as it may be of the moment
    "zerotier-not-found": 6.0,  # ZeroTier asks the controller each 5 s: it has said it twice by then
    "zerotier-port-error": 15.0,
    "zerotier-too-old": 15.0,
    "zerotier-no-address": 15.0,
    "overlay-down": 15.0,
}

Emit = Callable[[wire.Wire], Awaitable[None]]


class ByNetwork:
    """What `init --network`, `join NETWORK` and an invite that carries a network do before anything else."""

    def __init__(self, config: Config, overlay: Overlay) -> None:
        self._config = config
        self._overlay = overlay

    @contextlib.asynccontextmanager
    async def on(self, network: str, emit: Emit, *, again: str) -> AsyncIterator[None]:
        """This machine is on that network, with an address; "" asks for none. again: what to type to go on later.

        A network that turns out not to be there is left again; else the machine stays on it, so that who authorizes it
        later does not do it in vain. Raises MeshError BAD_CONFIG, NO_OVERLAY (a ZeroTierError among them).
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
                await self._until_there(network, emit, again)
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

    async def _until_there(self, network: str, emit: Emit, again: str) -> None:
        loop = asyncio.get_running_loop()
        began, said, since = loop.time(), "", loop.time()
        while True:
            state = self._overlay.state
            problem = state.problem if state.network == network else None
            if state.network == network and state.address is not None:
                await emit(wire.StepEvent(message=f"on {state.why} as {state.address}"))
                return
            if problem is not None and (line := _told(problem)) != said:
                said, since = line, loop.time()
                await emit(wire.StepEvent(message=line))
            if problem is not None and loop.time() - since > _HOPELESS.get(problem.code, WAIT_S):
                code = Code.NOT_FOUND if problem.code == "zerotier-not-found" else Code.NO_OVERLAY
                raise MeshError(
                    code, f"cannot get on the network {network}: {problem.title}", problem.cause, problem.hint
                )
            if loop.time() - began > WAIT_S:
                raise MeshError(
                    Code.NOT_READY,
                    f"cannot get on the network {network}",
                    f"{problem.title}: {problem.cause}" if problem else "ZeroTier says nothing of it",
                    f"{problem.hint if problem else 'zerotier-cli info'}; then again: {again}",
                )
            await self._overlay.next_look()

    def seeker(self, network: str) -> Seeker:
        """Looks for members there while it is entered."""
        return Seeker(
            self._config.overlay.zerotier.network(network),
            self._overlay.zerotier,
            lambda: self._overlay.state,
            self._config.ports.peer,
        )


@contextlib.asynccontextmanager
async def unless_answered(network: str, emit: Emit) -> AsyncIterator[Emit]:
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


def _told(problem: Condition) -> str:
    return f"{problem.title} ({problem.cause}); {problem.hint}"
