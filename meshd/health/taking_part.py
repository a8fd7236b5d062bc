"""Nodes that are there and yet do not take part: full, leaving, or without their services."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.health.facts import Facts
from meshd.model import Condition, Severity


def check(facts: Facts) -> Iterator[Condition]:
    if facts.leaving:
        yield Condition(
            "leaving",
            Severity.INFO,
            "this node leaves the mesh",
            "it takes nothing new, and goes once the others have what it holds",
            "to stay: press Ctrl-C where meshctl leave runs; or: sudo systemctl restart meshd",
        )
    for peer in facts.peers:
        if not peer.reachable or peer.problem:
            continue
        if peer.leaving:
            yield Condition(
                "peer-leaving",
                Severity.INFO,
                f"{peer.name} leaves the mesh",
                "it hands over what it holds; its copies count no more",
                "meshctl peers shows when it is gone",
                peer.name,
            )
            continue
        if not peer.ready:
            yield Condition(
                "peer-not-ready",
                Severity.WARNING,
                f"{peer.name} is there, but serves nothing",
                "its meshd answers, and its kubo or its cluster does not run; what it holds cannot be read there",
                f"on {peer.name}: meshctl status",
                peer.name,
            )
        elif not peer.accepts:
            yield Condition(
                "peer-full",
                Severity.WARNING,
                f"{peer.name} takes no more content",
                "its disk is at its floor, or what it offers to others is used up; new copies go elsewhere",
                f"on {peer.name}: meshctl status; to have room again, free some there or add a machine: meshctl invite",
                peer.name,
            )
