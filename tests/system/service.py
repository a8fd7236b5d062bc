"""What is asked of meshd's service on a machine, whatever Debian it has."""

from __future__ import annotations

import json
import re

from tests.system.machine import Machine

READY = 'Status: "ready"'
MOST_EXPOSED = 1.8  # kubo's own hardened unit


def children(machine: Machine) -> dict[str, int]:
    """kubo's and the cluster's pid."""
    listed = machine.run("ps -e -o pid=,args=")
    return {
        name: int(line.split()[0])
        for line in listed.splitlines()
        for name in ("ipfs", "ipfs-cluster-service")
        if f"/engines/{name} " in line
    }


def every_rule_holds(machine: Machine) -> None:
    said = machine.run("meshctl doctor")
    assert re.search(r"(\d+) of \1 rules hold", said), said


def units_are_without_fault(machine: Machine) -> None:
    """And the system's is hardly exposed."""
    done = machine.try_run("systemd-analyze verify meshd.service")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    users = "XDG_RUNTIME_DIR=/tmp systemd-analyze verify --user"
    done = machine.try_run(f"{users} /usr/lib/systemd/user/meshd.service")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    last = machine.run("systemd-analyze security --no-pager meshd").splitlines()[-1]
    found = re.search(r"level for meshd\.service: ([\d.]+)", last)
    assert found is not None, last
    assert float(found[1]) <= MOST_EXPOSED


def start_for_a_user(machine: Machine) -> str:
    """ana runs a meshd of her own, and the system's does not run; what she types before each command."""
    machine.run("systemctl disable --now meshd && useradd -m -u 1000 ana && loginctl enable-linger ana")
    machine.until_active("user@1000")
    example = "/usr/share/doc/meshd/examples/user.toml"
    machine.run(
        f"mkdir -p ~ana/.config/meshd && cp {example} ~ana/.config/meshd/meshd.toml && chown -R ana: ~ana/.config"
    )
    own = "export XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/ana;"
    machine.run(f"{own} systemctl --user enable --now meshd", user="ana")
    return own


def plug(machine: Machine, device: str, address: str) -> None:
    """Use the cable as the private network, in place of the one that the machine came with."""
    machine.take(device)
    machine.run(
        f"systemctl disable --now private-network; ip link delete wg0; ip address add {address}/24 dev {device}"
    )
    machine.run(
        f"ip link set {device} up && sed -i 's/wg0/{device}/' /etc/meshd/meshd.toml && systemctl restart meshd"
    )


def join(founder: Machine, joiner: Machine) -> None:
    """The one begins the mesh `archive`, the other joins it."""
    founder.run("meshctl init --name archive")
    invite = json.loads(founder.run("meshctl invite --json"))["invite"]
    joiner.run(f"meshctl join {invite}", seconds=120)
