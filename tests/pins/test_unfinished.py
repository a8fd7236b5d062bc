"""What could not be kept is not kept: it is unpinned, if not at once then by a later sweep, and after a restart too."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from meshd import files
from meshd.errors import Code, MeshError
from meshd.pins.staging import Pending
from meshd.pins.uploads import ADDING
from meshd.pins.wiring import Pins
from tests.pins.conftest import CONTENT
from tests.pins.fake_engines import FakeCluster, FakeKubo, record_of
from tests.pins.told import Told


def noted(tmp_path: Path) -> list[str]:
    found: list[str] = json.loads((tmp_path / "state" / "pending.json").read_text())
    return found


async def lose(pins: Pins, kubo: FakeKubo) -> str:
    """An entry whose disk failed after it was pinned, while kubo went away; its CID."""

    def gone(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    kubo.away = {"pin/rm"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "syncfs", gone)
        with pytest.raises(MeshError) as caught:
            await pins.pinner.existing(CONTENT, "minutes.pdf", None, Told())
    assert caught.value.code is Code.BAD_STATE
    [cid] = kubo.names
    return cid


async def test_an_entry_that_kubo_did_not_unpin_is_unpinned_by_the_next_sweep_that_reaches_it(
    pins: Pins, kubo: FakeKubo, tmp_path: Path
) -> None:
    cid = await lose(pins, kubo)
    assert noted(tmp_path) == [cid], "a restart would find it, too"
    with pytest.raises(MeshError):
        await pins.sweeper.sweep()
    assert noted(tmp_path) == [cid], "kubo was still away"
    kubo.away = set()
    await pins.sweeper.sweep()
    assert (kubo.names, noted(tmp_path)) == ({}, [])


async def test_after_a_restart_it_is_still_known(pins: Pins, kubo: FakeKubo, tmp_path: Path) -> None:
    cid = await lose(pins, kubo)
    assert Pending(tmp_path / "state" / "pending.json").left == {cid}


async def test_an_entry_that_the_cluster_refused_and_kubo_did_not_unpin_goes_later(
    pins: Pins, kubo: FakeKubo, cluster: FakeCluster, tmp_path: Path
) -> None:
    cluster.fails = {"POST pins/one": "it fails"}
    kubo.away = {"pin/rm"}
    with pytest.raises(MeshError):
        await pins.pinner.existing(CONTENT, "minutes.pdf", 1, Told())
    [cid] = kubo.names
    kubo.away = set()
    await pins.sweeper.sweep()
    assert (kubo.names, noted(tmp_path)) == ({}, [])
    assert cid not in cluster.records


async def test_an_entry_of_which_it_is_not_known_whether_it_is_kept_is_looked_at_again(
    pins: Pins, kubo: FakeKubo, cluster: FakeCluster, tmp_path: Path
) -> None:
    """It got into the pinset, and then the cluster did not say so: what is in the pinset is never unpinned."""
    cluster.fails = {"GET allocations/one": "it fails"}
    with pytest.raises(MeshError):
        await pins.pinner.existing(CONTENT, "minutes.pdf", 1, Told())
    [cid] = kubo.names
    assert list(cluster.records) == [cid]
    cluster.fails.clear()
    await pins.sweeper.sweep()
    assert list(kubo.names) == [cid] == list(cluster.records)
    assert noted(tmp_path) == []


async def test_what_got_into_the_pinset_after_the_list_was_read_is_not_unpinned(
    pins: Pins, kubo: FakeKubo, cluster: FakeCluster, tmp_path: Path
) -> None:
    """A sweep holds a list from before: it looks again at each entry before that loses its pin."""
    cid = await lose(pins, kubo)
    kubo.away = set()
    cluster.records[cid] = {
        "cid": cid,
        "name": "minutes.pdf",
        "allocations": [],
        "replication_factor_max": -1,
    }
    await pins.staging.sweep({}, dict(kubo.names))
    assert list(kubo.names) == [cid]
    assert noted(tmp_path) == []


async def test_what_an_upload_protects_and_somebody_put_into_the_pinset_since_is_not_unpinned(
    pins: Pins, kubo: FakeKubo, cluster: FakeCluster
) -> None:
    kubo.names = {"kept": f"{ADDING}1", "left": f"{ADDING}2"}
    cluster.records["kept"] = record_of("kept", {"name": "of another program"})
    await pins.staging.sweep({}, dict(kubo.names))
    assert list(kubo.names) == ["kept"], "the list was read before it got there"


async def test_a_note_that_names_no_entry_stops_no_sweep(
    tmp_path: Path,
) -> None:
    (tmp_path / "noted.json").write_text(json.dumps(["/ipfs/x", "", 7, None, CONTENT]))
    assert Pending(tmp_path / "noted.json").left == {CONTENT}
