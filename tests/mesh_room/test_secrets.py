"""The shared secrets: in their files, 0600, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meshd.errors import Code, MeshError
from meshd.mesh.secrets import Secrets


def test_kept_closed_and_found_again(tmp_path: Path) -> None:
    made = Secrets.generate()
    made.save(tmp_path)
    assert Secrets.load(tmp_path) == made
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    for name in ("swarm.key", "cluster.secret"):
        assert (tmp_path / "secrets" / name).stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"/key/swarm/psk/1\.0\.0/\n/base16/\n[0-9a-f]{64}\n", made.swarm_key)
    assert Secrets.swarm_key_file(tmp_path).read_text() == made.swarm_key


def test_never_in_repr_nor_errors(tmp_path: Path) -> None:
    made = Secrets.generate()
    key = made.swarm_key.split()[-1]
    assert key not in repr(made)
    assert made.cluster_secret not in repr(made)
    made.save(tmp_path)
    (tmp_path / "secrets" / "swarm.key").write_text(made.swarm_key + "more")
    with pytest.raises(MeshError) as caught:
        Secrets.load(tmp_path)
    assert caught.value.code is Code.BAD_STATE
    assert key not in str(caught.value.problem())


@pytest.mark.parametrize("name", ["swarm.key", "cluster.secret"])
def test_missing_or_empty_is_said_by_name(tmp_path: Path, name: str) -> None:
    Secrets.generate().save(tmp_path)
    path = tmp_path / "secrets" / name
    path.unlink()
    with pytest.raises(MeshError) as caught:
        Secrets.load(tmp_path)
    assert caught.value.code is Code.BAD_STATE
    assert str(path) in caught.value.title
    path.write_text("")
    with pytest.raises(MeshError) as caught:
        Secrets.load(tmp_path)
    assert str(tmp_path / "secrets") in caught.value.title


def test_erase(tmp_path: Path) -> None:
    Secrets.erase(tmp_path)
    Secrets.generate().save(tmp_path)
    Secrets.erase(tmp_path)
    assert list((tmp_path / "secrets").iterdir()) == []
