"""Time-outs of the wait for one node's replica. Pure."""

from __future__ import annotations

from typing import Literal

State = Literal["held", "fetching", "missing", "refused", "unknown"]

SILENT_S = 20.0  # for a chosen node that does not answer
AWAY_S = 2.0  # for one that is known to be away
IDLE_S = 90.0  # for one that answers, but neither fetches nor holds
STALLED_S = 180.0  # for one that fetches without progress: a block of 1 MiB at 64 kbit/s takes 130 s
TELL_EVERY_S = 1.0  # between two reports of how much a node has fetched
SAY_AFTER_S: dict[State, float] = {"unknown": 2.0, "missing": 10.0, "fetching": 15.0}


def given_up(state: State, waited_s: float, *, away: bool = False) -> bool:
    """Whether to give up on a node. waited_s: seconds since its state, or what it has fetched, last changed."""
    if state == "held":
        return False
    if state == "refused":
        return True
    limits = {"unknown": AWAY_S if away else SILENT_S, "missing": IDLE_S, "fetching": STALLED_S}
    return waited_s > limits[state]


def worth_saying(state: State, waited_s: float, node: str) -> str:
    """The explanation for a person who waits for that node; "" while it is too early for one."""
    if waited_s < SAY_AFTER_S.get(state, float("inf")):
        return ""
    return {
        "unknown": f"waiting for {node}, which does not answer",
        "missing": f"waiting for {node}, which has not begun to fetch it",
        "fetching": f"waiting for {node}, which gets nothing more of it at the moment",
    }[state]


def worth_telling(fetched: int, told: int, passed_s: float) -> bool:
    """Whether to report how much a node has fetched. told: the last report. passed_s: seconds since that."""
    return fetched != told and passed_s >= TELL_EVERY_S
