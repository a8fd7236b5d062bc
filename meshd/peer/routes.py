"""What this room answers to anybody, before it is a member. What members may ask the rooms say that answer it."""

from __future__ import annotations

from meshd.http.route import Route
from meshd.http.verbs import answered
from meshd.peer.asking import Asking
from meshd.peer.strangers import Strangers
from meshd.wire import verbs


def table(strangers: Strangers, asking: Asking) -> tuple[Route, ...]:
    """Who this node is, joining by an invite, and asking to join without one."""
    return (
        answered(verbs.HELLO, strangers.hello),
        answered(verbs.CHALLENGE, strangers.challenge),
        answered(verbs.JOIN, strangers.join),
        answered(verbs.ASK, asking.ask),
        answered(verbs.REVEAL, asking.reveal),
        answered(verbs.LOOK, asking.look),
        answered(verbs.WITHDRAW, asking.withdraw),
    )
