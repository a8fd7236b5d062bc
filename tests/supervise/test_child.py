"""One child process: its output, its end, and that it does not outlive the daemon."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from meshd.supervise import child as child_room
from meshd.supervise.child import IDENTITY, MARK, Child, Launch
from tests.supervise.programs import python
from tests.waiting import until

LONG = 64 * 1024


async def output_of(code: str) -> list[str]:
    """All lines of a child, as they are handed on."""
    lines: list[str] = []
    child = await Child.spawn(Launch(python(code)), lines.append)
    async with asyncio.timeout(30):
        await child.ended.wait()
    return lines


# -- output --------------------------------------------------------------------------------------------------------


async def test_its_output_and_its_errors_are_read_line_by_line() -> None:
    assert await output_of("import os; os.write(1, b'one\\n'); os.write(2, b'two\\n')") == ["one", "two"]


async def test_a_last_line_without_an_end_is_a_line() -> None:
    assert await output_of("print('one'); print('two', end='')") == ["one", "two"]


async def test_empty_lines_are_left_out() -> None:
    assert await output_of("print('one\\n\\n   \\ntwo\\r')") == ["one", "two"]


async def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    (line,) = await output_of("import sys; sys.stdout.buffer.write(b'a\\xff\\x00b\\n')")
    assert line == "a\ufffd\0b"


@pytest.mark.parametrize("length", [LONG - 1, LONG, LONG + 1, 5 * LONG + 7])
async def test_a_line_that_is_too_long_is_handed_on_in_pieces_and_whole(length: int) -> None:
    lines = await output_of(f"print('x' * {length}); print('after')")
    assert lines[-1] == "after"
    assert "".join(lines[:-1]) == "x" * length
    assert max(map(len, lines)) <= 2 * LONG


async def test_binary_noise_does_not_stop_the_reading() -> None:
    noise = "import os, sys; [os.write(1, os.urandom(65536)) for _ in range(30)]; os.write(1, b'\\nafter\\n')"
    assert (await output_of(noise))[-1] == "after"


async def test_the_last_lines_are_kept_for_the_report() -> None:
    child = await Child.spawn(Launch(python("for i in range(30): print(i)")), lambda _: None)
    await child.ended.wait()
    assert list(child.last_lines) == [str(i) for i in range(10, 30)]


# -- end -----------------------------------------------------------------------------------------------------------


async def test_a_child_runs_however_many_files_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handle gets a high number then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"this user may open no more than {hard} files")
    handle = child_room._pidfd

    def high(pid: int) -> int | None:
        if (low := handle(pid)) is None:
            return None
        number = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 2000)
        os.close(low)
        return number

    monkeypatch.setattr(child_room, "_pidfd", high)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    try:
        child = await Child.spawn(Launch(python("input()")), lambda _: None)
        endless = await Child.spawn(Launch(python("import signal; signal.pause()")), lambda _: None)
        async with asyncio.timeout(30):
            await child.ended.wait()
            assert child.gone
            assert not endless.gone
            assert endless.pid in child_room.running()
            await endless.stop(0)
        assert endless.gone
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("pass", "exit 0"),
        ("raise SystemExit(3)", "exit 3"),
        ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL"),
        ("import os; os.abort()", "signal SIGABRT"),
    ],
)
async def test_how_it_ended_is_said(code: str, text: str) -> None:
    child = await Child.spawn(Launch(python(code)), lambda _: None)
    async with asyncio.timeout(30):
        await child.ended.wait()
    assert child.exit_text == text


async def test_while_it_runs_it_has_not_ended() -> None:
    child = await Child.spawn(Launch(("/bin/cat", "/dev/zero")), lambda _: None)
    assert child.exit_text == ""
    assert not child.ended.is_set()
    await child.stop(0)
    assert child.exit_text == "signal SIGKILL"


async def test_stopping_what_has_ended_is_fine() -> None:
    child = await Child.spawn(Launch(("/bin/true",)), lambda _: None)
    await child.ended.wait()
    await child.stop(5)
    assert child.exit_text == "exit 0"


WAITS = (
    "import signal, sys; signal.signal(15, {on_term}); print('up', flush=True)\nwhile True: signal.pause()"
)


async def spawn_waiting(on_term: str) -> Child:
    up = asyncio.Event()
    child = await Child.spawn(Launch(python(WAITS.format(on_term=on_term))), lambda _: up.set())
    async with asyncio.timeout(30):
        await up.wait()
    return child


async def test_it_is_asked_before_it_is_killed() -> None:
    child = await spawn_waiting("lambda *_: sys.exit(7)")
    await child.stop(30)
    assert child.exit_text == "exit 7"


async def test_one_that_does_not_listen_is_killed_after_its_grace() -> None:
    child = await spawn_waiting("signal.SIG_IGN")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await child.stop(0.3)
    assert child.exit_text == "signal SIGKILL"
    assert loop.time() - began >= 0.3


async def test_one_that_is_frozen_is_woken_to_hear_it() -> None:
    child = await spawn_waiting("lambda *_: sys.exit(7)")
    os.kill(child.pid, signal.SIGSTOP)
    await until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
    await child.stop(30)
    assert child.exit_text == "exit 7"


async def test_one_that_is_frozen_can_be_killed() -> None:
    child = await spawn_waiting("signal.SIG_IGN")
    os.kill(child.pid, signal.SIGSTOP)
    await child.stop(0)
    assert child.exit_text == "signal SIGKILL"


async def test_a_listener_that_raises_does_not_end_the_reading() -> None:
    """A program whose output nobody reads hangs as soon as the pipe is full."""
    heard: list[str] = []

    def listen(line: str) -> None:
        heard.append(line)
        raise KeyError("a mistake")

    child = await Child.spawn(Launch(python("print('one'); print('two')")), listen)
    async with asyncio.timeout(30):
        await child.ended.wait()
    assert heard == ["one", "two"]
    assert child.exit_text == "exit 0"


async def test_one_that_nobody_reads_any_more_is_killed() -> None:
    """As when the event loop ends: asyncio.run cancels every task, and waits for it."""
    child = await spawn_waiting("signal.SIG_IGN")
    child._reader.cancel()
    async with asyncio.timeout(30):
        await child.ended.wait()
    assert child.exit_text == "signal SIGKILL"


async def test_all_are_ended_together_whoever_watches_them() -> None:
    deaf, frozen = await spawn_waiting("signal.SIG_IGN"), await spawn_waiting("signal.SIG_DFL")
    os.kill(frozen.pid, signal.SIGSTOP)
    assert child_room.running() == sorted([deaf.pid, frozen.pid])
    assert await child_room.end_all(30) == []
    for child in (deaf, frozen):
        async with asyncio.timeout(30):
            await child.ended.wait()
        assert child.exit_text == "signal SIGKILL"


async def test_another_thread_can_end_all_while_the_loop_is_held_up() -> None:
    child = await spawn_waiting("signal.SIG_IGN")
    ended = await asyncio.to_thread(child_room.kill_all, 30)
    assert ended == []
    async with asyncio.timeout(30):
        await child.ended.wait()


# -- surroundings --------------------------------------------------------------------------------------------------


async def test_it_has_a_session_of_its_own_no_input_and_only_the_given_environment(tmp_path: Path) -> None:
    code = (
        "import os, sys; print(os.getsid(0) == os.getpid()); print(sys.stdin.read() == '');"
        "print(sorted(k for k in os.environ if k != 'LC_CTYPE'))"
    )
    lines: list[str] = []
    child = await Child.spawn(Launch(python(code), {"A": "b"}, tmp_path), lines.append)
    async with asyncio.timeout(30):
        await child.ended.wait()
    assert lines == ["True", "True", str(["A", IDENTITY, MARK])]


async def test_a_program_that_cannot_be_started_says_so() -> None:
    child = await Child.spawn(Launch(("/nowhere/ipfs",)), lambda _: None)
    async with asyncio.timeout(30):
        await child.ended.wait()
    assert child.exit_text == "exit 127"
    assert child.last_lines[0].startswith("cannot start /nowhere/ipfs")


PARENT = """
import asyncio, sys
from meshd.supervise.child import Child, Launch

async def main():
    wait = (sys.executable, "-c", "import signal\\nwhile True: signal.pause()")
    child = await Child.spawn(Launch(wait), lambda line: None)
    print(child.pid, flush=True)
    await child.ended.wait()

asyncio.run(main())
"""


def test_kill_9_of_the_daemon_leaves_no_orphan() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        child = os.pidfd_open(int(daemon.stdout.readline()))
        try:
            assert not select.select([child], [], [], 0)[0]
            daemon.kill()
            assert select.select([child], [], [], 20)[0], "the child outlived the daemon"
        finally:
            os.close(child)
