"""How much memory the engines are told to make do with."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({"": "max", "system.slice": "max", "system.slice/meshd.service": "max"}, None),
        ({"system.slice/meshd.service": f"{2**30}"}, 2**30),
        ({"system.slice": f"{2**29}", "system.slice/meshd.service": f"{2**30}"}, 2**29),
        ({"": f"{2**28}"}, 2**28),
        ({"user.slice": f"{2**28}"}, None),
        ({}, None),
    ],
)
def test_a_limit_of_the_unit_or_of_what_it_is_in_counts(
    tmp_path: Path, limits: dict[str, str], wanted: int | None
) -> None:
    tree, membership = tmp_path / "tree", tmp_path / "membership"
    for group, text in limits.items():
        (tree / group).mkdir(parents=True, exist_ok=True)
        (tree / group / "memory.max").write_text(f"{text}\n")
    membership.write_text("4:memory:/elsewhere\n0::/system.slice/meshd.service\n")
    (tmp_path / "memory.max").write_text("1")  # above the tree: nobody's
    found = memory.available(tree, membership)
    assert found == (wanted or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


async def test_both_engines_are_bound_and_leave_room_for_all_else(tmp_path: Path) -> None:
    kubo = KuboProgram(tmp_path, Kubo(tmp_path / "k"), None, tmp_path)._env()
    cluster = ClusterProgram(tmp_path, Cluster(tmp_path / "c"), None, tmp_path)._env()
    machine = float(memory.bound_for(1.0))
    together = int(kubo["GOMEMLIMIT"]) + int(cluster["GOMEMLIMIT"])
    assert together <= max(0.5 * machine, 2 * memory._LEAST)
