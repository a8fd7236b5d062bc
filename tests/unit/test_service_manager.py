"""What systemd is told, read from a real notification socket; and what the journal gets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from meshctl.client import Client
from meshd.model import Condition, Severity
from meshd.systemd import Journal, Notifier, ServiceManager, journal, messages, notify

ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = 30.0


class Manager:
    """systemd's end of the protocol."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.heard: list[str] = []

    def next(self, timeout_s: float = LONGEST_S) -> str:
        """The next message. Raises TimeoutError."""
        self._socket.settimeout(timeout_s)
        self.heard.append(self._socket.recv(65536).decode())
        return self.heard[-1]

    def until(self, wanted: str) -> None:
        """Read until a message holds that line. Raises TimeoutError."""
        deadline = time.monotonic() + LONGEST_S
        while wanted not in self.next(max(0.01, deadline - time.monotonic())).splitlines():
            pass

    def silent(self) -> bool:
        self._socket.setblocking(False)
        try:
            self.heard.append(self._socket.recv(65536).decode())
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["a path", "an abstract name"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manager]:
    """systemd-python, where it is installed, takes the socket's name from this process."""
    address = (
        f"@meshd-test-{os.getpid()}" if request.param == "an abstract name" else str(tmp_path / "notify")
    )
    made = Manager(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    yield made
    made.close()


def environment(systemd: Manager, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": systemd.address, **more}


def test_a_message_has_a_line_for_each_field_and_a_value_cannot_begin_another(systemd: Manager) -> None:
    Notifier(environment(systemd)).tell(STATUS="waiting\nREADY=1", MAINPID=7)
    assert systemd.next() == "STATUS=waiting READY=1\nMAINPID=7"


def test_without_systemd_python_the_messages_are_the_same(
    systemd: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "systemd", None)
    Notifier(environment(systemd)).tell(READY=1)
    assert systemd.next() == "READY=1"


def test_a_manager_that_is_gone_ends_nothing(systemd: Manager) -> None:
    told = Notifier(environment(systemd))
    systemd.close()
    told.tell(READY=1)


def test_started_by_hand_nothing_is_told() -> None:
    manager = ServiceManager(Notifier({"WATCHDOG_USEC": "1000000"}))
    for call in (manager.ready, manager.passed, manager.stopping):
        call()
    with manager.reload():
        manager.needs(1.0)
    manager.status("ready")
    assert not Notifier({}).present


def test_a_status_is_told_when_it_changes_and_not_after_the_stop(systemd: Manager) -> None:
    manager = ServiceManager(Notifier(environment(systemd)))
    for text in ("waiting for kubo", "waiting for kubo", "ready"):
        manager.status(text)
    manager.stopping()
    manager.status("waiting for kubo")
    assert systemd.next() == "STATUS=waiting for kubo"
    assert systemd.next() == "STATUS=ready"
    assert systemd.next().startswith("STOPPING=1\n")
    assert systemd.silent()


def test_only_turns_feed_the_watchdog_and_only_as_often_as_it_needs(systemd: Manager) -> None:
    now = [100.0]
    manager = ServiceManager(Notifier(environment(systemd, WATCHDOG_USEC="20000000")), clock=lambda: now[0])
    manager.ready()
    assert systemd.next() == "READY=1"
    assert systemd.silent(), "readiness is no turn"
    fed = []
    for second in range(21):
        now[0] = 100.0 + second
        manager.passed()
        fed += [] if systemd.silent() else [second]
    assert fed == [0, 5, 10, 15, 20]


def test_no_watchdog_is_fed_where_there_is_none(systemd: Manager) -> None:
    ServiceManager(Notifier(environment(systemd))).passed()
    assert systemd.silent()


def test_a_stop_that_takes_longer_asks_for_more_time(systemd: Manager) -> None:
    ServiceManager(Notifier(environment(systemd))).needs(90.5)
    assert systemd.next() == "EXTEND_TIMEOUT_USEC=90500000"


# -- the daemon itself ---------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(systemd: Manager, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts `meshd run` as systemd would, with a watchdog of four seconds."""
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        config = tmp_path / "meshd.toml"
        config.write_text(
            f'[paths]\nstate = "{short}/s"\nrun = "{short}/r"\n[metrics]\nlisten = ""\n'
            '[overlay]\nkind = "static"\naddress = "127.0.0.9"\n'
        )

        def start() -> subprocess.Popen[bytes]:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "meshd", "run", "--config", config],
                    cwd=ROOT,
                    env=os.environ | environment(systemd, WATCHDOG_USEC="4000000"),
                )
            )
            return started[-1]

        yield start
        for process in started:
            process.kill()
            process.wait()


def test_a_daemon_without_a_mesh_is_ready_says_what_it_waits_for_and_feeds_the_watchdog(
    systemd: Manager, daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process = daemon()
    systemd.until("READY=1")
    systemd.until("STATUS=this node is in no mesh")
    for _ in range(2):  # the second after a turn that nothing had asked for
        systemd.until("WATCHDOG=1")
    process.send_signal(signal.SIGTERM)
    systemd.until("STOPPING=1")
    assert process.wait(LONGEST_S) == 0


def test_a_reload_takes_over_what_it_can_and_names_what_waits_for_a_restart(
    systemd: Manager,
    daemon: Callable[[], subprocess.Popen[bytes]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "meshd.toml"
    process = daemon()
    systemd.until("READY=1")
    before = config.read_text()

    config.write_text(
        f'{before}[storage]\nreserve = "7MiB"\n[pins]\nreplicas = 2\n[log]\nlevel = "warning"\n'
    )
    process.send_signal(signal.SIGHUP)
    systemd.until("RELOADING=1")
    systemd.until("READY=1")
    run = next(line for line in before.splitlines() if line.startswith("run")).partition('"')[2].rstrip('"')
    client = Client(f"{run}/meshd.sock")
    assert client.get("status")["storage"]["reserve"] == 7 * 1024**2
    said = capfd.readouterr().err
    assert "these changes wait for a restart" in said
    assert "pins.replicas" in said
    assert "storage.reserve" not in said

    config.write_text(f"{before}[storage]\nreserve = 7\nnonsense = 1\n")
    process.send_signal(signal.SIGHUP)
    systemd.until("RELOADING=1")
    systemd.until("READY=1")
    assert client.get("status")["storage"]["reserve"] == 7 * 1024**2, "a mistake changes nothing"
    said = capfd.readouterr().err
    assert "cannot reload" in said
    assert "storage.nonsense" in said


# -- the journal ---------------------------------------------------------------------------------------------------


@pytest.fixture
def entries() -> Iterator[list[dict[str, str]]]:
    """What the journal got; structlog writes there."""
    got: list[dict[str, str]] = []
    written = Journal(lambda *fields: got.append(dict(field.split("=", 1) for field in fields)))
    before = structlog.get_config()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            written,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=lambda *_: written,
        cache_logger_on_first_use=False,
    )
    yield got
    structlog.configure(**before)


def test_what_kubo_says_is_found_by_its_name(entries: list[dict[str, str]]) -> None:
    structlog.get_logger(service="kubo").warning("output", line="a=b\tc")
    assert entries == [
        {
            "SYSLOG_IDENTIFIER": "meshd",
            "MESSAGE": "kubo: a=b\tc",
            "PRIORITY": "4",
            "MESHD_SERVICE": "kubo",
            "MESHD_LINE": "a=b\tc",
        }
    ]


def test_a_condition_has_its_code_its_id_and_all_that_the_catalogue_fills_in(
    entries: list[dict[str, str]],
) -> None:
    from meshd.health.board import Board

    held = Condition(
        "service-down", Severity.ERROR, "kubo does not run", "exit 1", "meshctl logs kubo", "kubo"
    )
    board = Board()
    board.update([held], 1.0)
    board.update([], 2.0)
    raised, cleared = entries
    assert raised["MESHD_CONDITION"] == cleared["MESHD_CONDITION"] == "service-down"
    assert raised["MESSAGE"] == "kubo does not run: exit 1; try: meshctl logs kubo"
    assert (raised["PRIORITY"], cleared["PRIORITY"]) == ("3", "6")
    catalogue = messages.catalogue(["service-down"])
    assert f"-- {raised['MESSAGE_ID']}\n" in catalogue
    assert f"-- {cleared['MESSAGE_ID']}\n" in catalogue
    assert raised["MESSAGE_ID"] != cleared["MESSAGE_ID"]
    wanted = {part for part in catalogue.split("@") if part.startswith("MESHD_")}
    assert wanted == {"MESHD_TITLE", "MESHD_CAUSE", "MESHD_HINT"}
    assert wanted <= raised.keys()


def test_a_mistake_is_logged_with_its_trace(entries: list[dict[str, str]]) -> None:
    try:
        raise ValueError("what is that")
    except ValueError:
        structlog.get_logger(part="turns").exception("an action failed", action="Start")
    (entry,) = entries
    assert entry["MESSAGE"].startswith("turns: an action failed (action=Start)\nTraceback")
    assert entry["PRIORITY"] == "3"


def test_the_journal_is_known_by_the_stream_that_systemd_names(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        named = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert journal.connected(named, stream.fileno())
        assert not journal.connected(named, 0), "a redirected daemon writes where it was told to"
        assert not journal.connected({}, stream.fileno())


def test_the_ids_stay_what_they_are() -> None:
    """Who filters by one must find it in the next version too."""
    assert messages.raised_id("service-down") == "f9151bee10e35a7394d3bb26837a3060"
    assert notify._watchdog({"WATCHDOG_USEC": "junk"}) == 0.0
