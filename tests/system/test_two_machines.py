"""Two machines with the packaged units, and a cable between them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.system.conftest import Boot
from tests.system.machine import Machine


def plug(machine: Machine, device: str, address: str) -> None:
    """Use the cable as the private network, in place of the one that the machine came with."""
    machine.take(device)
    machine.run(
        f"systemctl disable --now private-network; ip link delete wg0; ip address add {address}/24 dev {device}"
    )
    machine.run(
        f"ip link set {device} up && sed -i 's/wg0/{device}/' /etc/meshd/meshd.toml && systemctl restart meshd"
    )


def test_two_machines_make_a_mesh_and_either_keeps_what_the_other_pinned(
    boot: Boot, installed: list[Path], cable: tuple[str, str]
) -> None:
    attic, cellar = boot("attic", installed), boot("cellar", installed)
    plug(attic, cable[0], "10.9.0.1")
    plug(cellar, cable[1], "10.9.0.2")
    attic.run("meshctl init --name archive")
    invite = json.loads(attic.run("meshctl invite --json"))["invite"]
    cellar.run(f"meshctl join {invite}", seconds=120)

    attic.run(
        "echo 'as it was said' > /root/minutes.txt && meshctl pin --replicas 2 /root/minutes.txt", seconds=120
    )
    attic.stop()
    cellar.run("meshctl get minutes.txt -o /tmp/back.txt", seconds=120)
    assert cellar.run("cat /tmp/back.txt") == "as it was said\n"
