"""A joiner's document."""

from __future__ import annotations

from meshd.mesh.identity import Identity
from meshd.wire import Joiner


def joiner(identity: Identity, name: str, address: str, **other: object) -> Joiner:
    facts: dict[str, object] = {
        "name": name,
        "certificate": identity.certificate,
        "address": address,
        "peer_port": 4010,
        "swarm_port": 4001,
        "cluster_port": 9096,
        "kubo_id": f"kubo{name}",
        "cluster_id": f"cluster{name}",
    }
    return Joiner.model_validate(facts | other)
