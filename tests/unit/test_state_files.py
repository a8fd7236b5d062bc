"""What is declared of the state folder: which files are secrets, and which go with the mesh."""

from __future__ import annotations

from pathlib import Path

from meshd.state_files import Of, StateFile, StateFiles


def test_a_secret_that_lies_in_memory_is_no_file_of_this_folder(tmp_path: Path) -> None:
    """Its mode is that folder's, which is not this node's to judge."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "linked.key").symlink_to(tmp_path / "memory.key")
    (state / "plain.key").touch()
    declared = StateFiles(state, [StateFile(n, secret=True) for n in ("linked.key", "plain.key", "gone.key")])
    declared.declare([StateFile("roster.json")])
    assert declared.secrets() == [state / "plain.key", state / "gone.key"]


def test_what_is_the_mesh_s_goes_the_folders_first_and_all_else_stays(tmp_path: Path) -> None:
    for name in (
        "kubo/blocks/a",
        "trash.db",
        "trash.db-wal",
        "trash.db-shm",
        "seen.json",
        "node.key",
        "lock",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    closed: list[bool] = []
    declared = StateFiles(tmp_path, [StateFile("lock", Of.MACHINE), StateFile("node.key", Of.IDENTITY)])
    declared.declare(
        [StateFile("trash.db", database=True), StateFile("seen.json"), StateFile("kubo/"), StateFile("none")],
        lambda: closed.append((tmp_path / "kubo/blocks/a").exists()),
    )
    declared.remove_those_of_the_mesh()
    assert closed == [True], "they were closed before"
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["lock", "node.key"]
    assert (tmp_path / "kubo").is_dir()
    declared.remove_those_of_the_mesh()  # as after one that was cut off
