"""A mesh on a ZeroTier network: beginning and joining by its id, and the ways between nodes."""

from __future__ import annotations

import asyncio
import fcntl
import re
import signal
import struct
import termios
from collections.abc import Iterator

import pytest
from aiohttp import web

from meshctl import step_stream
from tests.meshctl.asking import CODE, EVIL, NETWORK, NODE, harmless
from tests.meshctl.conftest import Meshctl, Terminal
from tests.meshctl.fake_meshd import Document, FakeMeshd, mesh, peer, send, stream


def joined(created: bool = True) -> Document:
    return {"event": "done", "mesh": mesh(members=2), "node": "barn", "created": created}


# -- init and join by the network's id -------------------------------------------------------------------------------------


async def test_init_takes_the_network_to_be_on(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.streams("POST", "/v1/mesh", joined())
    assert (await meshctl("init", "--network", NETWORK.upper())).code == 0
    assert meshd.last.json() == {"name": "mesh", "network": NETWORK}


@pytest.mark.parametrize(
    "text", ["", "8056c2e21c00000", "8056c2e21c0000011", "8056c2e21c00000g", "８056c2e21c000001", EVIL]
)
async def test_an_id_that_is_none_is_a_mistake(meshctl: Meshctl, meshd: FakeMeshd, text: str) -> None:
    result = await meshctl("init", f"--network={text}")
    assert result.code == 2
    assert "16 hex digits: 8056c2e21c000001" in result.err
    assert meshd.asked == []
    harmless(result)


@pytest.mark.parametrize(
    "typed", [[NETWORK], [NETWORK.upper()], [NETWORK[:8], NETWORK[8:]], [f" {NETWORK}\n"]]
)
async def test_sixteen_hex_digits_are_a_network_to_join(
    meshctl: Meshctl, meshd: FakeMeshd, typed: list[str]
) -> None:
    step_stream = [
        {"event": "step", "message": f"joining the ZeroTier network {NETWORK}"},
        {"event": "code", "address": "10.144.0.1:4010", "code": CODE},
    ]
    meshd.streams("POST", "/v1/mesh/join", *step_stream, joined())
    result = await meshctl("join", *typed, "--yes", "--name", "barn")
    assert result.code == 0
    assert meshd.last.json() == {"network": NETWORK, "confirm": False, "name": "barn"}
    assert result.err.splitlines() == [
        f"  joining the ZeroTier network {NETWORK}",
        "  the member at 10.144.0.1:4010 must show this code:",
        f"      {CODE}",
        "To see how it is: meshctl status",
    ]
    assert result.out == "This node, barn, joined the mesh archive, which has 2 members now.\n"


@pytest.mark.parametrize("typed", [NETWORK[:-1], f"{NETWORK}0", NETWORK[:-1] + "g"])
async def test_anything_else_is_taken_for_an_invite(meshctl: Meshctl, meshd: FakeMeshd, typed: str) -> None:
    meshd.streams("POST", "/v1/mesh/join", joined())
    await meshctl("join", typed)
    assert meshd.last.json() == {"invite": typed}


async def test_a_script_gets_each_step_and_the_code(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    code = {"event": "code", "address": "10.144.0.1:4010", "code": CODE}
    meshd.streams("POST", "/v1/mesh/join", code, joined())
    assert (await meshctl("join", NETWORK, "--yes", "--json")).documents == [code, joined()]


WAITING = {"event": "step", "message": "it is not there yet, for 21 s now", "key": "zerotier-waiting"}
LATER = WAITING | {"message": "it is not there yet, for 31 s now"}
TAKES_AWAY = r"\x1b\[1A\r\x1b\[J"


async def test_on_a_terminal_what_lasts_is_renewed_in_its_place(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    meshd.streams("POST", "/v1/mesh", WAITING, LATER, {"event": "step", "message": "on it"}, joined())
    running = await meshctl.start("init", "--network", NETWORK, stderr=terminal.device)
    assert (await running.result()).code == 0
    await terminal.shows("To admit the next node")
    shown = terminal.seen.replace("\r\n", "\n")
    assert (
        "  it is not there yet, for 21 s now\n\x1b[1A\r\x1b[J  it is not there yet, for 31 s now\n  on it\n"
        in shown
    )


async def test_a_line_of_several_rows_is_renewed_as_a_whole(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    fcntl.ioctl(terminal.device, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    long = WAITING | {"message": "x" * 78}  # two rows of 40 with the indent
    meshd.streams("POST", "/v1/mesh", long, long | {"message": "y" * 79}, LATER, joined())
    running = await meshctl.start("init", "--network", NETWORK, stderr=terminal.device)
    assert (await running.result()).code == 0
    await terminal.shows("To admit the next node")
    assert re.findall(r"\x1b\[(\d)A", terminal.seen) == ["2", "3"]


async def test_without_a_terminal_what_lasts_is_told_once_and_again_after_a_minute(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    meshd.streams("POST", "/v1/mesh", WAITING, LATER, *[LATER] * 5, joined())
    result = await meshctl("init", "--network", NETWORK)
    assert result.err.count("it is not there yet") == 1
    assert "\x1b" not in result.err


def test_after_a_minute_it_is_told_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("meshctl.step_stream.time.monotonic", lambda: now)

    def events() -> Iterator[Document]:
        nonlocal now
        for _ in range(13):
            yield WAITING
            now += 10.0

    step_stream.follow(events(), as_json=False)
    assert capsys.readouterr().err.count("it is not there yet") == 3


async def test_with_three_members_the_first_code_is_a_block_and_what_to_type_stays_below(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    """Each member shows a code of its own; who reads needs the one beside the address at which he types."""
    waiting = {
        "event": "step",
        "message": "waiting for one of them to type: meshctl approve barn",
        "key": "asking",
    }
    codes = [{"event": "code", "address": f"10.144.0.{n}:4010", "code": f"{n}{CODE[1:]}"} for n in (1, 2, 3)]
    events = [event for code in codes for event in (code, waiting)]
    meshd.streams("POST", "/v1/mesh/join", *events, codes[1], waiting, joined())
    running = await meshctl.start("join", NETWORK, "--yes", stderr=terminal.device)
    assert (await running.result()).code == 0
    await terminal.shows("To see how it is")
    kept: list[str] = []
    for line in terminal.seen.replace("\r\n", "\n").split("\n"):
        *gone, left = re.split(TAKES_AWAY, line)
        del kept[len(kept) - len(gone) :]
        kept.append(left)
    assert kept[:7] == [
        "  the member at 10.144.0.1:4010 must show this code:",
        f"      1{CODE[1:]}",
        f"  or, where it is the member at 10.144.0.2:4010: 2{CODE[1:]}",
        f"  or, where it is the member at 10.144.0.3:4010: 3{CODE[1:]}",
        f"  the member at 10.144.0.2:4010 must show another code now: 2{CODE[1:]}",
        "  waiting for one of them to type: meshctl approve barn",
        "To see how it is: meshctl status",
    ]


@pytest.mark.parametrize("typed", [["init", "--network", NETWORK], ["join", NETWORK, "--yes"]])
async def test_who_interrupts_it_is_told_how_to_get_off_the_network_again(
    meshctl: Meshctl, meshd: FakeMeshd, typed: list[str]
) -> None:
    """This machine stays on it: with a wrong id that is somebody else's network."""
    path = "/v1/mesh" if typed[0] == "init" else "/v1/mesh/join"
    begun, ended = asyncio.Event(), asyncio.Event()

    async def waits(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        await send(response, WAITING)
        begun.set()
        await ended.wait()
        return response

    meshd.does("POST", path, waits)
    running = await meshctl.start(*typed)
    await asyncio.wait_for(begun.wait(), 20)
    running.signal(signal.SIGINT)
    result = await running.result()
    ended.set()
    assert result.code == 130
    assert result.err.splitlines()[-2:] == [
        "  try: the same command again goes on; how it stands: meshctl status",
        f"       if it is not the network that you mean: sudo zerotier-cli leave {NETWORK}",
    ]


async def test_after_init_on_a_network_the_short_way_is_told(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.streams("POST", "/v1/mesh", joined() | {"mesh": mesh() | {"network": NETWORK}})
    result = await meshctl("init", "--network", NETWORK)
    assert result.err.splitlines() == [
        f"To admit the next node, type on it: meshctl join {NETWORK}   then here: meshctl requests",
        "Or make an invite for it: meshctl invite",
    ]
    meshd.streams("POST", "/v1/mesh", joined() | {"mesh": mesh() | {"network": ""}})
    assert (await meshctl("init")).err == "To admit the next node: meshctl invite\n"


CONFIRM = {"event": "confirm", "address": "10.144.0.1:4010", "code": CODE, "fingerprint": "ab" * 32}
ITS_CODE = (
    rf"The member at 10\.144\.0\.1:4010 lets this node into its mesh\.\s+Did somebody there .* is it {CODE}\?"
)


@pytest.mark.parametrize(("typed", "right"), [("y\n", True), ("n\n", False), ("\n", False), ("\x04", False)])
async def test_who_joins_says_which_member_was_the_right_one(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal, typed: str, right: bool
) -> None:
    meshd.streams("POST", "/v1/mesh/join", CONFIRM, joined())
    meshd.answers("POST", "/v1/mesh/join/confirm", {})
    running = await meshctl.start("join", NETWORK, stdin=terminal.device, stderr=terminal.device)
    await terminal.shows(ITS_CODE)
    assert [asked.path for asked in meshd.asked] == ["/v1/mesh/join"]
    assert meshd.last.json() == {"network": NETWORK, "confirm": True}
    terminal.type(typed)
    assert (await running.result()).code == 0
    assert meshd.last.json() == {"fingerprint": "ab" * 32, "right": right}


async def test_a_member_that_knows_this_node_already_is_told_by_its_fingerprint(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    meshd.streams("POST", "/v1/mesh/join", CONFIRM | {"code": ""}, joined())
    meshd.answers("POST", "/v1/mesh/join/confirm", {})
    running = await meshctl.start("join", NETWORK, stdin=terminal.device, stderr=terminal.device)
    await terminal.shows("this node is a member already. Its fingerprint: " + "ab" * 32)
    await terminal.shows(r"Is that the node you mean\?")
    terminal.type("y\n")
    assert (await running.result()).code == 0


async def test_without_a_terminal_joining_by_network_must_be_meant(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    result = await meshctl("join", NETWORK, stdin=b"y\n")
    assert result.code == 2
    assert "there is no terminal on which to ask whether the codes are the same" in result.err
    assert f"meshctl join {NETWORK} at a terminal" in result.err
    assert meshd.asked == []


async def test_what_a_stranger_says_while_one_joins_does_not_drive_the_terminal(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    step_stream = [{"event": "step", "message": EVIL}, {"event": "code", "address": EVIL, "code": EVIL}]
    meshd.streams("POST", "/v1/mesh/join", *step_stream, joined() | {"node": EVIL, "mesh": mesh(name=EVIL)})
    harmless(await meshctl("join", NETWORK, "--yes"))


# -- invites, leaving, the ways between nodes ----------------------------------------------------------------------------------


async def test_an_invite_can_name_the_machine_that_it_is_for(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    made = {"id": "i1", "created": 1.0, "expires": 1_700_000_000.0, "used_by": None, "invite": "meshd1.x"}
    meshd.answers("POST", "/v1/invites", made | {"note": f"{NODE} is authorized on the network {NETWORK}"})
    result = await meshctl("invite", "--for", NODE)
    assert (result.code, result.out) == (0, "meshd1.x\n")
    assert meshd.last.json() == {"expires_s": 86400.0, "node": NODE}
    assert f"{NODE} is authorized on the network {NETWORK}\n" in result.err
    meshd.answers("POST", "/v1/invites", made | {"note": EVIL})
    harmless(await meshctl("invite", "--for", NODE))


@pytest.mark.parametrize(("option", "network"), [([], "0"), (["--network"], "1")])
async def test_the_network_is_left_only_where_that_is_said(
    meshctl: Meshctl, meshd: FakeMeshd, option: list[str], network: str
) -> None:
    meshd.streams("DELETE", "/v1/mesh", {"event": "done"})
    assert (await meshctl("leave", "--yes", *option)).code == 0
    assert meshd.last.query == {"force": "0", "network": network}


@pytest.mark.parametrize(
    ("way", "seen"),
    [
        ({"path": "direct", "latency_ms": 4}, "reachable, direct, 4 ms"),
        ({"path": "relayed", "latency_ms": 180}, "reachable, relayed, 180 ms"),
        ({"path": "relayed", "latency_ms": None}, "reachable, relayed"),
        ({"path": "direct", "latency_ms": 0}, "reachable, direct, 0 ms"),
        ({"path": "", "latency_ms": None}, "reachable, 2 ms"),
        ({}, "reachable, 2 ms"),
        ({"path": EVIL, "latency_ms": 3}, ", 3 ms"),
    ],
)
async def test_peers_shows_how_zerotier_reaches_them(
    meshctl: Meshctl, meshd: FakeMeshd, way: Document, seen: str
) -> None:
    meshd.answers("GET", "/v1/peers", {"peers": [peer("barn", **way)]})
    result = await meshctl("peers")
    assert f"{seen}  " in result.out
    harmless(result)
