"""The whole peer API as one table."""

from __future__ import annotations

from meshd.peer.asking import Asking
from meshd.peer.call import Route
from meshd.peer.members import Members
from meshd.peer.strangers import Strangers


def table(strangers: Strangers, asking: Asking, members: Members) -> list[Route]:
    """Every resource, and who may ask for it."""
    return [
        Route("GET", "/hello", "stranger", strangers.hello),
        Route("POST", "/challenge", "stranger", strangers.challenge),
        Route("POST", "/join", "stranger", strangers.join),
        Route("POST", "/ask", "stranger", asking.ask),
        Route("POST", "/ask/reveal", "stranger", asking.reveal),
        Route("POST", "/ask/look", "stranger", asking.look),
        Route("POST", "/ask/withdraw", "stranger", asking.withdraw),
        Route("POST", "/beat", "member", members.beat),
        Route("GET", "/roster", "member", members.roster),
        Route("POST", "/roster", "member", members.take_roster),
        Route("POST", "/confirm", "member", members.confirm),
        Route("GET", "/removals", "member", members.removals),
        Route("POST", "/removals", "member", members.take_removals),
        Route("POST", "/release", "member", members.release),
    ]
