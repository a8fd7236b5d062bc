"""The whole peer API as one table."""

from __future__ import annotations

from meshd.peer.call import Route
from meshd.peer.members import Members
from meshd.peer.strangers import Strangers


def table(strangers: Strangers, members: Members) -> list[Route]:
    """Every resource, and who may ask for it."""
    return [
        Route("GET", "/hello", "stranger", strangers.hello),
        Route("POST", "/challenge", "stranger", strangers.challenge),
        Route("POST", "/join", "stranger", strangers.join),
        Route("POST", "/beat", "member", members.beat),
        Route("GET", "/roster", "member", members.roster),
        Route("POST", "/roster", "member", members.take_roster),
        Route("POST", "/confirm", "member", members.confirm),
        Route("GET", "/removals", "member", members.removals),
        Route("POST", "/removals", "member", members.take_removals),
        Route("POST", "/release", "member", members.release),
    ]
