"""The filesystem below the state folder dies under a running node: it says so and stops when it is told to."""

from __future__ import annotations

import shutil

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.disks import NEEDS_DISKS, MakeDisk, make_disk
from tests.mesh.pairing import until

__all__ = ["make_disk"]  # a fixture is known where it is imported
pytestmark = [*NEEDS_DISKS, pytest.mark.timeout(300)]


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_disk_that_dies_is_said_and_nothing_runs_on_after_a_stop(
    make_disk: MakeDisk, make_node: MakeNode, kind: str
) -> None:
    """xfs answers no question any more, not even whose a file is."""
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    node = make_node("attic", replicas=1)
    disk = make_disk(node.state, kind=kind)
    node.start().do("init")

    disk.cut()
    until(lambda: "state-unwritable" in node.conditions(), "it says that nothing can be written", 60)
    told = node.conditions()["state-unwritable"]
    assert "Input/output error" in told["cause"]
    assert "dmesg" in told["hint"]
    assert node.do("status").out.count("error: ") == 1, "once, and not for each part of meshd that it hits"
    refused = node.meshctl("pin", "-", "--name", "after.txt", stdin=b"after")
    assert refused.code == 1, refused
    assert "its disk does not take anything (Input/output error)" in refused.err

    node.stop()
    disk.power_returns()
    node.start().wait_ready()
    node.close()
