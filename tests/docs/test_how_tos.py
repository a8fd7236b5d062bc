"""The how-tos and the README work: each command of theirs, typed in its order on real nodes, prints what they show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.conftest import MakeArchive
from tests.docs.console import Shell
from tests.docs.following import Reader, indented, toml
from tests.docs.pages import DOCS, ROOT, TUTORIAL
from tests.mesh.nodes import BIN, ENGINES, METRICS_PORT, Mesh, Node, Subnet
from tests.mesh.pairing import until

README = ROOT / "README.md"
HOW_TO = DOCS / "how-to"
# Named in the text of a page, and typed here: the mesh stands already.
IN_PASSING = (
    "meshctl ls NAME",
    "meshctl doctor",
    "meshctl invite --expires 3d",
    "meshctl logs kubo",
    "meshctl logs cluster",
    "meshctl pin --replicas N",
    "meshctl version",
)
AT_A_TERMINAL = "meshctl leave"
UNTIL_INTERRUPTED = ("meshctl watch", "meshctl logs cluster -n 20 -f")

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]


@pytest.fixture
def folder(shell: Shell, home: Path) -> Path:
    """Where the reader sits down, with meshd and meshctl on PATH."""
    assert shell.type(f"export PATH={BIN}:$PATH; mkdir here && cd here", 10).code == 0
    return home / "here"


def _write(folder: Path, **sizes: int) -> None:
    """Files of so many bytes; `__` in a name is a slash, and `_` a dot."""
    for name, size in sizes.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((f"{name} " * (size // len(name) + 1)).encode()[:size])


def _machine(text: str, folder: Path, address: str, name: str = "") -> Path:
    """A configuration from a page, for one of several machines that are all this one."""
    socket = folder / "run"
    for there, here in (
        ('name = "attic"', f'name = "{name}"'),
        ('state = "/home/ana/mesh"', f'state = "{folder}/state"'),
        ('state = "/srv/meshd"', f'state = "{folder}/srv/meshd"'),
        ('run = "/run/user/1000/meshd"', f'run = "{socket}"'),
        ('engines = "/home/ana/meshd/.parts/bin"', f'engines = "{ENGINES}"'),
        ('interface = "wg0"', f'address = "{address}"'),
        ('reserve = "20GiB"', 'reserve = "1MiB"'),
    ):
        text = text.replace(there, here)
    assert "/home/ana" not in text
    assert 'wg0"' not in text
    folder.mkdir(parents=True, exist_ok=True)
    extra = "" if "[storage]" in text else '[storage]\nreserve = "1MiB"\n'
    (folder / "meshd.toml").write_text(f'{text}\n{extra}[metrics]\nlisten = "{address}:{METRICS_PORT}"\n')
    return socket / "meshd.sock"


def _invite(printed: str) -> str:
    return next(line for line in printed.splitlines() if line.startswith("meshd1."))


def _wait_for(reader: Reader, socket: Path) -> None:
    reader.besides(f"export MESHD_SOCKET={socket}")
    reader.besides("until meshctl status > status.txt 2>&1; do sleep 0.1; done")


def test_files_are_pinned_listed_got_removed_and_restored(shell: Shell, folder: Path, archive: Mesh) -> None:
    attic, _, desk = archive
    _write(folder, photos__1974__may_jpg=30_000, photos__june_jpg=30_000, letters__may_txt=50, iso__a_iso=100)
    _write(folder, will_pdf=10, deeds_pdf=3_000_000, minutes_txt=3, backup_tar=30)
    for year in (1974, 1975):
        (folder / f"minutes-{year}.pdf").write_bytes(b"m" * 1_200_000)
    page = Reader(HOW_TO / "pin-and-get.md", shell)
    page.sit_down_at(attic)
    page.until("meshctl pin deeds.pdf")
    page.one("meshctl pin deeds.pdf", code=6)
    page.besides("meshctl pin minutes.txt && echo 74 > minutes.txt && meshctl pin minutes.txt")
    page.until("meshctl rm minutes.txt@2")
    page.one("meshctl rm minutes.txt@2")
    page.besides("mkdir elsewhere && cp backup.tar elsewhere && cd elsewhere")
    page.sit_down_at(desk)
    page.rest()
    assert (folder / "elsewhere/photos/1974/may.jpg").read_bytes() == (
        folder / "photos/1974/may.jpg"
    ).read_bytes()
    assert (folder / "old.txt").stat().st_size == 3

    (folder / "elsewhere/minutes-1974.txt").write_bytes(b"m" * 37)
    page = Reader(HOW_TO / "remove-and-restore.md", shell)
    page.sit_down_at(attic)
    page.besides("cp ../deeds.pdf big-mistake.iso && meshctl pin minutes-1974.txt big-mistake.iso")
    page.sit_down_at(desk)
    page.until("meshctl rm --now")
    page.sit_down_at(attic)
    page.rest()


def test_the_state_is_looked_at(shell: Shell, folder: Path, archive: Mesh) -> None:
    (folder / "minutes-1974.txt").write_bytes(b"m" * 23_900)
    page = Reader(README, shell)
    page.sit_down_at(archive[0])
    page.rest()
    page = Reader(HOW_TO / "use-wireguard-or-tailscale.md", shell)
    page.one("meshctl status", unlike="overlay ")  # the overlay here is loopback
    page.rest()
    for text in IN_PASSING:
        text = text.replace("NAME", "minutes-1974.txt").replace(
            "--replicas N", "--replicas 2 minutes-1974.txt"
        )
        page.besides(text)
    for text in UNTIL_INTERRUPTED:
        code, printed = shell.type(f"timeout --signal=INT 2 {text}", 20)
        assert code == 124, f"{text}\n{printed}"  # it ran until it was told to stop


def test_a_dead_machine_is_replaced_and_a_lost_one_forgotten(
    shell: Shell, folder: Path, make_archive: MakeArchive, subnet: Subnet
) -> None:
    archive = make_archive(heal_after="20s")  # the page waits for ten minutes
    attic, _, desk = archive
    _write(folder, minutes_txt=3)
    (folder / "only-desk.txt").write_bytes(b"only\n")
    attic.pin(folder / "minutes.txt")
    desk.pin(folder / "only-desk.txt", "--replicas", "1")
    desk.kill9_all()
    until(lambda: "peer-away" in attic.conditions(), "attic sees that desk is away", 60)
    page = Reader(HOW_TO / "replace-a-dead-machine.md", shell)
    page.sit_down_at(attic)
    page.one("meshctl status")
    page.one("meshctl ls")
    until(lambda: "content-gone" in attic.conditions(), "attic sees what is lost", 60)
    page.until("meshctl forget desk")
    page.one("meshctl forget desk", asked="[y/N] ", answer="y")
    invite = _invite(page.one("meshctl invite"))
    new = Node("desk", subnet.address())
    archive.nodes.append(new)
    page.sit_down_at(new.start())
    page.one("meshctl join", asked="Invite: ", answer=invite)
    until(lambda: len(new.holders("minutes.txt")) == 3, "it has its copies again", 60)
    page.rest()

    page = Reader(HOW_TO / "forget-a-lost-machine.md", shell, {"laptop": "desk"})
    page.sit_down_at(attic)
    page.one("meshctl forget laptop", asked="[y/N] ", answer="y")
    page.one("meshctl peers")
    page.besides("meshctl invite")
    listed = page.one("meshctl invite --list")
    unused = next(line for line in listed.splitlines() if line.endswith(" -"))
    page.instead["e6054d1d"] = unused.split()[0]
    page.rest()
    page.sit_down_at(new)
    until(lambda: "forgotten" in new.conditions(), "the machine learns that it was forgotten", 60)
    code, printed = shell.type(AT_A_TERMINAL, 60, asked="[y/N] ", answer="y")  # it was found
    assert code == 0, printed


def test_a_machine_is_added_and_backed_up(
    shell: Shell, folder: Path, home: Path, sources: Path, subnet: Subnet
) -> None:
    attic = Node("attic", subnet.address())
    try:
        attic.start()
        page = Reader(HOW_TO / "add-a-machine.md", shell, {"ADDRESS": str(sources)})
        page.one("git clone")
        page.elsewhere(TUTORIAL, "make -C meshd setup")
        page.one("export PATH")
        page.besides(f"export PATH={BIN}:$PATH")
        socket = _machine(toml(page.page), folder, subnet.address())
        page.one("meshd check")
        page.one("meshd run", background=True)
        page.sit_down_at(attic)
        page.besides("meshctl init --name archive")
        invite = _invite(page.one("meshctl invite"))
        _wait_for(page, socket)
        page.one("meshctl join", asked="Invite: ", answer=invite)
        page.rest()

        (home / "usb").mkdir()
        page = Reader(
            HOW_TO / "back-up-a-node.md", shell, {"/srv": f"{folder}/srv", "/mnt/usb": f"{home}/usb"}
        )
        page.besides("kill %% && wait")
        page.until("meshd run")
        page.one("meshd run", background=True)
        _wait_for(page, socket)
        until(lambda: attic.peers()["cellar"]["reachable"], "it is who it was", 60)
        page.rest()
    finally:
        attic.close()


def test_nothing_needs_root(shell: Shell, folder: Path, home: Path, subnet: Subnet) -> None:
    page = Reader(HOW_TO / "run-without-root.md", shell)
    socket = _machine(toml(page.page), folder, subnet.address())
    page.instead = {"~/meshd.toml": f"{folder}/meshd.toml", "/home/ana/mesh-run/meshd.sock": str(socket)}
    page.one("meshd run", background=True)
    page.one("export MESHD_SOCKET")
    _wait_for(page, socket)
    page.rest()


def test_the_quick_start_works(shell: Shell, folder: Path, sources: Path, subnet: Subnet) -> None:
    times = {"meshd check": 3, "meshd run": 3, "meshctl invite": 2, "meshctl join": 2}
    lines = [
        line
        for line in indented(README)
        if not line.text.startswith(("make demo", "make test"))  # test_demo.py
        for _ in range(times.get(" ".join(line.text.split()[:2]), 1))
    ]
    page = Reader(README, shell, {"ADDRESS": str(sources)}, lines)
    page.one("git clone")
    page.elsewhere(TUTORIAL, "make -C meshd setup")
    page.one("export PATH")
    page.besides(f"export PATH={BIN}:$PATH")
    names = ("attic", "cellar", "desk")
    sockets = {name: _machine(toml(README), folder / name, subnet.address(), name) for name in names}
    for name in names:
        page.besides(f"cd {folder}/{name}")
        page.one("meshd check")
    for name in names:
        page.besides(f"cd {folder}/{name}")
        page.one("meshd run", background=True)
    _wait_for(page, sockets["attic"])
    page.one("meshctl init")
    invites = [_invite(page.one("meshctl invite")) for _ in names[1:]]
    for name, invite in zip(names[1:], invites, strict=True):
        _wait_for(page, sockets[name])
        page.one("meshctl join", asked="Invite: ", answer=invite)
    _write(folder, desk__photos__may_jpg=30_000)
    page.until("meshctl get")
    _wait_for(page, sockets["cellar"])
    page.besides(f"cd {folder}/cellar")
    page.rest()
    assert (folder / "cellar/photos/may.jpg").stat().st_size == 30_000
