"""The page about ZeroTier works: typed in its order at three machines that share nothing but a network of a fake ZeroTier."""

from __future__ import annotations

import pwd
import re
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docs.console import Shell, commands
from tests.docs.following import Reader, toml
from tests.docs.pages import DOCS
from tests.mesh.nodes import BIN
from tests.mesh.pairing import until
from tests.zerotier.nodes import ZeroTierNode
from tests.zerotier.world import NEEDS_WORLD, World, make_world

__all__ = ["make_world"]
PAGE = DOCS / "how-to" / "use-zerotier.md"
NETWORK, OTHER = "8056c2e21c000001", "8056c2e21c000002"
_CODE = re.compile(r"\b\d{4} \d{4} \d{4}\b")
USER = "nobody"  # what the page calls meshd

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(180), *NEEDS_WORLD]


@pytest.fixture
def new_machine(home: Path, environment: dict[str, str]) -> Iterator[Shell]:
    """Where the other person sits."""
    (home / "there").mkdir()
    shell = Shell(home / "there", environment)
    yield shell
    shell.close()


def _start(world: World, network: str, other: str, token: Path) -> list[ZeroTierNode]:
    """attic has its token as the page says, desk its networks; cellar has what everybody has."""
    token_file = tomllib.loads(toml(PAGE, 0))["overlay"]["zerotier"]["token_file"]
    assert Path(token_file).name == token.name
    written = tomllib.loads(toml(PAGE, 2).replace(NETWORK, network).replace(OTHER, other))["overlay"]
    made = [
        ZeroTierNode(world.places[0], "attic", service={"token_file": str(token)}),
        ZeroTierNode(world.places[1], "cellar"),
        ZeroTierNode(world.places[2], "desk", networks=written["zerotier"]["networks"]),
    ]
    try:
        for node in made:
            node.begin()
        for node in made:
            until(node._answers, f"{node} answers on its socket", 60, every=0.05)
    except BaseException:
        for node in made:
            node.close()
        raise
    return made


def test_three_machines_meet_over_zerotier_and_part(
    make_world: Callable[..., World], shell: Shell, new_machine: Shell, home: Path
) -> None:
    world = make_world(3)
    network, other = world.make_network(name="family"), world.make_network(name="other")
    world.authorize(network, world.places[0])
    instead = {
        "sudo ": "",
        "-o meshd ": f"-o {USER} ",
        "/var/lib/zerotier-one": str(world.places[0].home),
        "/etc/meshd": str(home / "etc"),
        NETWORK: network,
        "a1b2c3d4e5": world.places[1].address,
        "c4d5e6f7a8": world.places[2].address,
    }
    joins = [line for line in commands(PAGE) if line.text.startswith("meshctl join")]
    here = [line for line in commands(PAGE) if line not in joins]
    page, there = Reader(PAGE, shell, instead, here), Reader(PAGE, new_machine, instead, joins)
    for one in (page, there):
        one.besides(f"export PATH={BIN}:$PATH")

    page.one("sudo install")
    token = home / "etc" / "zerotier.token"
    assert (token.stat().st_mode & 0o777, token.stat().st_uid) == (0o400, pwd.getpwnam(USER).pw_uid)
    attic, cellar, desk = nodes = _start(world, network, other, token)
    try:
        page.sit_down_at(attic)
        page.one("meshctl init")

        with ThreadPoolExecutor(1) as other_person:
            there.sit_down_at(cellar)
            joining = other_person.submit(there.one, "meshctl join", asked="[y/N] ", answer="y")
            attic.asked_by(cellar, stage="network")
            page.one("meshctl requests")
            approved = page.one("meshctl approve", asked="[y/N] ", answer="y")
            joined = joining.result(60)
        assert len(set(_CODE.findall(approved + joined))) == 1, "both show the same code"

        invited = page.one("meshctl invite --for")
        there.sit_down_at(desk)
        line = next(line for line in invited.splitlines() if line.startswith("meshd1."))
        there.one("meshctl join", asked="Invite: ", answer=line)
        there.rest()

        page.besides("echo a-token > token.txt")
        page.one("sudo install")
        page.one("rm token.txt")
        assert (home / "etc" / "central.token").stat().st_mode & 0o777 == 0o400

        attic.reaches("cellar", "desk")
        until(lambda: attic.peers()["desk"]["path"], "ZeroTier says how desk is reached", 20)
        page.instead["zt35oq7axv"] = attic.status()["overlay"]["interface"]
        page.one("meshctl status")
        page.one("meshctl peers")

        page.one("meshctl forget desk", asked="[y/N] ", answer="y")
        world.deauthorize(network, world.places[2])
        until(lambda: not desk.listens(), "nothing of desk listens", 30)
        page.sit_down_at(cellar)
        until(lambda: "desk" not in cellar.peers(), "cellar has heard of it", 30)
        cellar.reaches("attic")  # its cluster is started anew with the shorter roster
        page.one("meshctl leave --network", asked="[y/N] ", answer="y")
        page.rest()
        until(lambda: cellar.status()["mesh"] is None, "cellar is in no mesh", 20)
    finally:
        for node in nodes:
            node.close()
