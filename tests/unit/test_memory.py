"""How much memory the engines are told to make do with."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
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


MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
NO_LIMIT = 9223372036854771712  # what version 1 says where there is none
# As /proc/self/mountinfo has them: version 2 alone, version 1 beside an empty version 2, and a container's part of each.
V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
V1_PART = "900 899 0:32 /docker/1f /sys/fs/cgroup/memory ro,nosuid master:11 - cgroup cgroup rw,memory\n"
V1_OUTER = "900 899 0:32 /../.. /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
ODD_NAME = "31 23 0:28 /a\\134x2db /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


def machine(root: Path, membership: str, mounts: str, groups: dict[str, str]) -> Path:
    """A root folder as a process sees it. groups: what the files of control groups say."""
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(membership)
    (proc / "mountinfo").write_text(f"23 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n{mounts}")
    for name, text in groups.items():
        (root / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / name).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({"": "max", "system.slice": "max", "system.slice/meshd.service": "max"}, None),
        ({"system.slice/meshd.service": f"{2**27}"}, 2**27),
        ({"system.slice": f"{2**26}", "system.slice/meshd.service": f"{2**27}"}, 2**26),
        ({"": f"{2**28}"}, 2**28),
        ({"user.slice": f"{2**28}"}, None),
        ({}, None),
    ],
)
def test_a_limit_of_the_unit_or_of_what_it_is_in_counts(
    tmp_path: Path, limits: dict[str, str], wanted: int | None
) -> None:
    files = {f"./{group}/memory.max": text for group, text in limits.items()}
    root = machine(tmp_path, "4:memory:/user.slice\n0::/system.slice/meshd.service\n", V2, files)
    (root / "sys/fs").mkdir(parents=True, exist_ok=True)
    (root / "sys/fs/memory.max").write_text("1")  # above the tree: nobody's
    assert memory.available(root) == (wanted or MACHINE)


@pytest.mark.parametrize(
    ("membership", "mounts", "limits", "wanted"),
    [
        ("4:memory:/docker/1f", V1, {"memory/docker/1f": 2**27}, 2**27),
        ("7:cpu,memory:/docker/1f", V1, {"memory/docker/1f": 2**27}, 2**27),
        ("4:memory:/docker/1f", V1, {"memory": 2**26, "memory/docker/1f": 2**27}, 2**26),
        ("4:memory:/docker/1f", V1, {"memory/docker": 2**25, "memory/docker/1f": NO_LIMIT}, 2**25),
        ("4:memory:/docker/1f", V1, {"memory": NO_LIMIT, "memory/docker/1f": NO_LIMIT}, None),
        ("4:memory:/docker/1f", V1, {"memory/docker/2e": 2**27}, None),
        ("4:memory:/docker/1f", V1_PART, {"memory": 2**27}, 2**27),
        ("4:memory:/docker/1f/own", V1_PART, {"memory": 2**27, "memory/own": 2**26}, 2**26),
        ("4:memory:/", V1, {"memory": 2**27}, 2**27),
        ("4:memory:/", V1_OUTER, {"memory": 2**27}, 2**27),
        ("4:memory:/docker/1f", V1, {"cpu/docker/1f": 2**27}, None),
        ("0::/docker/1f", V1, {"memory/docker/1f": 2**27}, None),
    ],
    ids=(
        "a container's",
        "two controllers in one",
        "a higher one is less",
        "only a higher one",
        "none",
        "another container's",
        "only its part is mounted",
        "below its part",
        "a namespace",
        "a namespace under the host's mount",
        "another controller's folder",
        "in no group of version 1",
    ),
)
def test_a_limit_of_version_1_counts_too(
    tmp_path: Path, membership: str, mounts: str, limits: dict[str, int], wanted: int | None
) -> None:
    """A NAS of today, and any system where the controllers are still on version 1."""
    files = {f"{group}/memory.limit_in_bytes": str(limit) for group, limit in limits.items()}
    root = machine(tmp_path, f"{membership}\n", mounts, files)
    assert memory.available(root) == (wanted or MACHINE)


def test_a_limit_above_what_is_mounted_counts(tmp_path: Path) -> None:
    """A pod's, whose containers have none of their own: each sees its own group alone, and the kernel tells it there."""
    said = f"cache 0\nhierarchical_memory_limit {2**27}\nhierarchical_memsw_limit {NO_LIMIT}"
    files = {"memory/memory.limit_in_bytes": str(NO_LIMIT), "memory/memory.stat": said}
    assert memory.available(machine(tmp_path, "4:memory:/docker/1f\n", V1_PART, files)) == 2**27


def test_a_group_whose_name_the_kernel_escapes_is_found(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/a\\x2db/own\n", ODD_NAME, {"own/memory.max": f"{2**27}"})
    assert memory.available(root) == 2**27


def test_an_odd_name_of_some_other_mount_is_no_matter(tmp_path: Path) -> None:
    mounts = f"24 23 8:2 / /media/a\u2028b\x85c rw - vfat /dev/sdb1 rw\n{V2}"
    assert memory.available(machine(tmp_path, "0::/own\n", mounts, {"own/memory.max": f"{2**27}"})) == 2**27


def test_a_kernel_without_control_groups_has_the_machines_memory(tmp_path: Path) -> None:
    assert memory.available(tmp_path) == MACHINE


ASKS = "from meshd import memory; print(memory.available())"


def own_group() -> Path | None:
    """The tests' own control group of version 1 for memory, where one can be made below it."""
    if os.geteuid() != 0:
        return None
    texts = (Path(f"/proc/self/{name}").read_text() for name in ("cgroup", "mountinfo"))
    found = next(iter(memory._groups(*texts)), None)
    return found if found is not None and (found / "memory.limit_in_bytes").exists() else None


@pytest.mark.skipif(own_group() is None, reason="needs root, and the memory controller on cgroups v1")
@pytest.mark.parametrize("view", ["the machine's", "a part of it", "a namespace"])
def test_a_real_limit_is_seen(view: str, tmp_path: Path) -> None:
    """A process in a control group of version 1 that has a limit, as it is on this machine and as a container shows it."""
    above = own_group()
    assert above is not None
    group = above / f"meshd-test-{os.getpid()}-{tmp_path.name}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(256 * 1024**2))
        asks = shlex.join([sys.executable, "-c", ASKS])
        bind = f"mount --bind {shlex.quote(str(group))} /sys/fs/cgroup/memory && exec {asks}"
        within = {
            "the machine's": f"exec {asks}",
            "a part of it": f"exec unshare -m sh -c {shlex.quote(bind)}",
            "a namespace": f"exec unshare -m -C sh -c {shlex.quote(bind)}",
        }
        done = subprocess.run(
            ["sh", "-c", f"echo $$ > {shlex.quote(str(group))}/cgroup.procs && {within[view]}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        group.rmdir()
    assert (done.stdout, done.stderr) == (f"{256 * 1024**2}\n", "")


async def test_both_engines_are_bound_and_leave_room_for_all_else(tmp_path: Path) -> None:
    kubo = KuboProgram(tmp_path, Kubo(tmp_path / "k"), None, tmp_path)._env()
    cluster = ClusterProgram(tmp_path, Cluster(tmp_path / "c"), None, tmp_path)._env()
    machine = float(memory.bound_for(1.0))
    together = int(kubo["GOMEMLIMIT"]) + int(cluster["GOMEMLIMIT"])
    assert together <= max(0.5 * machine, 2 * memory._LEAST)
