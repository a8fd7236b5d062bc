"""The peer API's routes for strangers. The rooms that answer members declare the routes for them."""

from __future__ import annotations

from meshd.http.route import Route
from meshd.http.verbs import answered
from meshd.peer.asking import Asking
from meshd.peer.strangers import Strangers
from meshd.wire import verbs


def table(strangers: Strangers, asking: Asking) -> tuple[Route, ...]:
    """The routes for strangers: who this node is, joining by invite, and pairing."""
    return (
        answered(verbs.HELLO, strangers.hello),
        answered(verbs.CHALLENGE, strangers.challenge),
        answered(verbs.JOIN, strangers.join),
        answered(verbs.ASK, asking.ask),
        answered(verbs.REVEAL, asking.reveal),
        answered(verbs.LOOK, asking.look),
        answered(verbs.WITHDRAW, asking.withdraw),
    )
