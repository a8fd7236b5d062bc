"""The units say what the page about them says, and what the code needs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from meshd.config import Config
from meshd.overlay import zerotier

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "packaging" / "systemd" / "meshd.service"
PORTS = ROOT / "packaging" / "systemd" / "ports.conf"
PAGE = ROOT / "docs" / "explanation" / "hardening.md"
MOST = 1.8  # kubo's own hardened unit


def settings(name: str, file: Path = UNIT) -> list[str]:
    """Every value that the unit gives to that key."""
    return re.findall(rf"^{name}=(.*)$", file.read_text(), re.MULTILINE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_what_stays_open_is_written_down_with_what_it_counts() -> None:
    command = ["systemd-analyze", "security", "--offline=true"]
    listed = json.loads(
        subprocess.run([*command, "--json=short", UNIT], capture_output=True, text=True, check=True).stdout
    )
    found = {one["name"]: float(one["exposure"]) for one in listed if float(one["exposure"] or 0) > 0}
    rows = re.findall(r"^\| `(\S+)` \| ([\d.]+) \|", PAGE.read_text().replace("\\|", "|"), re.MULTILINE)
    assert {name: float(counts) for name, counts in rows} == found

    said = subprocess.run([*command, "--no-pager", UNIT], capture_output=True, text=True, check=True).stdout
    overall = re.search(r"Overall exposure level for meshd\.service: ([\d.]+)", said)
    assert overall is not None
    assert float(overall[1]) <= MOST
    assert f"gives it {overall[1]} " in PAGE.read_text()


def test_the_drop_in_allows_the_ports_of_the_defaults_and_one_that_the_kernel_picks() -> None:
    defaults = Config()
    ports = {0, defaults.ports.swarm, defaults.ports.cluster, defaults.ports.peer}
    ports.add(int(defaults.metrics.listen.rpartition(":")[2]))
    for family in ("ipv4", "ipv6"):
        allowed: set[int] = set()
        for value in filter(None, settings("SocketBindAllow", PORTS)):
            first, _, last = value.removeprefix(f"{family}:tcp:").partition("-")
            if value.startswith(family):
                allowed |= set(range(int(first), int(last or first) + 1))
        assert allowed == ports
    assert settings("SocketBindDeny", PORTS) == ["any"]
    assert settings("SocketBindAllow", PORTS)[0] == "", "what the unit allows is taken back first"
    # One that names ports and not port 0, which not every systemd can read, keeps meshd from its network.
    assert settings("SocketBindAllow") == ["ipv4:tcp", "ipv6:tcp"]


def test_the_folders_are_those_of_the_defaults() -> None:
    paths = Config().paths
    assert settings("StateDirectory") == [paths.state.name]
    assert settings("RuntimeDirectory") == [paths.run.name]
    assert settings("RequiresMountsFor") == [str(paths.state)]


def test_the_token_is_handed_over_under_the_name_that_meshd_looks_for() -> None:
    for key in ("LoadCredential", "SetCredential"):
        assert [value.partition(":")[0] for value in settings(key)] == [zerotier._CREDENTIAL]
