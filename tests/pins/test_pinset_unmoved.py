"""While the cluster's datastore has not moved its list is not read anew; and nobody is told what is old."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshd.cluster.datastore import Datastore
from meshd.errors import Code, MeshError
from meshd.pins import pinset
from meshd.pins.wiring import Pins
from tests.pins.fake_engines import FakeCluster
from tests.pins.test_pinset_reading import LIST, keep, names


class Log:
    """The datastore's files, which the test writes as LevelDB would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cluster" / "leveldb"
        self.folder.mkdir(parents=True)
        self.write()

    def write(self, file: str = "000001.log") -> None:
        with (self.folder / file).open("ab") as log:
            log.write(b"a write")


@pytest.fixture
def log(sockets: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    """The cluster's datastore; what it has written is shown at once."""
    monkeypatch.setattr(pinset, "_SETTLED_S", 0.0)
    return Log(sockets)


async def test_a_list_that_has_not_changed_is_read_once(pins: Pins, cluster: FakeCluster, log: Log) -> None:
    keep(cluster, "a")
    for _ in range(3):
        assert names(await pins.catalogue.page()) == ["a"]
        await pins.pinset.refresh(anew=True)
        await pins.catalogue.find("a")
    assert cluster.asked.count(LIST) == 1


@pytest.mark.parametrize("file", ["000001.log", "000002.log", "MANIFEST-000004"])
async def test_after_a_write_it_is_read_anew(file: str, pins: Pins, cluster: FakeCluster, log: Log) -> None:
    keep(cluster, "a")
    await pins.catalogue.page()
    keep(cluster, "b")
    log.write(file)
    assert names(await pins.catalogue.page()) == ["a", "b"]


async def test_a_list_that_was_read_just_after_a_write_is_read_once_more(
    pins: Pins, cluster: FakeCluster, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster writes first, and shows what it wrote a moment later."""
    monkeypatch.setattr(pinset, "_SETTLED_S", 3600.0)
    await pins.catalogue.page()
    keep(cluster, "a")  # it was in the log when the list was read
    assert names(await pins.catalogue.page()) == ["a"]


@pytest.mark.parametrize("command", ["GET version", "GET allocations"])
async def test_where_the_cluster_does_not_answer_nothing_is_told_of_its_list(
    command: str, pins: Pins, cluster: FakeCluster, log: Log
) -> None:
    keep(cluster, "a")
    await pins.catalogue.page()
    cluster.fails = {command: "it fails"}
    if command == "GET allocations":
        log.write()
    with pytest.raises(MeshError) as caught:
        await pins.catalogue.page()
    assert caught.value.code is Code.ENGINE_FAILED


async def test_where_there_is_no_log_the_list_is_read_each_time(
    pins: Pins, cluster: FakeCluster, log: Log
) -> None:
    (log.folder / "000001.log").unlink()
    await pins.catalogue.page()
    keep(cluster, "a")
    assert names(await pins.catalogue.page()) == ["a"]


def test_a_mark_tells_a_file_that_took_the_place_of_another(tmp_path: Path) -> None:
    log = Log(tmp_path)
    datastore = Datastore(tmp_path / "cluster")
    before = datastore.mark()
    assert before == datastore.mark()
    old = log.folder / "000001.log"
    other = log.folder / "new"
    other.write_bytes(old.read_bytes())
    when = old.stat().st_mtime_ns
    os.utime(other, ns=(when, when))
    other.replace(old)
    assert datastore.mark() != before


def test_what_is_not_there_has_no_mark(tmp_path: Path) -> None:
    assert Datastore(tmp_path).mark() is None


async def test_who_lets_content_go_after_it_has_the_list_read_all_the_same(
    pins: Pins, cluster: FakeCluster, log: Log
) -> None:
    keep(cluster, "a")
    await pins.catalogue.page()
    keep(cluster, "b")  # the log does not tell
    await pins.pinset.reread()
    parts = [part async for part in pins.pinset.each_part()]
    assert sorted(p.name for part in parts for p in part) == ["a", "b"]
    assert cluster.asked.count(LIST) == 2
