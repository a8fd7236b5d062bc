"""The package on Debian 13, and a machine whose distribution was upgraded from 12 to 13 under it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.system import machine
from tests.system.conftest import Boot, install
from tests.system.machine import Machine
from tests.system.service import READY, every_rule_holds, join, plug, units_are_without_fault

COMPILED = "find /usr/lib/meshd -name '*.pyc' -printf '%f\\n' | grep -o 'cpython-[0-9]*' | sort -u"


@pytest.fixture(scope="session")
def installed_on_13(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """As `installed`, of a Debian 13."""
    return install(machine.TRIXIE, tmp_path_factory, packages)


@pytest.fixture
def attic(boot: Boot, installed_on_13: list[Path]) -> Machine:
    """The same as elsewhere, with Debian 13 below it."""
    made = boot("attic", installed_on_13)
    made.until_active("meshd")
    return made


def runs_on(made: Machine) -> str:
    """The interpreter of the daemon that runs."""
    return made.run("readlink /proc/$(systemctl show -P MainPID meshd)/exe").strip()


def served(made: Machine) -> bool:
    """Whether what was pinned on it comes back."""
    made.run("rm -f /tmp/back.txt && meshctl get minutes.txt -o /tmp/back.txt")
    return made.run("cat /tmp/back.txt") == "as it was said\n"


def test_debian_13_serves_what_was_pinned_after_a_reboot_and_every_rule_holds(archive: Machine) -> None:
    assert archive.run("cat /etc/debian_version").startswith("13")
    archive.run("echo 'as it was said' > /root/minutes.txt && meshctl pin --replicas 1 /root/minutes.txt")
    archive.reboot()
    archive.until("systemctl status meshd", READY)
    assert served(archive)
    every_rule_holds(archive)
    assert runs_on(archive) == "/usr/bin/python3.13"
    assert "Daemon is ready" in archive.run(
        "journalctl --sync; journalctl -u meshd MESHD_SERVICE=kubo -o cat"
    ), "with fields"


def test_debian_13_keeps_the_secrets_encrypted_over_a_reboot(archive: Machine) -> None:
    """Its systemd-creds marks what it encrypts in another way than Debian 12's."""
    archive.run("echo 'as it was said' > /root/minutes.txt && meshctl pin --replicas 1 /root/minutes.txt")
    archive.run("meshd encrypt-secrets", seconds=120)
    assert "the key to them lies on a disk of this machine" in archive.run("meshctl status")
    assert archive.run("ls /var/lib/meshd/secrets").split() == [
        "cluster.secret.encrypted",
        "swarm.key.encrypted",
    ]
    archive.reboot()
    archive.until("systemctl status meshd", READY)
    assert served(archive)
    archive.run("meshd decrypt-secrets", seconds=120)
    archive.until("systemctl status meshd", READY)
    assert "in plain files that only meshd may read" in archive.run("meshctl status")
    assert served(archive)


def test_debian_13_finds_no_fault_in_the_unit_and_hardly_an_exposure(attic: Machine) -> None:
    units_are_without_fault(attic)


def test_debian_13_lets_the_unit_listen_on_its_own_ports_only(archive: Machine) -> None:
    """A process is put into the unit's own group, as a program that was taken over would be in it."""
    script = (
        "import socket\n"
        "for family, kind, port in [(4, 1, 4001), (4, 1, 0), (4, 1, 4444), (4, 2, 4001), (6, 1, 4010), (6, 1, 4444)]:\n"
        "    made = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind)\n"
        "    try: made.bind(('::1' if family == 6 else '127.0.0.9', port)); said = 'bound'\n"
        "    except OSError as exc: said = exc.strerror\n"
        "    print(family, {1: 'tcp', 2: 'udp'}[kind], port, said)\n"
    )
    inside = f'echo $$ > /sys/fs/cgroup/system.slice/meshd.service/cgroup.procs; python3 -c "{script}"'
    refused = [line for line in archive.run(inside).splitlines() if line.endswith("not permitted")]
    assert refused == ["4 udp 4001 Operation not permitted"], "without more it is TCP, on any port"
    hold_ports(archive)
    assert archive.run(inside).splitlines() == [
        "4 tcp 4001 bound",
        "4 tcp 0 bound",
        "4 tcp 4444 Operation not permitted",
        "4 udp 4001 Operation not permitted",
        "6 tcp 4010 bound",
        "6 tcp 4444 Operation not permitted",
    ]
    assert "not permitted" not in archive.run(f'python3 -c "{script}"'), "and it is the unit that forbids it"
    every_rule_holds(archive)
    assert archive.try_run("systemd-analyze verify meshd.service").stderr == ""


def hold_ports(made: Machine) -> None:
    """Type what the example says of itself."""
    typed = re.findall(
        r"^# sudo (.+)$", made.run("cat /usr/share/doc/meshd/examples/ports.conf"), re.MULTILINE
    )
    assert len(typed) == 2
    for line in typed:
        made.run(line.replace("sudo ", ""))
    made.until("systemctl status meshd", READY)


def test_a_machine_of_12_and_one_of_13_whose_ports_are_held_make_a_mesh(
    boot: Boot, installed: list[Path], installed_on_13: list[Path], cable: tuple[str, str]
) -> None:
    attic, cellar = boot("attic", installed), boot("cellar", installed_on_13)
    plug(attic, cable[0], "10.9.0.1")
    plug(cellar, cable[1], "10.9.0.2")
    join(attic, cellar)
    hold_ports(cellar)
    cellar.run("echo new > /root/new.txt && meshctl pin --replicas 2 /root/new.txt", seconds=120)
    attic.run("echo old > /root/old.txt && meshctl pin --replicas 2 /root/old.txt", seconds=120)
    for made, name in ((attic, "new"), (cellar, "old")):
        made.run(f"meshctl get {name}.txt -o /tmp/back.txt", seconds=120)
        assert made.run("cat /tmp/back.txt") == f"{name}\n"


@pytest.mark.timeout(1500)  # apt alone may take most of it
def test_a_machine_whose_distribution_is_upgraded_goes_on_serving(boot: Boot, installed: list[Path]) -> None:
    """By apt, from 12 to 13; then without the older Python, restarted, and at last without the package."""
    attic = boot("attic", installed)
    attic.until_active("meshd")
    attic.run("meshctl init --name archive && echo 'as it was said' > /root/minutes.txt")
    attic.run("meshctl pin --replicas 1 /root/minutes.txt && sed -i s/bookworm/trixie/ /etc/apt/sources.list")
    attic.stop()
    wrong = attic.fetch("apt-get update && apt-get --download-only --yes full-upgrade")
    if wrong:
        pytest.skip(f"no Debian 13 to upgrade to can be reached: {wrong[-200:]}")
    attic.boot()
    attic.until("systemctl status meshd", READY)
    daemon = attic.run("systemctl show -P MainPID meshd")
    apt = "DEBIAN_FRONTEND=noninteractive apt-get --yes --no-download -o Dpkg::Options::=--force-confold"

    attic.run(f"{apt} full-upgrade", seconds=500)
    assert attic.run("cat /etc/debian_version").startswith("13")
    assert attic.run("systemctl show -P MainPID meshd") == daemon, "nobody restarted it"
    assert attic.run(COMPILED).split() == ["cpython-313"], "and what 3.11 had compiled is gone"
    attic.run(f"{apt} purge python3.11-minimal libpython3.11-minimal", seconds=300)
    assert served(attic)
    every_rule_holds(attic)

    attic.reboot()
    attic.until("systemctl status meshd", READY)
    assert runs_on(attic) == "/usr/bin/python3.13"
    assert served(attic)
    every_rule_holds(attic)
    attic.run("apt-get purge -y meshd", seconds=300)
    attic.run("test ! -e /usr/lib/meshd && test ! -e /var/lib/meshd && test ! -e /etc/meshd")
    left = "find / -xdev '(' -path /tmp -o -path /var/log ')' -prune -o -name 'meshd*' -print"
    assert attic.run(left) == "", "nothing of it stays"
