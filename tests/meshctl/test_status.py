"""The overview, what happens, and what the services logged."""

from __future__ import annotations

import asyncio
import fcntl
import re
import signal
import struct
import termios
import time

import pytest
from aiohttp import web

from tests.meshctl.conftest import Meshctl, Terminal
from tests.meshctl.fake_meshd import Document, FakeMeshd, peer, send, status, stream

THREE_MINUTES = re.compile(r", since (\d{4}-\d\d-\d\d )?\d\d:\d\d \(3 min\)\n")


def whatever_the_time(out: str) -> str:
    """The same without the clock, which shows the date too just after midnight."""
    return THREE_MINUTES.sub(", since 14:02 (3 min)\n", out)


def condition(severity: str, title: str, cause: str = "", hint: str = "") -> Document:
    return {
        "code": "x",
        "severity": severity,
        "subject": "",
        "title": title,
        "cause": cause,
        "hint": hint,
        "since": time.time() - 180,
    }


@pytest.mark.parametrize(
    ("kept", "key", "encrypted", "by", "text"),
    [
        ("files", "", False, "", "in plain files that only meshd may read"),
        ("credentials", "", False, "systemd", "handed over by systemd; in no file of meshd's"),
        (
            *("credentials", "", False, "environment"),
            "handed over in CREDENTIALS_DIRECTORY; in no file of meshd's",
        ),
        ("encrypted", "host", False, "", "not encrypted: the key to them lies on a disk of this machine"),
        ("encrypted", "host+tpm2", True, "", "encrypted, by a key in this machine's TPM (host+tpm2)"),
        ("encrypted", "", False, "", "encrypted by a key that is not known, which does not count"),
    ],
)
async def test_how_the_secrets_lie_on_the_disk(
    meshctl: Meshctl, meshd: FakeMeshd, kept: str, key: str, encrypted: bool, by: str, text: str
) -> None:
    secrets = {"kept": kept, "key": key, "encrypted": encrypted, "by": by}
    meshd.answers("GET", "/v1/status", status(secrets=secrets))
    assert f"\nsecrets  {text}\n" in (await meshctl("status")).out


async def test_a_daemon_of_0_1_0_does_not_say_who_hands_the_secrets_over(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    secrets = {"kept": "credentials", "key": "", "encrypted": False}
    meshd.answers("GET", "/v1/status", status(secrets=secrets))
    assert "\nsecrets  handed over by systemd; in no file of meshd's\n" in (await meshctl("status")).out


async def test_the_overview_fits_on_a_screen_and_says_that_all_is_well(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    meshd.answers("GET", "/v1/status", status())
    result = await meshctl("status")
    assert result.code == 0
    assert result.err == ""
    assert result.out.startswith(
        "node     attic, site home: ready; up 2 h, version 0.1.0\n"
        "mesh     archive: 2 nodes, 3 copies by default\n"
        "overlay  10.0.0.1 on wg0 (static: it is configured)\n"
        "storage  412.0 GB free of 1.0 TB, 33.0 GB of content, 5.4 GB kept free, in /var/lib/meshd\n"
        "secrets  in plain files that only meshd may read\n"
        "kept     120 entries, 33.0 GB; trash: 2, 1.0 kB\n"
        "\n"
        "SERVICE  STATE  FOR  RESTARTS  VERSION  LAST EXIT\n"
        "kubo     ready  2 h         0  0.39.0   -\n"
        "\n"
        "NODE "
    )
    assert result.out.endswith("\nNothing is wrong.\n")


async def test_a_disk_that_cannot_be_seen_is_said(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/status", status(storage=None))
    result = await meshctl("status")
    assert result.code == 0
    assert "\nstorage  its disk cannot be seen; takes nothing new\n" in result.out


async def test_one_entry_is_called_one(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    pins = {"entries": 1, "size": 6000, "trash": 0, "trash_size": 0}
    meshd.answers("GET", "/v1/status", status(pins=pins))
    assert "\nkept     1 entry, 6.0 kB; trash: 0, 0 B\n" in (await meshctl("status")).out


async def test_what_is_wrong_is_told_worst_first_with_what_to_type(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    conditions = [
        condition("info", "desk joined"),
        condition("warning", "3 files have fewer copies", "desk is away", "meshctl peers"),
        condition("error", "kubo does not start", "the disk is full", "df -h"),
    ]
    meshd.answers("GET", "/v1/status", status(conditions=conditions, ready=False))
    result = await meshctl("status")
    assert result.code == 0
    assert result.out.startswith("node     attic, site home: not ready; up 2 h, version 0.1.0\n")
    assert whatever_the_time(result.out).endswith(
        "\nerror: kubo does not start, since 14:02 (3 min)\n"
        "  the disk is full\n"
        "  try: df -h\n"
        "\nwarning: 3 files have fewer copies, since 14:02 (3 min)\n"
        "  desk is away\n"
        "  try: meshctl peers\n"
        "\ninfo: desk joined, since 14:02 (3 min)\n"
    )


async def test_since_when_is_a_clock_today_and_a_date_before(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    before, now = time.time(), condition("error", "kubo does not start")
    old = condition("error", "the disk is old") | {"since": 1_700_000_000.0}
    unknown = condition("info", "a newer daemon says less") | {"since": 0}
    meshd.answers("GET", "/v1/status", status(conditions=[now | {"since": before}, old, unknown]))
    out = (await meshctl("status")).out
    clocks = {time.strftime("%H:%M", time.gmtime(t)) for t in (before, time.time())}
    assert any(f"kubo does not start, since {clock} (" in out for clock in clocks) or "00:00" in clocks
    assert re.search(r"\nerror: the disk is old, since 2023-11-14 22:13 \(\d+ days\)\n", out)
    assert out.endswith("\ninfo: a newer daemon says less\n")


async def test_what_is_wrong_fits_a_screen_and_is_whole_in_a_pipe(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    cause = "kubo ended by itself: exit 1; its last lines: " + "no space left on device | " * 8
    path = "/srv/" + "long/" * 30
    told = condition("error", "kubo does not run", cause.rstrip(" |"), f"chmod 600 {path}")
    meshd.answers("GET", "/v1/status", status(conditions=[told]))
    piped = (await meshctl("status")).out
    assert f"\n  {cause.rstrip(' |')}\n" in piped, "for grep and for a mail"
    fcntl.ioctl(terminal.device, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 72, 0, 0))
    running = await meshctl.start("status", stdout=terminal.device)
    await terminal.shows("chmod 600")
    await running.result()
    shown = terminal.seen.replace("\r\n", "\n").partition("error: ")[2].splitlines()
    assert path in [line.strip() for line in shown], "a path stays whole"
    assert all(len(line) <= 72 for line in shown if path not in line)
    assert [line for line in shown if line.startswith("  try: ")] == ["  try: chmod 600"]
    assert all(line.startswith("  ") for line in shown[1:])
    told_again = " ".join(line.strip() for line in shown[1:])
    assert cause.rstrip(" |") in told_again, "no word is lost"


async def test_a_new_node_is_told_how_to_get_into_a_mesh(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    overlay = {"kind": "zerotier", "address": None, "interface": "", "why": "not authorized yet"}
    document = status(mesh=None, peers=[], services=[], pins=None, overlay=overlay)
    meshd.answers("GET", "/v1/status", document)
    result = await meshctl("status")
    assert result.out.startswith(
        "node     attic, site home: up 2 h, version 0.1.0\n"
        "mesh     none yet   (meshctl join ID, or meshctl init --network ID)\n"
    )
    assert "overlay  no address (zerotier: not authorized yet)\n" in result.out
    assert (await meshctl("status", "--json")).documents == [document]


@pytest.mark.parametrize(
    ("overlay", "trouble", "said"),
    [
        (
            {"kind": "auto", "zerotier": "a1b2c3d4e5"},
            "zerotier-none",
            "meshctl join ID, or meshctl init --network ID",
        ),
        ({"kind": "auto"}, "zerotier-token", "meshctl join ID, or meshctl init --network ID"),
        ({"kind": "auto", "interface": "zt5u4yabcd"}, "", "meshctl join ID, or meshctl init --network ID"),
        (
            {"kind": "auto", "zerotier": "a1b2c3d4e5", "network": "8056c2e21c000001"},
            "zerotier-denied",
            "meshctl join 8056c2e21c000001, or meshctl init --network 8056c2e21c000001",
        ),
        ({"kind": "auto"}, "overlay-unknown", "meshctl init, or meshctl join"),
        ({"kind": "static", "interface": "wg0"}, "", "meshctl init, or meshctl join"),
    ],
)
async def test_a_machine_with_zerotier_and_no_mesh_is_told_the_two_commands(
    meshctl: Meshctl, meshd: FakeMeshd, overlay: Document, trouble: str, said: str
) -> None:
    conditions = [condition("error", "t", "c", "h") | {"code": trouble}] if trouble else []
    shown = status(mesh=None, peers=[], services=[], pins=None, overlay=overlay, conditions=conditions)
    meshd.answers("GET", "/v1/status", shown)
    assert f"mesh     none yet   ({said})\n" in (await meshctl("status")).out


async def test_a_node_without_an_address_does_not_show_itself_as_starting_at_one(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    meshd.answers("GET", "/v1/peers", {"peers": [peer("attic", this_node=True, ready=False, address="")]})
    _, row = (await meshctl("peers")).out.splitlines()
    assert [cell.strip() for cell in row.split("  ") if cell][:3] == ["attic", "-", "this node, no address"]


async def test_members_that_are_not_known_yet_do_not_disturb(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/status", {"future": True})
    assert (await meshctl("status")).code == 0


async def test_what_happens_is_printed_as_it_happens(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    over = asyncio.Event()
    events = [
        {"event": "condition", "time": 1_700_000_000.0, "severity": "warning"}
        | {"title": "desk is away", "cause": "no answer", "hint": "meshctl peers"},
        {"event": "brand-new", "time": 1_700_000_001.0, "what": "\x1b[31m", "number": 7},
        {"event": "step", "time": 1_700_000_002.0, "message": "waiting"},
    ]

    async def endless(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        for event in events:
            await send(response, event)
        await over.wait()
        return response

    meshd.does("GET", "/v1/events", endless)
    running = await meshctl.start("watch")
    assert running.process.stdout is not None
    lines = [(await running.process.stdout.readline()).decode() for _ in range(5)]
    assert lines == [
        "2023-11-14 22:13:20  condition  warning: desk is away\n",
        "    no answer\n",
        "    try: meshctl peers\n",
        "2023-11-14 22:13:21  brand-new  what=\\x1b[31m  number=7\n",
        "2023-11-14 22:13:22  step  waiting\n",
    ]
    running.signal(signal.SIGINT)
    result = await running.result()
    over.set()
    assert (result.code, result.err) == (130, "")
    as_json = await meshctl.start("watch", "--json")
    assert as_json.process.stdout is not None
    assert b"brand-new" in await as_json.process.stdout.readline() + await as_json.process.stdout.readline()


async def test_a_watch_that_loses_its_daemon_says_so(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.streams("GET", "/v1/events", {"event": "x", "time": 1.0}, ends=False)
    result = await meshctl("watch")
    assert result.code == 1
    assert "the daemon went away" in result.err


def line(text: str) -> Document:
    return {"event": "line", "time": 1_700_000_000.0, "service": "kubo", "text": text}


async def test_logs_are_lines_with_their_time(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.streams("GET", "/v1/logs/kubo", line("Daemon is ready"), line("a\tb\x1b[2J"), {"event": "done"})
    result = await meshctl("logs", "kubo", "-n", "20", "-f")
    assert result.code == 0
    assert result.out == "2023-11-14 22:13:20  Daemon is ready\n2023-11-14 22:13:20  a   b\\x1b[2J\n"
    assert meshd.last.query == {"lines": "20", "follow": "1"}
    assert (await meshctl("logs", "kubo")).code == 0
    assert meshd.last.query == {"lines": "100", "follow": "0"}


async def test_logs_of_what_is_none_of_the_services(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    own = await meshctl("logs", "meshd")
    assert own.code == 2
    assert own.err == (
        "meshctl: cannot show meshd's own log: it is where meshd was started: its standard error\n"
        "  try: journalctl -u meshd   (under systemd)\n"
    )
    for args in (("logs",), ("logs", "nginx"), ("logs", "kubo", "-n", "x")):
        assert (await meshctl(*args)).code == 2
    assert meshd.asked == []


async def test_news_have_no_hint_that_only_looks(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    conditions = [
        condition("info", "desk joined, invited by attic", "", "meshctl peers"),
        condition("info", "the mesh has a new key", "", "meshctl invite --list"),
        condition("warning", "desk has a problem", "", "meshctl peers"),
    ]
    meshd.answers("GET", "/v1/status", status(conditions=conditions))
    result = await meshctl("status")
    assert whatever_the_time(result.out).endswith(
        "\nwarning: desk has a problem, since 14:02 (3 min)\n  try: meshctl peers\n"
        "\ninfo: desk joined, invited by attic, since 14:02 (3 min)\n"
        "\ninfo: the mesh has a new key, since 14:02 (3 min)\n  try: meshctl invite --list\n"
    )


async def test_a_condition_is_watched_as_it_comes_and_goes(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    away = {"time": 1_700_000_000.0, "code": "peer-away", "subject": "desk", "severity": "warning"}
    away |= {"title": "desk is away", "cause": "no answer", "hint": "meshctl forget desk"}
    raised, cleared = {"event": "condition-raised"} | away, {"event": "condition-cleared"} | away
    meshd.streams("GET", "/v1/events", raised, cleared, {"event": "done"})
    result = await meshctl("watch")
    assert result.out.splitlines()[:4] == [
        "2023-11-14 22:13:20  warning: desk is away",
        "    no answer",
        "    try: meshctl forget desk",
        "2023-11-14 22:13:20  over: desk is away",
    ]


# -- for a monitoring system ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "code", "line"),
    [
        ({}, 0, "MESHD OK - ready | "),
        ({"conditions": [condition("info", "desk joined")]}, 0, "MESHD OK - ready | "),
        ({"conditions": [condition("warning", "desk | away")]}, 1, "MESHD WARNING - desk / away | "),
        (
            {"conditions": [condition("error", "kubo is down"), condition("warning", "desk is away")]},
            2,
            "MESHD CRITICAL - kubo is down; desk is away | ",
        ),
        ({"ready": False}, 2, "MESHD CRITICAL - not ready | "),
        ({"ready": False, "mesh": None}, 1, "MESHD WARNING - this node is in no mesh | "),
    ],
)
async def test_a_monitoring_system_gets_one_line_and_an_exit_code(
    meshctl: Meshctl, meshd: FakeMeshd, found: Document, code: int, line: str
) -> None:
    meshd.answers("GET", "/v1/status", status(**found))
    result = await meshctl("status", "--check")
    assert (result.code, result.err) == (code, "")
    assert result.out.startswith(line)
    assert result.out.count("\n") == 1
    assert re.search(r" \| free=\d+B content=\d+B entries=120 short=\d+ peers=1 peers_away=1\n$", result.out)
    assert meshd.last.query == {"glance": "1"}, "what a program looked at no person has read"


async def test_a_daemon_that_does_not_run_is_critical(meshctl: Meshctl) -> None:
    result = await meshctl("--socket", "/tmp/there/is/none", "status", "--check")
    assert (result.code, result.err) == (2, "")
    assert result.out.startswith(
        "MESHD CRITICAL - cannot reach meshd: there is no socket /tmp/there/is/none; try: "
    )
    assert result.out.count("\n") == 1


async def test_who_may_not_ask_knows_nothing(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    why = "user id 12 | is not in its group"
    meshd.refuses("GET", "/v1/status", 403, code="denied", title="cannot talk to meshd", detail=why)
    result = await meshctl("status", "--check")
    assert (result.code, result.err) == (3, "")
    assert result.out == "MESHD UNKNOWN - cannot talk to meshd: user id 12 / is not in its group\n"
