"""Parts of meshd itself that raise. They are done again; what they are for is not done, or not seen, meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.health.facts import Facts
from meshd.model import Condition, Fault, Severity

_MEANWHILE = {
    "turns": "kubo and the cluster are not started, stopped or followed",
    "watch": "the other nodes are not heard",
    "overlay": "a change of the private network is not noticed",
    "address": "a change of this node's address is not told to the others",
    "health": "what is shown here may be old",
    "notify": "the command of [notify] is not run",
    "replicate": "missing copies are not made",
    "sweep": "what is due in the trash does not go",
    "garbage": "what was let go of still takes room",
    "memory": "memory is not given back",
    "seeds": "members at new addresses are not looked for",
    "redial": "the cluster is not restarted for members at new addresses",
    "audit": "leaks, strangers and open secrets are not looked for",
    "programs": "whether kubo and ipfs-cluster can be run is not looked at",
    "network": "who was taken off the network is not looked at",
}


def check(facts: Facts) -> Iterator[Condition]:
    for fault in facts.faults:
        if not (fault.io_error and (facts.unwritable or facts.unreadable)):  # the disk's fault is told once
            yield condition(fault)


def condition(fault: Fault) -> Condition:
    """It, as a person is told of it. The board's own are told so too."""
    meanwhile = _MEANWHILE.get(fault.part, "what it looks at is shown as it was last seen")
    return Condition(
        "part-failed",
        Severity.ERROR,
        f"a part of meshd fails ({fault.part}): {meanwhile}",
        f"{fault.error}; it is tried again by itself",
        "sudo systemctl restart meshd; what led to it: journalctl -u meshd, or where you started it",
        fault.part,
    )
