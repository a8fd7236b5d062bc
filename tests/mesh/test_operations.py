"""What takes long outlives who began it: another client follows it, and after a restart it says what became of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import Mesh, Node
from tests.mesh.pairing import random_file, until

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(240)]

NOBODY_HAS = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"


@pytest.fixture(scope="module")
def pair(make_nodes: MakeNode) -> Mesh:
    return Mesh([make_nodes("attic"), make_nodes("barn")]).build()


@pytest.fixture
def frozen(pair: Mesh) -> Iterator[Node]:
    """barn, whose kubo gets nothing until its meshd starts it anew. A moment ago it took content."""
    pair[0].do("pin", "-", "--name", "before", stdin=b"before")
    pid = pair[1].pid_of("kubo")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    yield pair[1]
    pair[1].wait_ready()


class Client:
    """A `meshctl ... --json` that runs."""

    def __init__(self, node: Node, *words: str | Path) -> None:
        self.process = node.popen(*words, "--json")
        self.seen: list[dict[str, Any]] = []

    def sees(self, event: str) -> dict[str, Any]:
        """Read up to that event."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            self.seen.append(json.loads(line))
            if self.seen[-1].get("event") == event:
                return self.seen[-1]
        raise AssertionError(f"it ended without {event}: {self.seen}")

    def ends(self) -> tuple[int, str]:
        """Its exit code, and what a person read."""
        try:
            out, err = self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        self.seen += [json.loads(line) for line in out.splitlines()]
        return self.process.returncode, err.decode()

    @property
    def kinds(self) -> list[str]:
        """Without what is told again and again."""
        told = [str(event.get("event")) for event in self.seen]
        return [kind for kind in told if kind not in ("progress", "fetching", "step")]


def running(node: Node) -> dict[str, Any]:
    [found] = [o for o in node.get("/v1/operations")["operations"] if o["state"] == "running"]
    return dict(found)


def test_a_pin_begun_by_one_client_followed_by_another_and_its_daemon_killed_in_between(
    pair: Mesh, frozen: Node, tmp_path: Path
) -> None:
    attic, barn = pair
    first = Client(attic, "pin", random_file(tmp_path / "minutes.pdf", 1 << 20))
    first.sees("copy")
    operation = running(attic)
    assert (operation["verb"], operation["subject"]) == ("pin", "minutes.pdf")
    first.process.send_signal(signal.SIGINT)
    code, said = first.ends()
    assert code == 130
    assert "minutes.pdf is kept and its copies are made in the background" in said
    second = Client(attic, "operations", operation["id"])
    second.sees("copy")
    assert second.kinds == ["added", "entry", "copy"], "what the first one was told, from the beginning"
    attic.kill9()
    code, said = second.ends()
    assert code == 1
    assert "the daemon went away" in said
    attic.start()
    assert attic.get(f"/v1/operations/{operation['id']}")["state"] == "interrupted"
    kept = r"cannot finish: pin minutes.pdf: it was interrupted; minutes.pdf is kept, with [12] of 3 copies"

    def explained() -> bool:
        answer = attic.meshctl("operations", operation["id"])
        assert answer.code == 1
        return re.search(kept, answer.err) is not None

    until(explained, "what became of it is said", 60)
    assert "minutes.pdf" in attic.do("operations").out
    attic.until_held_by("minutes.pdf", {"attic", "barn"})
    assert barn.content("minutes.pdf") == (tmp_path / "minutes.pdf").read_bytes()


def test_a_pin_that_a_stop_of_the_daemon_cuts_off_is_not_kept_and_says_so(pair: Mesh) -> None:
    attic = pair[0]
    before = attic.pinned()
    first = Client(attic, "pin", "--cid", NOBODY_HAS, "--name", "nowhere")
    assert "looking for the content" in first.sees("step")["message"]
    id_ = running(attic)["id"]
    second = Client(attic, "operations", id_)
    second.sees("step")
    first.process.kill()
    first.ends()
    assert running(attic)["id"] == id_, "it goes on without who began it"
    attic.stop()
    code, said = second.ends()
    assert (code, second.seen[-1]["code"]) == (1, "not-ready")
    assert "meshd is stopping" in said
    attic.start()

    def explained() -> bool:
        error = attic.get(f"/v1/operations/{id_}")["error"]
        return "nowhere is not kept, and nothing of it stays pinned" in error["detail"]

    until(explained, "what became of it is said", 60)
    attic.wait_ready()
    assert attic.pinned() == before
    assert not attic.entries("nowhere")


def test_an_upload_whose_client_is_killed_once_all_of_it_is_here_is_kept(pair: Mesh, tmp_path: Path) -> None:
    attic = pair[0]
    first = Client(attic, "pin", random_file(tmp_path / "whole.bin", 1 << 20))
    first.sees("added")
    first.process.kill()
    first.ends()
    attic.until_held_by("whole.bin", {"attic", "barn"})
    [found] = [o for o in attic.get("/v1/operations")["operations"] if o["subject"] == "whole.bin"]
    until(lambda: attic.get(f"/v1/operations/{found['id']}")["state"] == "done", "it came to its end")


def test_a_leave_is_found_again_on_the_node_that_takes_its_place(pair: Mesh) -> None:
    """And nothing else is: the names of entries went with the mesh."""
    barn = pair[1]
    line = barn.get("/v1/operations")["operations"]
    assert {o["verb"] for o in line} == {"join"}
    assert not any(len(o["subject"]) > 20 for o in line), "an invite is a secret"
    left = barn.do("leave", "--yes", "--force")
    assert "left the mesh" in left.out
    [operation] = barn.get("/v1/operations")["operations"]
    assert (operation["verb"], operation["subject"], operation["state"]) == ("leave", "archive", "done")
    again = barn.do("operations", operation["id"])
    assert again.out == "This node left the mesh.\n"
    assert "stopping kubo and the cluster" in again.err
