"""Who may do what on the control socket: every route, every kind of caller, by group, and as meshctl tells it."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import grp
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from meshd import config, files
from meshd.config import Control
from meshd.control.access import Caller, Gatekeeper, caller_of
from meshd.control.server import ControlServer
from meshd.errors import Code, MeshError
from meshd.http.request import Request
from meshd.http.route import Route, Text
from meshd.mesh.secrets import Secrets
from meshd.node import Node
from meshd.principal import Access, Principal, check
from scripts import reference
from tests.engines.machine import short_folder
from tests.unit.built import close
from tests.unit.members import joiner

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = 65534

# The whole API, written out a second time: whoever changes who may call what has to say so here as well.
WHO_MAY: dict[tuple[str, str], Access] = {
    ("GET", "/v1/status"): "read",
    ("GET", "/v1/doctor"): "read",
    ("GET", "/v1/events"): "read",
    ("GET", "/v1/logs/{service}"): "read",
    ("POST", "/v1/mesh"): "admin",
    ("DELETE", "/v1/mesh"): "admin",
    ("POST", "/v1/mesh/join"): "admin",
    ("POST", "/v1/mesh/join/confirm"): "admin",
    ("GET", "/v1/invites"): "admin",
    ("POST", "/v1/invites"): "admin",
    ("DELETE", "/v1/invites/{id}"): "admin",
    ("GET", "/v1/requests"): "admin",
    ("POST", "/v1/requests/{ref}/authorize"): "admin",
    ("POST", "/v1/requests/{ref}/approve"): "admin",
    ("DELETE", "/v1/requests/{ref}"): "admin",
    ("GET", "/v1/peers"): "read",
    ("DELETE", "/v1/peers/{name}"): "admin",
    ("GET", "/v1/pins"): "read",
    ("POST", "/v1/pins"): "admin",
    ("PUT", "/v1/pins/{cid}"): "admin",
    ("GET", "/v1/pins/{ref}"): "read",
    ("GET", "/v1/pins/{ref}/files"): "read",
    ("GET", "/v1/pins/{ref}/content"): "read",
    ("POST", "/v1/pins/{ref}/recover"): "admin",
    ("DELETE", "/v1/pins/{ref}"): "admin",
    ("PUT", "/v1/peers/{name}/address"): "admin",
    ("GET", "/v1/trash"): "read",
    ("POST", "/v1/trash/{ref}/restore"): "admin",
    ("GET", "/v1/operations"): "read",
    ("GET", "/v1/operations/{id}"): "read",
    ("GET", "/v1/operations/{id}/events"): "read",
    ("GET", "/healthz"): "read",
    ("GET", "/readyz"): "read",
    ("GET", "/metrics"): "read",
    ("GET", "/v1/openapi.json"): "read",
}


class Room:
    """A part of the daemon that answers whatever it is asked, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    async def answer(self, _: Request) -> Text:
        self.asked += 1
        return Text("done")


def routes(room: Room) -> list[Route]:
    """Those of a whole node, each answered by the room."""
    return [dataclasses.replace(route, handler=room.answer, takes=None) for route in reference.routes()]


def asked_for(path: str) -> str:
    """A path that leads to this route."""
    return "/".join("x" if part.startswith("{") else part for part in path.split("/"))


# -- the table -----------------------------------------------------------------------------------------------------


def test_who_may_call_each_route_is_as_it_is_written_here() -> None:
    assert {(r.method, r.path): r.access for r in routes(Room())} == WHO_MAY


def test_who_may_only_look_gets_no_route_that_changes_something() -> None:
    assert {r.method for r in routes(Room()) if r.access == "read"} == {"GET"}


# -- the gatekeeper ------------------------------------------------------------------------------------------------


def _groups() -> tuple[grp.struct_group, grp.struct_group, grp.struct_group]:
    """Three groups of this machine that neither root nor nobody is in by itself."""
    mine = {0, os.getegid(), NOBODY, *os.getgroups()}
    one, two, three, *_ = [g for g in grp.getgrall() if g.gr_gid not in mine]
    return one, two, three


ADMINS, READERS, OTHERS = _groups()
BY_GROUP = Control(admin_group=ADMINS.gr_name, read_group=READERS.gr_name)
STRANGER = NOBODY if os.geteuid() != NOBODY else NOBODY - 1
LOOKS_ONLY = "your group may only look"
NOT_IN_IT = f"user id {STRANGER} is not in its group"


def says(control: Control, uid: int, groups: Iterable[int], wanted: Access) -> str:
    """Why such a caller is refused; "" where it is let in."""
    keeper = Gatekeeper(control, lambda: ())
    try:
        check(keeper.identify(Caller(0, uid, frozenset(groups))), wanted)
    except MeshError as exc:
        return exc.detail if exc.code is Code.DENIED and exc.hint else f"{exc.code}, and nothing to type"
    return ""


@pytest.mark.parametrize(
    ("groups", "look", "change"),
    [
        ({ADMINS.gr_gid}, "", ""),
        ({READERS.gr_gid}, "", LOOKS_ONLY),
        ({ADMINS.gr_gid, READERS.gr_gid}, "", ""),
        ({OTHERS.gr_gid, READERS.gr_gid}, "", LOOKS_ONLY),
        ({OTHERS.gr_gid}, NOT_IN_IT, NOT_IN_IT),
        (set(), NOT_IN_IT, NOT_IN_IT),
        ({0}, NOT_IN_IT, NOT_IN_IT),
    ],
    ids=["admins", "readers", "both", "readers and others", "others", "none", "root's group"],
)
def test_the_group_decides_who_looks_and_who_changes(groups: set[int], look: str, change: str) -> None:
    assert says(BY_GROUP, STRANGER, groups, "read") == look
    assert says(BY_GROUP, STRANGER, groups, "admin") == change


@pytest.mark.parametrize("uid", [0, os.geteuid()], ids=["root", "the daemon's user"])
def test_root_and_the_daemons_own_user_need_no_group(uid: int) -> None:
    assert says(BY_GROUP, uid, (), "admin") == says(BY_GROUP, uid, {READERS.gr_gid}, "admin") == ""


@pytest.mark.parametrize("name", ["", "no-such-group-here"], ids=["none is named", "it does not exist"])
def test_a_group_that_is_not_there_lets_nobody_in(name: str) -> None:
    every = {g.gr_gid for g in grp.getgrall()} | {0, NOBODY}
    control = Control(admin_group=name, read_group=name)
    assert says(control, STRANGER, every, "read") == says(control, STRANGER, every, "admin") == NOT_IN_IT


def test_by_itself_no_group_may_only_look() -> None:
    assert (Control().admin_group, Control().read_group) == ("meshd", "")


# -- the socket ----------------------------------------------------------------------------------------------------


class Refuses(Gatekeeper):
    """Gives nobody a role, and remembers who asked."""

    def __init__(self) -> None:
        super().__init__(Control(), lambda: ())
        self.asked = 0

    def identify(self, caller: Caller) -> Principal:
        assert (caller.pid, caller.uid) == (os.getpid(), os.geteuid()), "it is the kernel's word"
        self.asked += 1
        return Principal(label="nobody", how="local", uid=NOBODY)


class Unix(http.client.HTTPConnection):
    """One connection to a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30.0)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def status_of(path: Path, method: str, target: str) -> int:
    connection = Unix(path)
    try:
        connection.request(method, target)
        return connection.getresponse().status
    finally:
        connection.close()


async def test_no_route_does_anything_before_the_gatekeeper_has_agreed() -> None:
    room, keeper = Room(), Refuses()
    with short_folder() as folder:
        server = ControlServer(folder / "s", keeper, routes=routes(room))
        await server.start()
        try:
            for number, (method, path) in enumerate(WHO_MAY, start=1):
                assert await asyncio.to_thread(status_of, folder / "s", method, asked_for(path)) == 403
                assert keeper.asked == number
        finally:
            await server.stop()
    assert room.asked == 0


# -- real processes in real groups ---------------------------------------------------------------------------------


@functools.cache
def _why_not_in_a_group() -> str:
    if os.geteuid() != 0:
        return "only root may start a process in other groups"
    if shutil.which("setpriv") is None:
        return "setpriv (util-linux) is not installed"
    try:
        subprocess.run(in_groups([OTHERS.gr_gid], sys.executable, "-c", ""), check=True, timeout=60)
    except subprocess.CalledProcessError:
        return "another user cannot run this Python here"
    return ""


def in_groups(gids: Iterable[int], *command: str, primary: int = STRANGER) -> list[str]:
    """The command as somebody who is in these groups beside its own. It may read all files, as Python may be in a folder
    of root's: of that the gatekeeper knows nothing."""
    groups = ",".join(str(gid) for gid in gids)
    who = [f"--reuid={STRANGER}", f"--regid={primary}", f"--groups={groups}" if groups else "--clear-groups"]
    read_all = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", *who, *read_all, "--", *command]


@pytest.fixture
def groups_can_be_set() -> None:
    if why := _why_not_in_a_group():
        pytest.skip(why)


ASKS = """
import json, sys
from tests.unit.test_authorization import Path, status_of
asked = json.load(sys.stdin)
json.dump([status_of(Path(sys.argv[1]), method, target) for method, target in asked], sys.stdout)
"""


async def answers(path: Path, gids: Iterable[int], asked: list[tuple[str, str]]) -> list[int]:
    """What a process in these groups is answered: HTTP status codes."""
    process = await asyncio.create_subprocess_exec(
        *in_groups(gids, sys.executable, "-c", ASKS, str(path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate(json.dumps(asked).encode())
    codes: list[int] = json.loads(out)
    return codes


@pytest.mark.root
@pytest.mark.usefixtures("groups_can_be_set")
@pytest.mark.parametrize(
    ("gids", "may"),
    [
        ([ADMINS.gr_gid], {"read", "admin"}),
        ([OTHERS.gr_gid, ADMINS.gr_gid], {"read", "admin"}),
        ([READERS.gr_gid], {"read"}),
        ([OTHERS.gr_gid], set()),
        ([], set()),
    ],
    ids=["admins", "among others admins", "readers", "others", "none"],
)
async def test_on_every_route_a_process_is_answered_by_its_groups(gids: list[int], may: set[Access]) -> None:
    room = Room()
    with short_folder() as folder:
        folder.chmod(0o755)  # a test's folder is private; the daemon's own is not
        server = ControlServer(folder / "s", Gatekeeper(BY_GROUP, lambda: ()), routes=routes(room))
        await server.start()
        try:
            asked = [(method, asked_for(path)) for method, path in WHO_MAY]
            codes = await answers(folder / "s", gids, asked)
        finally:
            await server.stop()
    expected = {route: 200 if access in may else 403 for route, access in WHO_MAY.items()}
    assert dict(zip(WHO_MAY, codes, strict=True)) == expected
    assert room.asked == sum(access in may for access in WHO_MAY.values())


@pytest.mark.root
@pytest.mark.usefixtures("groups_can_be_set")
async def test_the_group_that_a_process_has_as_its_first_counts_too() -> None:
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        folder.chmod(0o755)
        listener.bind(str(folder / "s"))
        (folder / "s").chmod(0o666)
        listener.listen()
        connects = "import socket, sys; made = socket.socket(socket.AF_UNIX); made.connect(sys.argv[1]); made.recv(1)"
        command = in_groups([], sys.executable, "-c", connects, str(folder / "s"), primary=READERS.gr_gid)
        process = await asyncio.create_subprocess_exec(*command)
        connection, _ = await asyncio.to_thread(listener.accept)
        with connection:
            assert READERS.gr_gid in caller_of(connection).groups
        await process.wait()


# -- as a person sees it -------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    code: int
    out: str
    err: str


class Person:
    """Types meshctl on the machine of a node, in the groups that the test says."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def types(self, group: grp.struct_group, *words: str) -> Answer:
        path = self.node.config.control_socket
        process = await asyncio.create_subprocess_exec(
            *in_groups([group.gr_gid], sys.executable, "-m", "meshctl", *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"], "MESHD_SOCKET": str(path)},
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Answer(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def person(groups_can_be_set: None) -> AsyncIterator[Person]:
    """Beside a node that is alone in its mesh and whose control socket is served; nothing else of it was started."""
    with short_folder() as folder:
        folder.chmod(0o755)
        text = (
            f'[node]\nname = "attic"\n[paths]\nstate = "{folder}/s"\nrun = "{folder}/r"\n'
            f'[control]\nadmin_group = "{ADMINS.gr_name}"\nread_group = "{READERS.gr_name}"\n'
        )
        settings = config.parse(text, "the test")
        files.prepare_folders(settings.state, settings.paths.run, settings.private_sockets)
        node = Node(settings)
        Secrets.generate().save(settings.state)
        await node.mesh.store.create("archive", joiner(node.mesh.identity, "attic", "10.7.0.1"))
        await node.control.server.start()
        yield Person(node)
        await node.control.server.stop()
        await close(node)


CHANGES = [
    ("init", "--name", "other"),
    ("invite",),
    ("invite", "--list"),
    ("invite", "--revoke", "x"),
    ("leave", "--yes", "--force"),
    ("forget", "attic", "--yes", "--force"),
    ("pin", __file__),
    ("rm", "x"),
    ("rm", "--now", "x"),
    ("restore", "x"),
    ("requests",),
    ("approve", "x"),
]


@pytest.mark.root
async def test_a_reader_looks_and_is_told_that_it_may_not_do_more(person: Person) -> None:
    looked = await person.types(READERS, "peers")
    assert (looked.code, looked.err) == (0, "")
    assert "attic" in looked.out
    before = person.node.mesh.store.roster()
    for words in CHANGES:
        answer = await person.types(READERS, *words)
        assert (answer.code, answer.out) == (5, ""), (words, answer)
        assert answer.err.startswith("meshctl: cannot "), answer
        assert LOOKS_ONLY in answer.err
        assert "try: sudo meshctl" in answer.err
    assert person.node.mesh.store.roster() == before
    assert not person.node.mesh.store.invites()


@pytest.mark.root
async def test_a_member_of_the_admin_group_may_do_what_root_may(person: Person) -> None:
    answer = await person.types(ADMINS, "invite")
    assert (answer.code, len(person.node.mesh.store.invites())) == (0, 1), answer


@pytest.mark.root
async def test_who_is_in_neither_group_may_not_even_look(person: Person) -> None:
    for words in (("status",), ("peers",), *CHANGES[:2]):
        answer = await person.types(OTHERS, *words)
        assert (answer.code, answer.out) == (5, ""), (words, answer)
        assert NOT_IN_IT in answer.err
