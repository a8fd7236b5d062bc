"""Of whom it is told that they are away: not of those who could not be asked yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.facts import AWAY, DOWN, facts, told

NOW = 1_700_000_000.0
SEEN = replace(AWAY, last_seen=NOW - 3600.0)
OTHER = replace(SEEN, fingerprint="f3", name="cellar")


def codes(**given: Any) -> list[str]:
    return [c.code for c in told(facts(NOW, **given))]


def test_just_after_a_start_nobody_is_called_away() -> None:
    """Nobody was asked yet; else every restart of meshd, and every [notify], would begin with a list of all nodes."""
    for peers in ((AWAY,), (SEEN,), (SEEN, OTHER)):
        assert codes(peers=peers, settled=False) == []
        assert codes(peers=peers, settled=True) != []


def test_a_node_that_has_just_joined_is_not_called_away_until_it_was_asked() -> None:
    assert codes(peers=(replace(AWAY, admitted=NOW - 5.0),)) == []
    assert codes(peers=(replace(AWAY, admitted=NOW - 60.0),)) == ["peer-away"]
    assert codes(peers=(replace(SEEN, admitted=NOW - 5.0),)) == ["peer-away"], "it was there and went"


def test_without_an_address_nobody_is_called_away() -> None:
    assert codes(peers=(SEEN, OTHER), overlay=DOWN) == ["overlay-down"]
