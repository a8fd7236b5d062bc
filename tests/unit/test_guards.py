"""The guards of tests/guards.py, each seen catching what it guards against."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(270)  # on a busy machine; it takes about 15 s of processor time

ROOT = Path(__file__).resolve().parents[2]

MISBEHAVING = """
import asyncio, socket, subprocess, sys, time, hashlib
import pytest

kept = []
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}

def test_leaves_a_process():
    kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

async def test_leaves_a_task():
    kept.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))

def test_leaves_a_tcp_socket():
    kept.append(socket.create_server(("127.0.0.1", 0)))

def test_leaves_a_unix_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server = socket.socket(socket.AF_UNIX)
    server.bind("here")
    server.listen()
    kept.append(server)

def test_leaves_an_event_loop():
    kept.append(asyncio.new_event_loop())

async def test_blocks_the_loop():
    time.sleep(1.5)

async def test_blocks_the_loop_while_others_have_all_that_they_want():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5); print(); input()"], **PIPES)
    child.stdout.readline()
    child.communicate(b"\\n")

async def test_computes_in_the_loop():
    end = time.thread_time() + 0.7
    while time.thread_time() < end:
        pass

async def test_computes_in_the_loop_and_lets_nobody_else_run():
    end = time.thread_time() + 0.7
    blob = b"0" * 2**20
    while time.thread_time() < end:
        bytes(2**22).count(b"1")

async def test_is_good():
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await child.wait()
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    server.close()
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.7)

def test_is_good_too():
    time.sleep(0.7)
"""

MODULE = """
import asyncio, pytest_asyncio

kept = []  # the loop itself holds its tasks weakly: without this the collector may take the task before the guard looks

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def careless():
    kept.append(asyncio.create_task(asyncio.Event().wait(), name="for-long"))
    return asyncio.get_running_loop()

async def test_is_good_in_a_careless_module(careless):
    pass

async def test_is_good_and_last(careless):
    pass
"""

HELPED = """
import subprocess, sys
import pytest

HELPER = '''
import subprocess, sys
for line in sys.stdin:
    subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    print("started", flush=True)
'''

@pytest.fixture(scope="module")
def helper():
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HELPER], stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.kill()

def test_is_good_with_a_helper_that_starts_others(helper):
    print("go", file=helper.stdin, flush=True)
    assert helper.stdout.readline() == "started\\n"
"""


LIVING_ON = """
import subprocess, sys
from tests import guards

kept = []
guards.lives_on.append(lambda: [process.pid for process in kept])
STARTS_ANOTHER = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()']); print(flush=True); input()"

def test_is_good_and_starts_what_lives_on():
    argv = [sys.executable, "-c", STARTS_ANOTHER]
    kept.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    kept[0].stdout.readline()

def test_leaves_another_process():
    kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
    kept.pop()

def test_is_good_and_ends_it():
    with kept[0]:
        kept[0].communicate(b"")
"""


STARVED = """
import os, subprocess, sys
import pytest

PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
SLOW = '''
import time
print(flush=True)
input()
end = time.thread_time() + 0.01
while time.thread_time() < end:
    pass
print(flush=True)
input()
'''

@pytest.fixture
def slow():
    '''A process that gets a CPU only when nobody else wants it, and one that always wants it.'''
    cpu = min(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-c", SLOW], **PIPES) as child:
        child.stdout.readline()
        os.sched_setaffinity(child.pid, {cpu})
        os.sched_setscheduler(child.pid, os.SCHED_IDLE, os.sched_param(0))
        with subprocess.Popen([sys.executable, "-c", "print(flush=True)\\nwhile True: pass"], **PIPES) as greedy:
            os.sched_setaffinity(greedy.pid, {cpu})
            greedy.stdout.readline()
            yield child
            greedy.kill()
        child.communicate("\\n")

async def test_is_good_and_waits_for_who_has_no_cpu(slow):
    print(file=slow.stdin, flush=True)
    slow.stdout.readline()
"""

CONFTEST = """
import gc
import pytest
from tests import guards

guards.GRACE_S = 0.2

@pytest.fixture(autouse=True)
def collected():
    '''The collector comes when it likes; here always, so that no test passes by its absence.'''
    yield
    gc.collect()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of those tests, each run as all tests here are."""
    folder = tmp_path_factory.mktemp("guards")
    (folder / "test_misbehaving.py").write_text(MISBEHAVING)
    (folder / "test_module.py").write_text(MODULE)
    (folder / "test_starved.py").write_text(STARVED)
    (folder / "test_helped.py").write_text(HELPED)
    (folder / "test_living_on.py").write_text(LIVING_ON)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    arguments = ["-p", "tests.guards", "-p", "no:cacheprovider", "-rA", "--tb=short", "-W", "ignore"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.stdout + done.stderr


def fault(said: str, test: str) -> str:
    """The section in which pytest says why `test` failed at its end; empty where it did not."""
    match = re.search(rf"_ ERROR at teardown of {test} _+\n(.*?)\n(?=___|===)", said, re.DOTALL)
    return match[1] if match else ""


@pytest.mark.parametrize("test", ["test_leaves_a_process", "test_leaves_another_process"])
def test_a_process_that_is_left_is_found(said: str, test: str) -> None:
    assert re.search(r"left behind: the process \d+ .*input\(\)", fault(said, test))


def test_a_task_that_is_left_is_found_and_named(said: str) -> None:
    assert "left behind: 1 running task: forgotten" in fault(said, "test_leaves_a_task")


@pytest.mark.parametrize(
    ("test", "kind"), [("test_leaves_a_tcp_socket", "tcp"), ("test_leaves_a_unix_socket", "unix")]
)
def test_a_listening_socket_that_is_left_is_found(said: str, test: str, kind: str) -> None:
    assert f"left behind: a listening socket, {kind} " in fault(said, test)


def test_an_event_loop_that_is_left_is_found(said: str) -> None:
    assert "left behind: an open event loop" in fault(said, "test_leaves_an_event_loop")


@pytest.mark.parametrize(
    ("test", "line"),
    [
        ("test_blocks_the_loop", "time.sleep(1.5)"),
        ("test_blocks_the_loop_while_others_have_all_that_they_want", "child.stdout.readline()"),
    ],
)
def test_a_blocked_loop_is_found_with_the_line_that_blocks_it(said: str, test: str, line: str) -> None:
    text = fault(said, test)
    assert "the event loop was held up" in text
    assert line in text


@pytest.mark.parametrize(
    "test", ["test_computes_in_the_loop", "test_computes_in_the_loop_and_lets_nobody_else_run"]
)
def test_long_computing_in_the_loop_is_found(said: str, test: str) -> None:
    assert "the event loop was held up" in fault(said, test)


@pytest.mark.parametrize(
    "test",
    [
        "test_is_good",
        "test_is_good_too",
        "test_is_good_in_a_careless_module",
        "test_is_good_with_a_helper_that_starts_others",
        "test_is_good_and_starts_what_lives_on",
        "test_is_good_and_ends_it",
        "test_is_good_and_waits_for_who_has_no_cpu",
    ],
)
def test_a_test_that_cleans_up_passes_also_after_those_that_do_not(said: str, test: str) -> None:
    assert re.search(rf"PASSED .*::{test}\n", said)
    assert fault(said, test) == ""


def test_what_a_module_leaves_is_found_when_it_ends(said: str) -> None:
    assert "left behind: 1 running task: for-long" in fault(said, "test_is_good_and_last")
