"""Each engine in a control group of its own, below the unit's: on a Debian 12 that boots."""

from __future__ import annotations

from tests.system.machine import Machine, wait_for
from tests.system.service import READY, children, start_for_a_user

UNIT = "/sys/fs/cgroup/system.slice/meshd.service"
PROGRAMS = {"ipfs": "kubo", "ipfs-cluster-service": "cluster"}


def group_of(machine: Machine, pid: int | str) -> str:
    listed = machine.run(f"cat /proc/{pid}/cgroup").splitlines()
    return next(line.removeprefix("0::") for line in listed if line.startswith("0::"))


def stray(machine: Machine, program: str) -> str:
    """The pid of a process in that program's group that has left everything else that could tell whose it is."""
    here = f"/tmp/stray-{program}"
    inside = (
        f"echo $$ > {UNIT}/{program}/cgroup.procs && echo $$ > {here} && trap '' TERM HUP && exec sleep 1d"
    )
    machine.run(f'env -i PATH=/usr/bin setsid -f bash -c "{inside}" >/dev/null 2>&1'.replace("$", "\\$"))
    return machine.until(f"cat {here} && echo is it", "is it").split()[0]


def is_alive(machine: Machine, pid: str) -> bool:
    return machine.try_run(f"kill -0 {pid}").returncode == 0


def test_each_engine_has_a_group_of_its_own_and_systemd_shows_it(archive: Machine) -> None:
    shown = archive.until("systemctl status meshd", READY)
    engines = children(archive)
    assert engines.keys() == PROGRAMS.keys()
    for engine, pid in engines.items():
        assert group_of(archive, pid) == f"/system.slice/meshd.service/{PROGRAMS[engine]}"
    main = archive.run("systemctl show -P MainPID meshd").strip()
    assert group_of(archive, main) == "/system.slice/meshd.service"
    archive.run("useradd -m ben")
    for text in (shown, archive.run("systemctl status meshd", user="ben")):
        tree = text[text.index("CGroup:") :].splitlines()
        for engine, program in PROGRAMS.items():
            (at,) = (number for number, line in enumerate(tree) if line.endswith(f"─{program}"))
            assert f"{engines[engine]} " in tree[at + 1], text


def test_what_is_in_an_engines_group_does_not_outlive_the_engine(archive: Machine) -> None:
    archive.until("systemctl status meshd", READY)
    pid = stray(archive, "kubo")
    first = children(archive)["ipfs"]
    archive.run(f"kill -KILL {first}")
    wait_for(lambda: children(archive).get("ipfs", first) != first, "kubo runs again")
    assert not is_alive(archive, pid)
    assert "ended what was left running" in archive.run(
        "journalctl --sync; journalctl -u meshd MESHD_PROGRAM=kubo -o cat"
    )
    archive.until("systemctl status meshd", READY)


def test_what_is_in_an_engines_group_may_not_control_meshd(archive: Machine) -> None:
    archive.until("systemctl status meshd", READY)
    for program in PROGRAMS.values():
        enter = f"echo $$ > {UNIT}/{program}/cgroup.procs"
        refused = archive.try_run(f"{enter}; runuser -u meshd -- setsid -w meshctl status")
        assert refused.returncode == 5
        assert "a program that meshd supervises may not control it" in refused.stderr
    let_in = f"echo $$ > {UNIT}/cgroup.procs; runuser -u meshd -- meshctl status"
    assert "archive" in archive.run(let_in), "as a program of [notify] may"


def test_an_engine_cannot_leave_its_group(archive: Machine) -> None:
    """One that was taken over: it tries as the first thing it does."""
    archive.until("systemctl status meshd", READY)
    tries = f'[ "$1" = daemon ] && {{ echo $$ > {UNIT}/cgroup.procs; }} 2> /var/lib/meshd/said'
    script = f'#!/bin/sh\n{tries}\nexec $0.own "$@"\n'
    archive.run(
        "cd /usr/lib/meshd/engines && mv ipfs ipfs.own && "
        f"cat > ipfs <<'END'\n{script}END\nchmod 755 ipfs && systemctl restart meshd"
    )
    archive.until("systemctl status meshd", READY)
    assert "Permission denied" in archive.run("cat /var/lib/meshd/said")
    pid = archive.run("pgrep -f engines/ipfs.own").strip()
    assert group_of(archive, pid) == "/system.slice/meshd.service/kubo"


def test_a_stop_leaves_none(archive: Machine) -> None:
    archive.until("systemctl status meshd", READY)
    strays = [stray(archive, program) for program in PROGRAMS.values()]
    assert all(is_alive(archive, pid) for pid in strays)
    archive.run("systemctl stop meshd")
    assert children(archive) == {}
    assert not any(is_alive(archive, pid) for pid in strays)
    assert archive.try_run(f"test -e {UNIT}").returncode != 0
    said = archive.run("journalctl --sync; journalctl -u meshd -o cat")
    assert "ended what was left running" in said, (
        "it was meshd, in the engines' order, and not systemd at the end"
    )
    assert "cannot end what it has started" not in said


def test_where_nothing_is_delegated_the_engines_run_as_they_always_did(archive: Machine) -> None:
    archive.until("systemctl status meshd", READY)
    archive.run(
        "mkdir -p /etc/systemd/system/meshd.service.d && "
        "printf '[Service]\\nDelegate=no\\n' > /etc/systemd/system/meshd.service.d/none.conf && "
        "systemctl daemon-reload && systemctl restart meshd"
    )
    archive.until("systemctl status meshd", READY)
    for pid in children(archive).values():
        assert group_of(archive, pid) == "/system.slice/meshd.service"


def test_a_users_own_meshd_has_groups_too(attic: Machine) -> None:
    own = start_for_a_user(attic)
    attic.run(f"{own} meshctl init --name mine", user="ana")
    attic.until(f"runuser -u ana -- bash -c '{own} systemctl --user status meshd'", READY)
    for engine, pid in children(attic).items():
        assert group_of(attic, pid).endswith(f"/meshd.service/{PROGRAMS[engine]}")
