"""How long somebody who waits for a copy waits for one node. Pure."""

from __future__ import annotations

from typing import Literal

State = Literal["held", "fetching", "missing", "refused", "unknown"]

SILENT_S = 20.0  # a chosen node that does not answer for so long is given up
AWAY_S = 2.0  # one that is known to be away
IDLE_S = 90.0  # one that answers, but neither fetches nor holds
STALLED_S = 180.0  # one that fetches, and has got nothing more: a block of 1 MiB at 64 kbit/s takes 130 s
TELL_EVERY_S = 1.0  # how much a node has fetched
SAY_AFTER_S: dict[State, float] = {"unknown": 2.0, "missing": 10.0, "fetching": 15.0}


def given_up(state: State, waited_s: float, *, away: bool = False) -> bool:
    """Whether to go on without that node. waited_s: seconds since its state, or what it has fetched, last changed."""
    if state == "held":
        return False
    if state == "refused":
        return True
    limits = {"unknown": AWAY_S if away else SILENT_S, "missing": IDLE_S, "fetching": STALLED_S}
    return waited_s > limits[state]


def worth_saying(state: State, waited_s: float, node: str) -> str:
    """What the person who waits should read by now, or "" while it is too early for that."""
    if waited_s < SAY_AFTER_S.get(state, float("inf")):
        return ""
    return {
        "unknown": f"waiting for {node}, which does not answer",
        "missing": f"waiting for {node}, which has not begun to fetch it",
        "fetching": f"waiting for {node}, which gets nothing more of it at the moment",
    }[state]


def worth_telling(fetched: int, told: int, passed_s: float) -> bool:
    """Whether whoever waits should hear how much a node has fetched. told: the last such number; passed_s: since then."""
    return fetched != told and passed_s >= TELL_EVERY_S
