"""What a child has started ends with it, however it hides; and where there are no control groups."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from meshd.errors import Code, MeshError
from meshd.model import Phase
from meshd.supervise import cgroups, launch
from meshd.supervise.cgroups import Cgroup, Cgroups
from meshd.supervise.child import Child, Launch
from meshd.supervise.service import Service
from tests.supervise.control_groups import hides, is_alive, name_of, needed, unit
from tests.supervise.programs import Script, python
from tests.waiting import until

__all__ = ["unit"]  # the fixture

WAITS = "\nwhile True: signal.pause()"
Make = Callable[..., Service]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """make(argv, group): a service of that program, which is ready when tmp_path/up is there."""
    made: list[Service] = []

    def service(argv: tuple[str, ...], group: Cgroup | None) -> Service:
        made.append(Service(Script(tmp_path, argv=argv), lambda: None, group))
        return made[-1]

    yield service
    for up in tmp_path.glob(
        "[uo]*"
    ):  # where the test has failed, what a program of `hides` started is there still
        if up.name in ("up", "other") and up.read_text() and is_alive(int(up.read_text())):
            os.kill(int(up.read_text()), signal.SIGKILL)
    for one in made:
        await one.stop("the test is over", grace=0)


@pytest.fixture
def group(unit: Path) -> Cgroup:
    return Cgroup(unit / "kubo", "kubo")


@pytest.fixture
def earlier() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def has_landlock() -> bool:
    libc = ctypes.CDLL(None)
    return int(libc.syscall(launch.LANDLOCK_CREATE_RULESET, None, 0, 1)) >= launch.LANDLOCK_WITH_REFER


def hidden(folder: Path) -> int:
    """The pid of what a program of `hides` has started."""
    return int((folder / "up").read_text())


# -- a child and its group -----------------------------------------------------------------------------------------


@needed
async def test_a_child_is_in_its_group_before_its_first_instruction(group: Cgroup, make: Make) -> None:
    await group.make()
    lines: list[str] = []
    child = await Child.spawn(Launch(("/bin/cat", "/proc/self/cgroup")), lines.append, group)
    await child.ended.wait()
    assert f"0::{name_of(group.path.parent)}/kubo" in lines
    await group.end()
    assert not group.path.exists()


@needed
async def test_everybody_may_see_what_is_in_a_group(group: Cgroup) -> None:
    before = os.umask(0o077)
    try:
        await group.make()
    finally:
        os.umask(before)
    assert group.path.stat().st_mode & 0o777 == 0o755


@needed
@pytest.mark.parametrize("grace", [0, 20])
async def test_what_it_started_is_gone_after_its_stop(
    grace: int, tmp_path: Path, group: Cgroup, make: Make
) -> None:
    service = make(hides(tmp_path / "up", "signal.pause()", "1>/dev/null 2>&1"), group)
    await service.start("s")
    assert service.state.phase is Phase.READY
    other = hidden(tmp_path)
    assert is_alive(other)
    await service.stop("test", grace=grace)
    assert not is_alive(other)
    assert not group.path.exists()


@needed
async def test_one_that_holds_its_output_open_does_not_hold_up_the_stop(
    tmp_path: Path, group: Cgroup, make: Make
) -> None:
    service = make(hides(tmp_path / "up", "signal.pause()"), group)
    await service.start("s")
    other = hidden(tmp_path)
    async with asyncio.timeout(30):
        await service.stop("test", grace=5)
    assert not is_alive(other)


@needed
async def test_what_it_started_is_gone_when_it_ends_by_itself(
    tmp_path: Path, group: Cgroup, make: Make
) -> None:
    service = make(hides(tmp_path / "up", "signal.pause()"), group)
    await service.start("s")
    other, pid = hidden(tmp_path), service.state.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: service.state.phase is Phase.BACKOFF)
    assert not is_alive(other)
    assert not group.path.exists()


@needed
async def test_what_it_started_is_gone_when_its_start_fails(
    tmp_path: Path, group: Cgroup, make: Make
) -> None:
    service = make(hides(tmp_path / "other", "sys.exit(3)"), group)
    await service.start("s")
    assert service.state.phase is Phase.BACKOFF
    assert "exit 3" in service.state.last_exit
    assert not is_alive(int((tmp_path / "other").read_text()))


@needed
async def test_what_is_in_groups_below_is_ended_and_they_are_removed(
    tmp_path: Path, group: Cgroup, make: Make
) -> None:
    below = group.path / "a" / "b"
    service = make(hides(tmp_path / "up", "signal.pause()"), group)
    await service.start("s")
    other = hidden(tmp_path)
    below.mkdir(parents=True)
    (below / "cgroup.procs").write_text(str(other))
    await service.stop("test", grace=0)
    assert not is_alive(other)
    assert not group.path.exists()


@needed
async def test_what_is_in_its_group_before_a_start_is_ended_first(
    tmp_path: Path, group: Cgroup, make: Make, earlier: subprocess.Popen[bytes]
) -> None:
    group.path.mkdir()
    (group.path / "cgroup.procs").write_text(str(earlier.pid))
    service = make(python(f"import signal; open({str(tmp_path / 'up')!r}, 'w'){WAITS}"), group)
    await service.start("s")
    assert service.state.phase is Phase.READY
    assert not is_alive(earlier.pid)
    assert (group.path / "cgroup.procs").read_text().split() == [str(service.state.pid)]


@needed
async def test_one_that_does_not_end_keeps_the_next_start_from_beginning(
    group: Cgroup, make: Make, earlier: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in uninterruptible sleep, which even SIGKILL does not end; here the signal is lost instead."""
    group.path.mkdir()
    monkeypatch.setattr(Cgroup, "kill", lambda self: None)
    monkeypatch.setattr(Cgroup.end, "__defaults__", (0.05,))
    (group.path / "cgroup.procs").write_text(str(earlier.pid))
    service = make(("/bin/false",), group)
    await service.start("s")
    state = service.state
    assert (state.phase, state.pid) == (Phase.BACKOFF, None)
    assert re.search(
        rf"cannot end what kubo has started: .*pid {earlier.pid}.* does not end", state.last_exit
    )
    assert f"ps -o pid,stat,wchan,args -p {earlier.pid}" in state.advice


@needed
async def test_a_program_that_cannot_enter_its_group_is_not_started(tmp_path: Path, unit: Path) -> None:
    missing = Cgroup(unit / "nothing", "kubo")
    child = await Child.spawn(Launch(("/bin/touch", str(tmp_path / "ran"))), lambda _: None, missing)
    await child.ended.wait()
    assert child.exit_text == "exit 127"
    (line,) = child.last_lines
    assert line.startswith("cannot start /bin/touch: ")
    assert str(missing.path / "cgroup.procs") in line
    assert not (tmp_path / "ran").exists()


LEAVES = """
import os, sys
from pathlib import Path
group = Path(sys.argv[1])
def tried(act):
    try: return act() and "done"
    except OSError as exc: return type(exc).__name__
print(tried(lambda: (group.parent / "cgroup.procs").write_text("0")))
print(tried(lambda: Path("/proc/self/root", *group.parent.parts[1:], "cgroup.procs").write_text("0")))
print(tried(lambda: (group / "below").mkdir()))
folder = Path(sys.argv[2])
print(tried(lambda: (folder / "a").mkdir() or (folder / "file").write_text("x")))
print(tried(lambda: (folder / "file").rename(folder / "a" / "file") and os.truncate(folder / "a" / "file", 0) or 1))
print(tried(lambda: os.link(folder / "a" / "file", folder / "file") or (folder / "file").unlink() or 1))
print(tried(lambda: Path("/dev/null").write_text("x")))
"""


@needed
@pytest.mark.skipif(not has_landlock(), reason="this kernel has no Landlock")
async def test_a_program_cannot_leave_its_group_and_writes_elsewhere_as_ever(
    tmp_path: Path, group: Cgroup
) -> None:
    await group.make()
    lines: list[str] = []
    program = Launch((*python(LEAVES), str(group.path), str(tmp_path)))
    child = await Child.spawn(program, lines.append, group)
    await child.ended.wait()
    assert lines == ["PermissionError"] * 3 + ["done"] * 4
    await group.end()


@needed
async def test_no_file_descriptor_is_left(group: Cgroup) -> None:
    """Of ten rounds: another thread of the tests may have some open just now."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before, rounds = descriptors(), 10
    for _ in range(rounds):
        await group.make()
        child = await Child.spawn(Launch(("/bin/true",)), lambda _: None, group)
        await child.ended.wait()
        await group.end()
    assert descriptors() - before < rounds


async def test_without_a_group_what_has_left_the_session_outlives_the_stop(
    tmp_path: Path, make: Make
) -> None:
    """Started by hand meshd has no control groups: what the mark does not find either lives on."""
    service = make(hides(tmp_path / "up", "signal.pause()", "1>/dev/null 2>&1"), None)
    await service.start("s")
    other = hidden(tmp_path)
    await service.stop("test", grace=0)
    assert is_alive(other)
    os.kill(other, signal.SIGKILL)
    await until(lambda: not is_alive(other))


# -- which part of the tree is meshd's own -------------------------------------------------------------------------

LOOKS = """
import os, sys
from pathlib import Path
from meshd.supervise.cgroups import delegated
if len(sys.argv) > 1:
    Path(sys.argv[1], "cgroup.procs").write_text("0")
with delegated() as found:
    print('found', found and (str(found.path), found.name), flush=True)
    sys.stdin.read()
"""


def looks(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LOOKS, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    told = next(line for line in process.stdout if line.startswith("found "))  # after what is logged
    return told.removeprefix("found ").strip()


def test_where_nothing_was_delegated_there_are_no_groups() -> None:
    with looks() as by_hand:
        assert answer(by_hand) == "None"
        by_hand.communicate()


@needed
def test_what_systemd_has_delegated_is_found_and_one_daemon_alone_uses_it(unit: Path) -> None:
    with looks(str(unit)) as first:
        assert answer(first) == str((str(unit), name_of(unit)))
        with looks(str(unit)) as second:
            assert answer(second) == "None"
            second.communicate()
        first.communicate()
    with looks(str(unit)) as third:
        assert answer(third) == str((str(unit), name_of(unit)))
        third.communicate()


@needed
def test_a_users_own_systemd_leaves_no_mark_and_the_unit_tells(
    unit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.removexattr(unit, cgroups._DELEGATED)
    monkeypatch.setenv("MESHD_DELEGATED", "1")
    with looks(str(unit)) as process:
        assert answer(process) == str((str(unit), name_of(unit)))
        process.communicate()


@needed
@pytest.mark.parametrize("mark", [b"0", None])
def test_a_group_that_is_not_delegated_is_let_be(unit: Path, mark: bytes | None) -> None:
    os.removexattr(unit, cgroups._DELEGATED)
    if mark is not None:
        os.setxattr(unit, cgroups._DELEGATED, mark)
    with looks(str(unit)) as process:
        assert answer(process) == "None"
        process.communicate()


@pytest.mark.parametrize(
    ("root", "mount", "name", "found"),
    [
        ("/", "fs", "/system.slice/meshd.service", "fs/system.slice/meshd.service"),
        ("/", "fs/unified", "/", "fs/unified"),
        ("/system.slice/meshd.service", "own", "/system.slice/meshd.service", "own"),
        ("/system.slice", "with blank", "/system.slice/a b", "with blank/a b"),
        ("/system.slice/mesh", "own", "/system.slice/meshd.service", None),
        ("/../..", "fs", "/x", None),
    ],
)
def test_the_folder_of_a_group_is_where_its_tree_is_mounted(
    root: str, mount: str, name: str, found: str | None, tmp_path: Path
) -> None:
    at = str(tmp_path / mount).replace(" ", "\\040")
    lines = [
        "25 20 0:22 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory",
        f"426 419 0:38 {root} {at} rw,nosuid shared:112 master:16 - cgroup2 cgroup2 rw,nsdelegate",
    ]
    if found is not None:
        (tmp_path / found).mkdir(parents=True)
        (tmp_path / found / "cgroup.procs").write_text(f"1\n{os.getpid()}\n")
    wanted = [] if found is None else [tmp_path / found]
    assert list(cgroups._folders(name, "\n".join(lines))) == wanted


def test_a_folder_in_which_this_process_is_not_is_not_its_group(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("1\n")
    assert list(cgroups._folders("/", f"1 2 0:38 / {tmp_path} rw - cgroup2 none rw")) == []


# -- who is in one -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("membership", "inside"),
    [
        ("0::/system.slice/meshd.service/kubo\n", True),
        ("9:name=systemd:/x\n0::/system.slice/meshd.service/kubo\n", True),
        ("0::/system.slice/meshd.service/kubo/below/that\n", True),
        ("0::/system.slice/meshd.service/kubo (deleted)\n", True),
        ("0::/system.slice/meshd.service\n", False),
        ("0::/system.slice/meshd.service/.control\n", False),
        ("0::/system.slice/meshd.service/kubo2\n", False),
        ("0::/system.slice/meshd.services/kubo\n", False),
        ("0::/user.slice/system.slice/meshd.service/kubo\n", False),
        ("9:name=systemd:/system.slice/meshd.service/kubo\n0::/\n", False),
        ("4:memory:/\n", False),
        ("", False),
    ],
)
def test_who_is_in_a_programs_group(membership: str, inside: bool) -> None:
    own = Cgroups(Path("/nowhere"), "/system.slice/meshd.service")
    own.of("kubo")
    assert own.holds(membership) is inside


def test_in_a_container_of_its_own_the_unit_is_the_root() -> None:
    own = Cgroups(Path("/nowhere"), "/")
    own.of("kubo")
    assert own.holds("0::/kubo\n")
    assert not own.holds("0::/\n")
    assert not own.holds("0::/../kubo\n")


def test_what_does_not_end_is_told_with_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("17\n4\n")
    error = Cgroup(tmp_path, "kubo")._stuck()
    assert isinstance(error, MeshError)
    assert error.code is Code.BUSY
    assert error.hint.startswith("see what it waits for")
    assert error.hint.endswith(" -p 4,17")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace of its own needs root")
def test_a_disk_whose_name_is_no_text_keeps_no_meshd_from_starting(tmp_path: Path) -> None:
    """The label of a stick can be in any encoding, and desktops mount it under that."""
    place = os.fsencode(tmp_path) + b"/mnt-\xff"
    Path(os.fsdecode(place)).mkdir()
    looks = "from pathlib import Path; from meshd import files; from meshd.supervise import cgroups; cgroups._find();"
    looks += " print(files.in_memory(Path(__import__('sys').argv[1])))"
    script = 'mount -t tmpfs tmpfs "$0" && exec "$1" -c "$2" "$0"'
    inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    inside += [os.fsdecode(place), sys.executable, looks]
    done = subprocess.run(inside, capture_output=True, text=True, timeout=20, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")
