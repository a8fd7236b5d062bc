"""The mesh's secrets, handed over by systemd: they are used, and lie in no file of the node."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd import files
from meshd.mesh.secrets import Secrets
from tests.mesh.conftest import MakeMesh, MakeNode
from tests.mesh.nodes import BIN, Mesh, Node, run

pytestmark = pytest.mark.mesh


def hand_over(node: Node, secrets: Secrets, prefix: str = "") -> None:
    """As LoadCredential= would. A secret manager's last line may have no end."""
    folder = node.folder / "credentials"
    folder.mkdir(exist_ok=True)
    for name, text in (("swarm.key", secrets.swarm_key.strip()), ("cluster.secret", secrets.cluster_secret)):
        (folder / f"{prefix}{name}").write_text(text)
        (folder / f"{prefix}{name}").chmod(0o400)
    node.credentials = folder


def run_in_memory(node: Node, folder: Path) -> None:
    """As the unit does: /run is a tmpfs."""
    node.config.write_text(node.config.read_text().replace(str(node.run_folder), str(folder)))
    node.run_folder, node.socket = folder, folder / "meshd.sock"


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder of a tmpfs, with a short name."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/dev/shm") as folder:
        yield Path(folder)


def files_with(secrets: Secrets, folder: Path) -> list[str]:
    """What in the folder has a secret in it. Links are not followed."""
    wanted = (secrets.swarm_key.split()[-1].encode(), secrets.cluster_secret.encode())

    def holds(path: Path) -> bool:
        try:
            return any(secret in path.read_bytes() for secret in wanted)
        except FileNotFoundError:  # the programs that run here remove files of theirs at any time
            return False

    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path.relative_to(folder)) for path in found if holds(path)]


@pytest.fixture
def secrets() -> Secrets:
    return Secrets.generate()


def test_a_mesh_is_founded_with_them_and_they_are_in_no_file_of_its_state(
    make_node: MakeNode, secrets: Secrets, memory: Path
) -> None:
    attic, barn = make_node("attic"), make_node("barn")
    hand_over(attic, secrets)
    run_in_memory(attic, memory)
    Mesh([attic, barn]).build()
    assert Secrets.load(barn.state) == secrets, "a node without such a manager keeps them in files"
    attic.do("pin", "-", "--name", "minutes", "--replicas", "2", stdin=b"as it was said")
    assert files_with(secrets, attic.state) == []
    assert set(files_with(secrets, barn.state)) == {
        "secrets/swarm.key",
        "secrets/cluster.secret",
        "kubo/swarm.key",
        "cluster/service.json",
    }
    lie = {"kept": "credentials", "key": "", "encrypted": False, "by": "environment"}
    assert attic.status()["secrets"] == lie
    said = "secrets  handed over in CREDENTIALS_DIRECTORY; in no file of meshd's"
    assert said in attic.do("status").out
    assert "secrets  in plain files that only meshd may read" in barn.do("status").out

    attic.stop()
    files.empty(memory)  # as a reboot empties /run
    kept = attic.state / "cluster" / "service-without-secret.json"
    kept.write_text(
        kept.read_text().replace('"monitor_ping_interval": "15s"', '"monitor_ping_interval": "14s"')
    )
    attic.start().wait_ready()
    assert attic.do("get", "minutes", "-o", "-").out == "as it was said"
    settings = (attic.state / "cluster" / "service.json").read_text()
    assert '"monitor_ping_interval": "14s"' in settings, "a setting of its owner's is kept"
    assert files_with(secrets, attic.state) == []
    assert attic.do("doctor").code == 0


def test_plain_files_go_once_the_same_is_handed_over_and_come_back_by_hand(make_mesh: MakeMesh) -> None:
    attic = make_mesh(1)[0]
    secrets = Secrets.load(attic.state)
    attic.do("pin", "-", "--name", "minutes", "--replicas", "1", stdin=b"as it was said")
    attic.stop()
    hand_over(attic, secrets)
    attic.start()
    assert files_with(secrets, attic.state) == [], "before it serves, let alone its engines"
    attic.wait_ready()
    assert attic.status()["secrets"]["kept"] == "files", "its run folder is on a disk"
    assert attic.do("get", "minutes", "-o", "-").out == "as it was said"

    attic.stop()
    attic.credentials = None
    code, said = ended_at_once(attic)
    assert code == 1
    assert f"meshd: cannot use {attic.state}/secrets/swarm.key\n  the file is missing\n" in said
    secrets.save(attic.state)
    attic.start().wait_ready()
    assert len(files_with(secrets, attic.state)) == 4
    assert files_with(secrets, attic.run_folder) == []


def test_who_leaves_keeps_nothing_of_them(make_node: MakeNode, secrets: Secrets) -> None:
    attic = make_node("attic")
    hand_over(attic, secrets)
    attic.start().do("init")
    assert files_with(secrets, attic.run_folder) == ["private/service.json"]
    attic.do("leave", "--force", "--yes")
    assert files_with(secrets, attic.run_folder) == files_with(secrets, attic.state) == []


def test_another_meshs_are_refused_and_the_plain_files_stay(make_mesh: MakeMesh, secrets: Secrets) -> None:
    attic = make_mesh(1)[0]
    own = Secrets.load(attic.state)
    attic.stop()
    hand_over(attic, secrets)
    code, said = ended_at_once(attic)
    assert code == 1
    assert said.startswith(f"meshd: cannot use {attic.credentials}/swarm.key\n")
    assert "  it, or the cluster's secret beside it, is another mesh's\n  try: see who fills" in said
    assert Secrets.load(attic.state) == own


def test_what_is_no_secret_is_refused_by_name_and_not_shown(make_node: MakeNode, secrets: Secrets) -> None:
    attic = make_node("attic")
    hand_over(attic, secrets)
    assert attic.credentials is not None
    (attic.credentials / "cluster.secret").chmod(0o600)
    (attic.credentials / "cluster.secret").write_text("hunter2")
    answer = attic.start().meshctl("init")
    assert answer.code == 1
    assert f"cannot use {attic.credentials}/cluster.secret" in answer.err
    assert "it is not 64 hex digits" in answer.err
    assert "hunter2" not in answer.err
    assert not (attic.state / "mesh.json").exists()


def test_who_joins_with_another_meshs_is_told_and_is_as_before(
    make_mesh: MakeMesh, make_node: MakeNode, secrets: Secrets
) -> None:
    attic = make_mesh(1)[0]
    stranger = make_node("stranger")
    hand_over(stranger, secrets)
    invite = attic.do("invite", "--json").document()["invite"]
    answer = stranger.start().meshctl("join", invite)
    assert answer.code == 1
    assert "another mesh's" in answer.err
    assert "on a member: meshctl forget stranger" in answer.err, "it was admitted before this could be seen"
    assert not (stranger.state / "mesh.json").exists()
    assert not (stranger.state / "secrets" / "swarm.key").exists()
    stranger.stop()
    attic.do("forget", "stranger", "--yes")
    assert set(attic.peers()) == {"attic"}


def ended_at_once(node: Node) -> tuple[int, str]:
    """`meshd run` where it cannot; what it said to people."""
    more = {} if node.credentials is None else {"CREDENTIALS_DIRECTORY": str(node.credentials)}
    answer = run([BIN / "meshd", "run", "--config", node.config], timeout=30, **more)
    return answer.code, answer.err
