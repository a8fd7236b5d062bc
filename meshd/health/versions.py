"""Members that run another meshd than this node."""

from __future__ import annotations

import re
from collections.abc import Iterator

from meshd import __version__
from meshd.health.facts import Facts
from meshd.model import Condition, Severity


def check(facts: Facts) -> Iterator[Condition]:
    for peer in facts.peers:
        if not peer.reachable or peer.problem or not peer.version or peer.version == __version__:
            continue
        older = _numbers(peer.version) < _numbers(__version__)
        yield Condition(
            "peer-version",
            Severity.INFO,
            f"{peer.name} runs {'an older' if older else 'another'} meshd",
            f"it runs {peer.version}, this node {__version__}; neighbouring versions work together",
            f"update meshd {f'on {peer.name}' if older else 'on this node'} when it suits; meshctl peers shows all versions",
            peer.name,
        )


def _numbers(version: str) -> tuple[int, ...]:
    """What can be compared of it: 0.10.2 -> (0, 10, 2)."""
    return tuple(int(part) for part in re.findall(r"\d{1,9}", version)[:3])
