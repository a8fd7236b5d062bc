"""The RPCs between two nodes, one line each. Client and server both derive from this list.

A new one is a line here, and a function (caller, request) -> response in the room that answers it, which that room's
component names in its `peer_routes` (`answered` in meshd/http/verbs.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel

from meshd.wire.base import Nothing
from meshd.wire.pairing import Ask, AskAnswer, Asked, AskingId, Reveal
from meshd.wire.peer import (
    Admitted,
    Challenge,
    Confirmed,
    ConfirmRequest,
    Heartbeat,
    Hello,
    PeerJoinRequest,
    Released,
    ReleaseRequest,
    Removals,
    RemovalsAfter,
    Roster,
)

Q = TypeVar("Q", bound=BaseModel)
A = TypeVar("A", bound=BaseModel)
SHORT = 64 * 1024
LONG = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Verb(Generic[Q, A]):
    """One call. takes: the request, which a GET has in its query. gives: the answer. access: who may call. within_s: seconds
    that the caller waits. most: bytes of the request. Whoever calls may call twice, where a connection broke.
    """

    method: str
    path: str
    takes: type[Q]
    gives: type[A]
    access: Literal["stranger", "member"]
    within_s: float
    most: int


HELLO = Verb("GET", "/hello", Nothing, Hello, "stranger", 3.0, SHORT)
CHALLENGE = Verb("POST", "/challenge", Nothing, Challenge, "stranger", 20.0, SHORT)
JOIN = Verb("POST", "/join", PeerJoinRequest, Admitted, "stranger", 20.0, SHORT)
ASK = Verb("POST", "/ask", Ask, Asked, "stranger", 20.0, SHORT)
REVEAL = Verb("POST", "/ask/reveal", Reveal, AskAnswer, "stranger", 20.0, SHORT)
LOOK = Verb("POST", "/ask/look", AskingId, AskAnswer, "stranger", 10.0, SHORT)
WITHDRAW = Verb("POST", "/ask/withdraw", AskingId, Nothing, "stranger", 10.0, SHORT)

BEAT = Verb("POST", "/beat", Heartbeat, Heartbeat, "member", 5.0, SHORT)
ROSTER = Verb("GET", "/roster", Nothing, Roster, "member", 15.0, SHORT)
EXCHANGE_ROSTERS = Verb("POST", "/roster", Roster, Roster, "member", 15.0, LONG)
CONFIRM = Verb(
    "POST", "/confirm", ConfirmRequest, Confirmed, "member", 30.0, LONG
)  # it may wait for its disk
REMOVALS = Verb("GET", "/removals", RemovalsAfter, Removals, "member", 30.0, SHORT)
TELL_REMOVALS = Verb("POST", "/removals", Removals, Nothing, "member", 30.0, LONG)
RELEASE = Verb("POST", "/release", ReleaseRequest, Released, "member", 60.0, SHORT)
