"""Nonces for strangers to sign: each is valid once and for a minute, and their number is bounded."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from meshd.errors import Code, MeshError

LIFETIME_S = 60.0


class Nonces:
    """The open nonces, in memory: after a restart a joiner asks for another one."""

    def __init__(
        self, *, most: int = 512, per_address: int = 10, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """most: open nonces at a time. per_address: nonces that one address gets a minute."""
        self._most = most
        self._per_address = per_address
        self._monotonic = monotonic
        self._open: OrderedDict[str, float] = OrderedDict()  # nonce -> when it expires
        self._given: OrderedDict[str, deque[float]] = (
            OrderedDict()
        )  # address -> when, the most recent address last

    def give(self, address: str) -> str:
        """Issue a nonce, 64 hex digits. Raises MeshError BUSY where this address, or all together, ask too often."""
        now = self._monotonic()
        self._expire(now)
        given = self._given.get(address, deque())
        if len(given) >= self._per_address or len(self._open) >= self._most:
            raise MeshError(
                Code.BUSY,
                "cannot give out another challenge now",
                "too many were asked for in the last minute",
                "wait a minute, then again: meshctl join",
            )
        given.append(now)
        self._given[address] = given
        self._given.move_to_end(address)
        nonce = secrets.token_hex(32)
        self._open[nonce] = now + LIFETIME_S
        return nonce

    def take(self, nonce: str) -> bool:
        """Spend a nonce; whether it was open: issued, not expired, and not spent before."""
        self._expire(self._monotonic())
        return self._open.pop(nonce, None) is not None

    def _expire(self, now: float) -> None:
        while self._open and next(iter(self._open.values())) <= now:
            self._open.popitem(last=False)
        while self._given:
            address, given = next(iter(self._given.items()))
            if given[-1] > now - LIFETIME_S:
                break
            del self._given[address]
        for given in self._given.values():
            while given and given[0] <= now - LIFETIME_S:
                given.popleft()
