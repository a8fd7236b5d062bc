"""State on the disk: old or new, never half; private; held by one daemon."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import os
import secrets
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from meshd import files
from meshd.errors import Code, MeshError
from tests.unit.slow_disk import slow
from tests.waiting import until

# -- writes --------------------------------------------------------------------------------------------------------


@given(st.binary())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_was_written_is_read(tmp_path: Path, data: bytes) -> None:
    files.write_durably(tmp_path / "state", data)
    assert (tmp_path / "state").read_bytes() == data
    assert [found.name for found in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
@pytest.mark.parametrize("before", [None, 0o666])
def test_the_mode_is_the_one_asked_for_whatever_the_umask_and_the_old_file_say(
    mode: int, before: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    if before is not None:
        path.touch()
        path.chmod(before)
    old = os.umask(0o077)
    try:
        files.write_durably(path, "x", mode=mode)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == mode


def test_by_default_nobody_else_may_read_it(tmp_path: Path) -> None:
    files.write_durably(tmp_path / "secret", "x")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def fails(step: str) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", step)

    return fail


@pytest.mark.parametrize("step", ["fsync", "fchmod", "replace"])
def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_durably(tmp_path / "state", "old")
    monkeypatch.setattr(os, step, fails(step))
    with pytest.raises(OSError, match="No space"):
        files.write_durably(tmp_path / "state", "new")
    monkeypatch.undo()
    assert (tmp_path / "state").read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["state"]


def test_it_is_on_the_disk_before_it_gets_its_name_and_then_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    fsync, rename = os.fsync, os.replace

    def watched_fsync(fd: int) -> None:
        done.append(Path(f"/proc/self/fd/{fd}").readlink().name.partition(".tmp")[0])
        fsync(fd)

    def watched_rename(source: str, target: str) -> None:
        done.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_rename)
    files.write_durably(tmp_path / "state", "x")
    assert [done[0].rpartition(".")[0], *done[1:]] == [f".state.{os.getpid()}", "rename", tmp_path.name]


KILLED = """
import os, sys
from pathlib import Path
from meshd import files
path, step = Path(sys.argv[1]), sys.argv[2]
real = getattr(os, step)
def killed(*arguments, **options):
    os.kill(os.getpid(), 9)
setattr(os, step, killed)
files.write_durably(path, "new")
"""


@pytest.mark.parametrize("step", ["fchmod", "fsync", "replace"])
def test_kill_9_in_the_midst_leaves_the_old_content(step: str, tmp_path: Path) -> None:
    path = tmp_path / "state"
    files.write_durably(path, "old")
    child = subprocess.run([sys.executable, "-c", KILLED, path, step], timeout=30, check=False)
    assert child.returncode == -9
    assert path.read_text() == "old"
    files.write_durably(path, "newer")
    assert path.read_text() == "newer"


def test_a_write_that_the_kernel_refuses_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """write(2) and fsync(2) know no names."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        files.write_durably(tmp_path / "state", "new")
    assert caught.value.filename == str(tmp_path / "state")


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "0" * 16)
    (tmp_path / f".state.{os.getpid()}.{'0' * 16}.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        files.write_durably(tmp_path / "state", "x")
    assert victim.read_text() == "mine"


def test_threads_that_write_one_file_at_once_all_succeed_and_it_is_whole(tmp_path: Path) -> None:
    """As two `meshctl status` do that tell of the same new member."""
    path, texts = tmp_path / "state", [letter * 50_000 for letter in "abcdefgh"]
    ready = threading.Barrier(len(texts))

    def write(text: str) -> None:
        ready.wait(30)
        for _ in range(25):
            files.write_atomically(path, text)
            assert path.read_text() in texts

    with ThreadPoolExecutor(len(texts)) as threads:
        for done in [threads.submit(write, text) for text in texts]:
            done.result(60)
    assert [found.name for found in tmp_path.iterdir()] == ["state"]


def test_what_a_killed_write_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "state"
    files.write_durably(path, "old")
    child = subprocess.run([sys.executable, "-c", KILLED, path, "fsync"], timeout=30, check=False)
    assert child.returncode == -9
    (left,) = (found for found in tmp_path.iterdir() if found != path)
    assert files.sweep_unfinished(tmp_path, tmp_path / "not there") == [left]
    assert [found.name for found in tmp_path.iterdir()] == ["state"]


def test_the_sweep_takes_nothing_else(tmp_path: Path) -> None:
    """What runs may be writing; an earlier process may have had our number; and other names are other people's."""
    others = [f".state.{os.getppid()}.{'a' * 16}.tmp", "state.tmp", ".state.tmp", ".state.1234.txt"]
    ours = [f".state.{os.getpid()}.{'b' * 16}.tmp", f".state.{os.getpid()}.tmp"]
    for name in others + ours:
        (tmp_path / name).touch()
    assert {path.name for path in files.sweep_unfinished(tmp_path)} == set(ours)
    assert {path.name for path in tmp_path.iterdir()} == set(others)


# -- json ----------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_json_is_read_as_it_was_written(tmp_path: Path, value: object) -> None:
    files.write_json(tmp_path / "state.json", value)
    assert files.read_json(tmp_path / "state.json") == value


@pytest.mark.parametrize(
    ("content", "why"), [(b"", "is empty"), (b'{"a":', "is damaged"), (b"\xff", "is damaged")]
)
def test_a_damaged_file_is_told_with_its_path_and_what_to_do(
    content: bytes, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "node.json"
    path.write_bytes(content)
    with pytest.raises(MeshError) as caught:
        files.read_json(path)
    assert caught.value.code is Code.BAD_STATE
    assert caught.value.title == f"cannot use {path}"
    assert why in caught.value.detail
    assert "backup" in caught.value.hint


def test_a_file_that_is_not_there_is_not_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "node.json")


# -- disk ----------------------------------------------------------------------------------------------------------


async def test_a_sync_reaches_the_filesystem(tmp_path: Path) -> None:
    await files.Disk(tmp_path, tmp_path).sync()


async def test_every_filesystem_is_synced_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "syncfs", synced.append)
    (tmp_path / "same").mkdir()
    other = Path("/proc")  # a filesystem of its own everywhere
    await files.Disk(tmp_path, tmp_path / "same", other).sync()
    assert synced == [tmp_path, other]


async def test_those_who_wait_while_one_sync_runs_share_the_next_one(tmp_path: Path) -> None:
    with slow(tmp_path) as disk:
        first = asyncio.create_task(disk.sync())
        await disk.began.wait()
        others = [asyncio.create_task(disk.sync()) for _ in range(20)]
        await asyncio.wait(others, timeout=0.01)
        disk.go_on()
        await first
        assert not any(task.done() for task in others), "a sync that began before does not count"
        disk.go_on()
        await asyncio.gather(*others)
        assert disk.syncs == 2


async def test_after_a_sync_that_failed_nothing_is_called_durable_any_more(tmp_path: Path) -> None:
    """The kernel tells a failed write once and drops the data: the next sync would succeed."""
    with slow(tmp_path) as disk:
        disk.errors = [OSError(errno.EIO, "Input/output error")]
        disk.go_on()
        for _ in range(2):
            with pytest.raises(MeshError, match="Input/output") as caught:
                await disk.sync()
            assert caught.value.code is Code.BAD_STATE
            assert "systemctl restart meshd" in caught.value.hint
        assert disk.failed == "Input/output error"
        assert disk.syncs == 1


@pytest.mark.parametrize("broken", [0, 1])
async def test_a_filesystem_that_fails_is_heard_by_all_who_wait_and_no_later_sync_hides_it(
    broken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of two it is. As the kernel does, it fails once."""
    answers = [0] * broken + [-1]

    def syncfs(_: int) -> int:
        answer = answers.pop(0) if answers else 0
        ctypes.set_errno(errno.EIO if answer else 0)
        return answer

    monkeypatch.setattr(files, "_libc", SimpleNamespace(syncfs=syncfs))
    disk = files.Disk(tmp_path, Path("/proc"))
    told = await asyncio.gather(*(disk.sync() for _ in range(3)), return_exceptions=True)
    told += await asyncio.gather(disk.sync(), return_exceptions=True)
    assert [getattr(each, "code", None) for each in told] == [Code.BAD_STATE] * 4
    assert all("Input/output error" in str(each) for each in told)


async def test_who_waits_for_the_sync_after_one_that_failed_hears_of_it_too(tmp_path: Path) -> None:
    """What they wrote can be what the kernel dropped, and the next sync would succeed."""
    with slow(tmp_path) as disk:
        disk.errors = [OSError(errno.EIO, "Input/output error")]
        first = asyncio.create_task(disk.sync())
        await disk.began.wait()
        next_one = asyncio.create_task(disk.sync())
        await asyncio.wait([next_one], timeout=0.01)
        disk.go_on(2)
        for each in (first, next_one):
            with pytest.raises(MeshError, match="Input/output"):
                await each


async def test_who_gives_up_does_not_take_the_sync_from_the_others(tmp_path: Path) -> None:
    with slow(tmp_path) as disk:
        impatient, patient = asyncio.create_task(disk.sync()), asyncio.create_task(disk.sync())
        await disk.began.wait()
        impatient.cancel()
        disk.go_on()
        await patient
        assert impatient.cancelled()
        assert disk.syncs == 1


async def test_a_failure_that_nobody_waits_for_any_more_is_no_noise(tmp_path: Path) -> None:
    with slow(tmp_path) as disk:
        disk.errors = [OSError(errno.EIO, "Input/output error")]
        impatient = asyncio.create_task(disk.sync())
        await disk.began.wait()
        impatient.cancel()
        disk.go_on()
        await until(lambda: disk.failed)
        assert (disk.syncs, disk.errors) == (1, [])


def test_a_folder_that_is_gone_cannot_be_synced(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.syncfs(tmp_path / "gone")


# -- one daemon ----------------------------------------------------------------------------------------------------

HOLDS = """
import sys
from pathlib import Path
from meshd.files import only_daemon
with only_daemon(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def test_a_second_daemon_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, tmp_path], stdin=pipe, stdout=pipe, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(MeshError) as caught, files.only_daemon(tmp_path):
            pass
        assert caught.value.code is Code.BUSY
        assert f"(pid {other.pid})" in caught.value.detail
        other.kill()
    with files.only_daemon(tmp_path):  # kill -9 of the holder leaves no lock
        assert int((tmp_path / "lock").read_text()) == os.getpid()
    with files.only_daemon(tmp_path):
        pass


def test_children_do_not_hold_the_folder_for_their_daemon(tmp_path: Path) -> None:
    code, pipe = "print('up', flush=True); input()", subprocess.PIPE
    with files.only_daemon(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, close_fds=False)
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
    with child, files.only_daemon(tmp_path):
        child.kill()


def test_state_is_json_a_person_can_read(tmp_path: Path) -> None:
    files.write_json(tmp_path / "s.json", {"b": 1, "a": 2})
    assert (tmp_path / "s.json").read_text() == json.dumps({"a": 2, "b": 1}, indent=1) + "\n"
