"""Every rule, looked at now."""

from __future__ import annotations

from tests.meshctl.conftest import Meshctl
from tests.meshctl.fake_meshd import Document, FakeMeshd


def finding(held: bool | None, rule: str, found: str = "", hint: str = "") -> Document:
    return {"area": "kubo", "rule": rule, "why": "it is private", "held": held, "found": found, "hint": hint}


HELD = finding(True, "Bootstrap is []")
BROKEN = finding(False, "Routing.Type is none", '"auto"', "sudo systemctl restart meshd")
UNSEEN = finding(None, "it listens on the overlay address", "it does not run")


async def test_all_is_well_in_one_line(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/doctor", {"findings": [HELD, HELD]})
    result = await meshctl("doctor")
    assert (result.code, result.out) == (0, "2 of 2 rules hold.\n")


async def test_what_does_not_hold_is_told_with_what_was_found_and_what_to_type(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    meshd.answers("GET", "/v1/doctor", {"findings": [HELD, BROKEN]})
    result = await meshctl("doctor")
    assert result.code == 1
    assert result.out == (
        "NOT HELD: kubo: Routing.Type is none\n"
        "  because it is private\n"
        '  found: "auto"\n'
        "  try: sudo systemctl restart meshd\n"
        "1 of 2 rules hold.\n"
    )


async def test_what_could_not_be_seen_is_not_called_held(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/doctor", {"findings": [UNSEEN]})
    result = await meshctl("doctor")
    assert result.code == 0
    assert "not seen: kubo: it listens on the overlay address" in result.out
    assert "found: it does not run" in result.out
    assert result.out.endswith("0 of 1 rule hold, 1 not seen.\n")


async def test_all_shows_why_each_rule_is_there(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/doctor", {"findings": [HELD]})
    result = await meshctl("doctor", "--all")
    assert result.out == "held: kubo: Bootstrap is []\n  because it is private\n1 of 1 rule hold.\n"


async def test_two_files_of_one_name_are_told_apart(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    rule = "only meshd may read swarm.key"
    files = [finding(True, rule, f"/srv/{folder}/swarm.key has mode 0600") for folder in ("secrets", "kubo")]
    meshd.answers("GET", "/v1/doctor", {"findings": [HELD, *files]})
    result = await meshctl("doctor", "--all")
    assert result.out == (
        "held: kubo: Bootstrap is []\n  because it is private\n"
        f"held: kubo: {rule}\n  because it is private\n  found: /srv/secrets/swarm.key has mode 0600\n"
        f"held: kubo: {rule}\n  because it is private\n  found: /srv/kubo/swarm.key has mode 0600\n"
        "3 of 3 rules hold.\n"
    )
