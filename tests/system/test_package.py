"""The package on a Debian 12 that boots, driven as its owner would: apt, systemctl, journalctl, meshctl."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.conftest import OLDER, VERSION, Boot, package
from tests.system.machine import Machine, wait_for
from tests.system.service import (
    READY,
    children,
    every_rule_holds,
    start_for_a_user,
    units_are_without_fault,
)


def test_a_machine_without_zerotier_and_without_a_mesh_starts_and_says_what_to_do(attic: Machine) -> None:
    attic.until("systemctl status meshd", 'Status: "this node is in no mesh"')
    assert "meshctl init, or meshctl join" in attic.run("meshctl status")
    assert "(meshd)" in attic.run("systemctl status meshd"), "its process has its name, and not Python's"
    assert attic.run("systemctl show -P NRestarts meshd").strip() == "0"


def test_what_was_pinned_is_there_and_served_after_a_reboot(archive: Machine) -> None:
    archive.run("echo 'as it was said' > /root/minutes.txt && meshctl pin --replicas 1 /root/minutes.txt")
    archive.reboot()
    archive.until("systemctl status meshd", READY)
    assert "minutes.txt" in archive.run("meshctl ls")
    archive.run("meshctl get minutes.txt -o /tmp/back.txt")
    assert archive.run("cat /tmp/back.txt") == "as it was said\n"


def test_every_rule_of_the_doctor_holds_inside_the_sandbox(archive: Machine) -> None:
    archive.until("systemctl status meshd", READY)
    every_rule_holds(archive)


def test_the_unit_is_without_fault_and_hardly_exposed(attic: Machine) -> None:
    units_are_without_fault(attic)


@pytest.mark.parametrize("below", ["", "/kubo"])
def test_the_kernel_lets_the_unit_talk_to_private_networks_only(archive: Machine, below: str) -> None:
    """A process is put into the unit's own group, or that of an engine, as one that was taken over would be in it."""
    archive.until("systemctl status meshd", READY)
    script = (
        "import socket\n"
        "for address in ('10.7.0.9', '203.0.113.9', '198.51.100.9'):\n"
        "    try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (address, 9)); print(address, 'sent')\n"
        "    except OSError as exc: print(address, exc.strerror)\n"
    )
    group = f"/sys/fs/cgroup/system.slice/meshd.service{below}/cgroup.procs"
    inside = archive.run(f'echo $$ > {group}; python3 -c "{script}"')
    assert inside.splitlines() == [
        "10.7.0.9 sent",
        "203.0.113.9 Operation not permitted",
        "198.51.100.9 Operation not permitted",
    ]
    assert "203.0.113.9 sent" in archive.run(f'python3 -c "{script}"'), "and it is the unit that forbids it"


def test_a_daemon_that_hangs_is_restarted_and_nothing_of_it_is_left(archive: Machine) -> None:
    archive.until("systemctl status meshd", READY)
    before, first = children(archive), archive.run("systemctl show -P MainPID meshd").strip()
    archive.run(f"kill -STOP {first}")
    archive.until("journalctl -u meshd", "Watchdog timeout", 60)

    def another() -> bool:
        return archive.run("systemctl show -P MainPID meshd").strip() not in ("0", first)

    wait_for(another, "meshd is started again")
    archive.until("systemctl status meshd", READY)
    after = children(archive)
    assert after.keys() == before.keys() == {"ipfs", "ipfs-cluster-service"}
    alive = archive.run("ps -e -o pid=").split()
    assert not [pid for pid in (first, *map(str, before.values())) if pid in alive]


@pytest.mark.parametrize("victim", ["meshd", "ipfs", "ipfs-cluster-service"])
def test_whatever_is_killed_comes_back(archive: Machine, victim: str) -> None:
    archive.until("systemctl status meshd", READY)
    daemon = archive.run("systemctl show -P MainPID meshd").strip()
    pids = {name: str(pid) for name, pid in children(archive).items()} | {"meshd": daemon}
    archive.run(f"kill -KILL {pids[victim]}")

    def replaced() -> bool:
        now = {name: str(pid) for name, pid in children(archive).items()}
        now["meshd"] = archive.run("systemctl show -P MainPID meshd").strip()
        return now.get(victim) not in (None, "0", pids[victim])

    wait_for(replaced, f"{victim} runs again")
    archive.until("systemctl status meshd", READY)


def test_the_journal_is_filtered_by_service_and_explains_a_condition(archive: Machine) -> None:
    archive.until("journalctl -u meshd MESHD_SERVICE=kubo -o cat", "Daemon is ready")
    assert "cluster:" not in archive.run("journalctl -u meshd MESHD_SERVICE=kubo -o cat")
    archive.run(f"kill -STOP {children(archive)['ipfs']}")
    explained = archive.until(
        "journalctl -u meshd MESHD_CONDITION=service-frozen -x", "Try: meshctl logs kubo"
    )
    assert "kubo runs but does not answer" in explained
    assert "Defined-By: meshd" in explained


def test_a_reload_says_what_waits_for_a_restart(attic: Machine) -> None:
    attic.run(
        "sed -i 's/100MiB/101MiB/' /etc/meshd/meshd.toml && printf '[pins]\\nreplicas = 2\\n' >> /etc/meshd/meshd.toml"
    )
    attic.run("systemctl reload meshd")
    assert '"reserve":105906176' in attic.run("meshctl status --json").replace(" ", "")
    attic.until("journalctl -u meshd -o cat", "these changes wait for a restart (keys=pins.replicas")

    daemon = attic.run("systemctl show -P MainPID meshd")
    attic.run("sed -i 's/101MiB/many/' /etc/meshd/meshd.toml")
    assert attic.try_run("systemctl reload meshd").returncode != 0
    attic.until("systemctl status meshd", "storage.reserve: expected")
    assert attic.run("systemctl show -P MainPID meshd") == daemon, "it goes on with what it had"
    assert '"reserve":105906176' in attic.run("meshctl status --json").replace(" ", "")


def test_a_member_of_the_group_needs_no_root_and_others_are_told_what_to_do(attic: Machine) -> None:
    attic.run("useradd -m -G meshd ana && useradd -m ben")
    attic.run("meshctl init --name archive", user="ana")
    assert "archive: 1 node" in attic.run("meshctl status", user="ana")
    refused = attic.try_run("meshctl status", user="ben")
    assert refused.returncode == 5
    assert "sudo usermod -aG meshd" in refused.stderr
    assert attic.try_run("ls /var/lib/meshd /run/meshd/private", user="ana").returncode != 0, (
        "nor are its files theirs"
    )


def test_without_the_daemon_meshctl_says_how_to_start_it(attic: Machine) -> None:
    attic.run("systemctl stop meshd")
    missing = attic.try_run("meshctl status")
    assert (missing.returncode, missing.stdout) == (3, "")
    assert "  try: sudo systemctl start meshd\n" in missing.stderr
    check = attic.try_run("meshctl status --check")
    assert (check.returncode, check.stderr) == (2, "")
    assert check.stdout.startswith("MESHD CRITICAL - cannot reach meshd: ")


def test_a_user_runs_a_meshd_of_their_own_without_root(attic: Machine) -> None:
    own = start_for_a_user(attic)
    attic.run(f"{own} meshctl init --name mine && echo x > ~/a && meshctl pin --replicas 1 ~/a", user="ana")
    assert "mine: 1 node" in attic.run(f"{own} meshctl status", user="ana")
    attic.run(f"{own} systemctl --user reload meshd", user="ana")
    attic.run("echo nonsense >> ~ana/.config/meshd/meshd.toml")
    assert attic.try_run(f"{own} systemctl --user reload meshd", user="ana").returncode != 0
    assert attic.run("stat -c '%U %a' /home/ana/mesh").strip() == "ana 700"
    assert "no fields" not in attic.run("journalctl _UID=1000 -o cat")


def test_zerotiers_token_reaches_meshd_and_stays_roots(attic: Machine) -> None:
    attic.run(
        "mkdir -m 0755 /var/lib/zerotier-one && install -m 0600 /dev/stdin /var/lib/zerotier-one/authtoken.secret <<< tok"
    )
    attic.run(
        "printf '[overlay]\\nkind = \"zerotier\"\\n' > /etc/meshd/meshd.toml && systemctl restart meshd"
    )
    handed = "/run/credentials/meshd.service/zerotier.token"
    assert attic.run(f"runuser -u meshd -- cat {handed}").strip() == "tok"
    assert attic.try_run(f"runuser -u nobody -- cat {handed}").returncode != 0
    assert attic.run("stat -c '%U %a' /var/lib/zerotier-one/authtoken.secret").strip() == "root 600"
    attic.until("meshctl status", "ZeroTier")  # it does not run here; the token is not what is wrong
    assert "token" not in attic.run("meshctl status")


def test_no_node_is_begun_where_its_disk_is_missing(attic: Machine) -> None:
    """The sandbox binds the folder to itself; that is no disk."""
    attic.run("systemctl stop meshd && find /var/lib/meshd -mindepth 1 -delete")
    attic.run("printf '[paths]\\ndisk = \"/var/lib/meshd\"\\n' >> /etc/meshd/meshd.toml")
    assert attic.try_run("systemctl start meshd").returncode != 0
    attic.until(
        "journalctl -u meshd -o cat", "says that a disk is mounted at /var/lib/meshd, and there is none"
    )
    attic.run("mount -t tmpfs tmpfs /var/lib/meshd")  # it comes late; nobody does anything
    attic.until_active("meshd")
    attic.until("meshctl status || true", "none yet")


def test_a_disk_of_fstab_that_is_missing_keeps_meshd_from_starting(attic: Machine) -> None:
    attic.run("systemctl stop meshd && find /var/lib/meshd -mindepth 1 -delete")
    attic.run("echo 'LABEL=none /var/lib/meshd ext4 nofail,x-systemd.device-timeout=1s 0 2' >> /etc/fstab")
    attic.run("systemctl daemon-reload")
    assert attic.try_run("systemctl start meshd").returncode != 0
    assert attic.run("ls -A /var/lib/meshd") == ""


def test_an_upgrade_keeps_the_state_and_restarts_once(boot: Boot, installed: list[Path]) -> None:
    machine = boot("attic", installed)
    machine.run(f"apt-get install -y --allow-downgrades {package(OLDER)}", seconds=300)
    machine.until_active("meshd")
    machine.run("meshctl init --name archive && echo kept > /root/a && meshctl pin --replicas 1 /root/a")
    machine.run("echo '# mine' >> /etc/meshd/meshd.toml")
    before = machine.run("systemctl show -P MainPID meshd")
    starts = "journalctl --sync; journalctl -u meshd -o cat | grep -c '^Started meshd'"
    so_far = int(machine.run(starts))

    machine.run(f"apt-get install -y {package(VERSION)}", seconds=300)
    assert machine.run("dpkg-query -W -f '${Version}' meshd") == VERSION
    machine.until("systemctl status meshd", READY)
    assert machine.run("systemctl show -P MainPID meshd") != before
    assert int(machine.run(starts)) == so_far + 1
    assert "# mine" in machine.run("cat /etc/meshd/meshd.toml")
    assert "a " in machine.run("meshctl ls")


def test_remove_keeps_the_state_and_purge_removes_it(archive: Machine) -> None:
    archive.run("apt-get remove -y meshd", seconds=300)
    assert archive.try_run("systemctl is-active meshd").stdout.strip() in ("inactive", "unknown")
    assert children(archive) == {}
    archive.run(
        "test -s /var/lib/meshd/node.key && test -s /etc/meshd/meshd.toml && test ! -e /usr/bin/meshd"
    )
    archive.run(f"apt-get install -y {package()}", seconds=300)
    archive.run("systemctl start meshd")
    assert "archive: 1 node" in archive.run("meshctl status")

    archive.run("echo secret > /etc/meshd/metrics.token")
    archive.run("apt-get purge -y meshd", seconds=300)
    archive.run("test ! -e /var/lib/meshd && test ! -e /etc/meshd && test ! -e /usr/lib/meshd")
    assert "meshd" not in archive.run("systemctl list-unit-files")
    assert children(archive) == {}


def test_manual_pages_and_completions_are_there(attic: Machine) -> None:
    attic.run("test -s /usr/share/man/man1/meshctl.1.gz && test -s /usr/share/man/man5/meshd.toml.5.gz")
    typed = "COMP_WORDS=(meshctl pi); COMP_CWORD=1; _meshctl; echo ${COMPREPLY[@]}"
    assert attic.run(f". /usr/share/bash-completion/completions/meshctl; {typed}").split() == ["pin"]
