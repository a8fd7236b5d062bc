"""How much memory the engines are told to make do with."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd import memory
from meshd.cluster.rest import Cluster
from meshd.cluster.service import ClusterProgram
from meshd.kubo.rpc import Kubo
from meshd.kubo.service import KuboProgram

GIB = 1024**3


@pytest.mark.parametrize(
    ("total", "share", "limit"),
    [(4 * GIB, 0.25, GIB), (64 * GIB, 0.25, 16 * GIB), (GIB // 2, 0.25, GIB // 4), (4 * GIB, 0.0, GIB // 4)],
)
def test_a_share_of_the_machine_and_never_too_little_to_work_in(total: int, share: float, limit: int) -> None:
    assert memory.bound_for(share, total=total) == str(limit)


async def test_both_engines_are_bound_and_leave_room_for_all_else(tmp_path: Path) -> None:
    kubo = KuboProgram(tmp_path, Kubo(tmp_path / "k"), None, tmp_path)._env()
    cluster = ClusterProgram(tmp_path, Cluster(tmp_path / "c"), None, tmp_path)._env()
    machine = float(memory.bound_for(1.0))
    together = int(kubo["GOMEMLIMIT"]) + int(cluster["GOMEMLIMIT"])
    assert together <= max(0.5 * machine, 2 * memory._LEAST)
