"""Pending join requests of one member: in memory, bounded in number and in time.

A request costs a stranger nothing, so each state has a bound and a time-out:

- committed: the node has sent its commitment; no person sees it. For a minute.
- waiting: the node has proved its key, and has a code. While it polls for the answer, and an hour at most.
- admitting: a person has approved it, and the write is under way. Nothing else happens to it meanwhile.
- admitted, denied: the answer, for ten minutes, so that a lost response can be requested again.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from meshd.errors import Code, MeshError
from meshd.mesh import sas
from meshd.wire import Joiner

COMMITTED_S = 60.0
UNLOOKED_S = 30.0
VISIBLE_S = 3600.0
DECIDED_S = 600.0
REFUSED_S = 600.0  # a denied key may not ask again for so long
MOST_COMMITTED = 64
MOST_VISIBLE = 16
MOST_DECIDED = 64
MOST_OF_ADDRESS = 3
WRONG_CODES = 3

State = Literal["committed", "waiting", "admitting", "admitted", "denied"]
_COMMITTED: tuple[State, ...] = ("committed",)
_WAITING: tuple[State, ...] = ("waiting",)
_VISIBLE: tuple[State, ...] = ("waiting", "admitting")
_OPEN: tuple[State, ...] = ("committed", "waiting", "admitting")
_DECIDED: tuple[State, ...] = ("admitted", "denied")


@dataclass(slots=True)
class JoinRequest:
    """One request. id: 64 hex digits, known to the asking node alone. handle: 6 hex digits, for people.

    source: its IP address. here: whether a person at this member approved it. mesh: id of the mesh that it asks to
    join. nonce: the member's. made, revealed, looked, decided: monotonic seconds.
    """

    id: str
    handle: str
    source: str
    fingerprint: str
    joiner: Joiner
    mesh: str
    commitment: str
    nonce: str
    made: float
    state: State = "committed"
    code: str = ""
    revealed: float = 0.0
    looked: float = 0.0
    decided: float = 0.0
    wrong_codes: int = 0
    here: bool = False

    def __repr__(self) -> str:
        return f"JoinRequest({self.handle}, {self.state})"  # without the id: it is the key to the answer

    def ends(self) -> float:
        """When it expires, in monotonic seconds."""
        if self.state == "committed":
            return self.made + COMMITTED_S
        if self.state == "waiting":
            return min(self.looked + UNLOOKED_S, self.revealed + VISIBLE_S)
        return math.inf if self.state == "admitting" else self.decided + DECIDED_S


class PendingRequests:
    """The requests and the rules for them. No I/O; time comes from an injected clock."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._requests: dict[str, JoinRequest] = {}  # by id, the oldest first
        self._refused: dict[str, float] = {}  # fingerprint -> until

    # -- the node that asks ----------------------------------------------------------------------------------------

    def commit(
        self, *, source: str, fingerprint: str, joiner: Joiner, mesh: str, commitment: str, nonce: str
    ) -> JoinRequest:
        """Add a request in state committed. Raises MeshError DENIED (a person denied that key), BUSY."""
        now = self._now()
        if fingerprint in self._refused:
            raise MeshError(
                Code.DENIED,
                "cannot admit this node",
                "a member denied this node",
                "talk to the people of the mesh; it may ask again ten minutes after that: meshctl join NETWORK",
            )
        if len(self._of(_OPEN, source=source)) >= MOST_OF_ADDRESS:
            raise _busy(f"{MOST_OF_ADDRESS} requests from its address are open already")
        others = len(self._of(_VISIBLE)) - len(self._of(_VISIBLE, fingerprint=fingerprint))
        if len(self._of(_COMMITTED)) >= MOST_COMMITTED or others >= MOST_VISIBLE:
            raise _busy("too many nodes ask at this moment")
        request = JoinRequest(
            id=secrets.token_hex(32),
            handle=self._new_handle(),
            source=source,
            fingerprint=fingerprint,
            joiner=joiner,
            mesh=mesh,
            commitment=commitment,
            nonce=nonce,
            made=now,
        )
        self._requests[request.id] = request
        return request

    def find(self, request_id: str) -> JoinRequest:
        """The request with that id; counts as a poll of it. Raises MeshError NOT_FOUND."""
        now = self._now()
        request = self._requests.get(request_id)
        if request is None:
            raise MeshError(
                Code.NOT_FOUND,
                "cannot find that request",
                "its time is over, or meshd was started again on the member",
                "ask again: meshctl join NETWORK",
            )
        request.looked = now
        return request

    def show(self, request: JoinRequest, code: str) -> None:
        """Show people a request that has proved its key, in place of an older one of it. Raises MeshError BUSY."""
        now = self._now()
        older = self._of(_WAITING, fingerprint=request.fingerprint)
        if len(self._of(_VISIBLE)) - len(older) >= MOST_VISIBLE:
            raise _busy("too many nodes wait to be admitted")
        for replaced in older:
            self.drop(replaced)
        request.state, request.code = "waiting", code
        request.revealed = request.looked = now

    def drop(self, request: JoinRequest) -> None:
        """Remove a request, unless it is in state admitting."""
        if request.state != "admitting":
            self._requests.pop(request.id, None)

    def withdraw(self, request_id: str) -> None:
        """Drop a request that its node has taken back. Does nothing where there is none with that id."""
        request = self._requests.get(request_id)
        if request is not None:
            self.drop(request)

    def keep_only(self, mesh: str) -> None:
        """Drop requests for any other mesh, as this node has left it. mesh: id, "" for none."""
        for request in [request for request in self._requests.values() if request.mesh != mesh]:
            del self._requests[request.id]

    # -- the person who decides ------------------------------------------------------------------------------------

    def waiting(self) -> list[JoinRequest]:
        """The requests in state waiting, the oldest first."""
        self._now()
        return sorted(self._of(_WAITING), key=lambda request: request.revealed)

    def pick(self, ref: str, *, answered: bool = False) -> JoinRequest:
        """The waiting request with that handle or node name. answered: include admitted ones.

        Raises MeshError NOT_FOUND, BAD_REQUEST (several have that name).
        """
        self._now()
        word = ref.strip().casefold()
        states: tuple[State, ...] = ("waiting", "admitted") if answered else _WAITING
        for state in states:
            found = self._of((state,))
            named = [request for request in found if request.joiner.name.casefold() == word]
            named = [request for request in found if request.handle == word] or named
            if len(named) > 1 and state == "waiting":
                handles = ", ".join(request.handle for request in named)
                raise MeshError(
                    Code.BAD_REQUEST,
                    f"cannot tell which {ref} is meant",
                    f"{len(named)} nodes of that name ask to join: {handles}",
                    "see their addresses and codes, then name one by its id: meshctl requests",
                )
            if named:
                return named[-1]
        raise MeshError(
            Code.NOT_FOUND,
            f"cannot find a request {ref}",
            "no node of that id or name asks this one to be admitted now",
            "see who asks: meshctl requests",
        )

    def check_code(self, request: JoinRequest, typed: str) -> None:
        """Check the code that a person typed. Raises MeshError DENIED for another one; the third ends the request."""
        if sas.same(request.code, typed):
            return
        request.wrong_codes += 1
        last = request.wrong_codes >= WRONG_CODES
        if last:
            self.drop(request)
        raise MeshError(
            Code.DENIED,
            f"cannot admit {request.joiner.name}",
            "that is not the code of this request"
            + ("; it was the third wrong one, and the request has ended" if last else ""),
            "the other machine asks again and shows a new code; compare that one: meshctl requests"
            if last
            else "compare with the code that the other machine shows: meshctl requests",
        )

    def decide(self, request: JoinRequest, state: Literal["admitted", "denied"]) -> None:
        """Set the answer. After a denial that key may not ask again for REFUSED_S."""
        request.state, request.decided = state, self._now()
        if state == "denied":
            self._refused[request.fingerprint] = request.decided + REFUSED_S
        for oldest in sorted(self._of(_DECIDED), key=lambda one: one.decided)[:-MOST_DECIDED]:
            del self._requests[oldest.id]

    # -- inside ----------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        """The current time, after dropping all that has expired."""
        now = self._monotonic()
        self._requests = {key: request for key, request in self._requests.items() if now < request.ends()}
        self._refused = {key: until for key, until in self._refused.items() if now < until}
        return now

    def _of(
        self, states: tuple[State, ...], *, source: str | None = None, fingerprint: str | None = None
    ) -> list[JoinRequest]:
        return [
            request
            for request in self._requests.values()
            if request.state in states
            and source in (None, request.source)
            and fingerprint in (None, request.fingerprint)
        ]

    def _new_handle(self) -> str:
        taken = {request.handle for request in self._requests.values()}
        while (handle := secrets.token_hex(3)) in taken:
            pass
        return handle


def _busy(cause: str) -> MeshError:
    return MeshError(
        Code.BUSY,
        "cannot take another request to join now",
        cause,
        "wait a minute, then again: meshctl join NETWORK; a member sees who asks by: meshctl requests",
    )
