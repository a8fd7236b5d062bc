"""How much a node still takes."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from meshd.errors import Code, MeshError
from meshd.pins.storage import RESERVE_INODES, Room, Storage, shown, why_full, why_refused

ROOM = Room(total=1000, free=600, reserve=100, inodes=RESERVE_INODES)
BYTES = st.integers(0, 2000)
ROOMS = st.builds(Room, BYTES, BYTES, BYTES, st.none() | st.integers(0, 2 * RESERVE_INODES))


def refused(
    size: int, room: Room = ROOM, *, foreign: bool = True, placed: int = 0, offer: int | None = None
) -> str:
    return why_refused(size, room, foreign=foreign, placed=placed, offer=offer)


def test_a_disk_with_room_is_not_full() -> None:
    assert why_full(ROOM) == ""


def test_the_reserve_is_the_floor() -> None:
    assert why_full(Room(1000, 101, 100, None)) == ""
    assert "100 B free, and [storage] reserve keeps 100 B" in why_full(Room(1000, 100, 100, None))


def test_a_filesystem_without_inodes_is_full() -> None:
    assert why_full(Room(1000, 600, 100, RESERVE_INODES)) == ""
    assert "9999 inodes free" in why_full(Room(1000, 600, 100, RESERVE_INODES - 1))


def test_a_filesystem_that_counts_no_inodes_is_not_full_of_them() -> None:
    assert why_full(Room(1000, 600, 100, None)) == ""


def test_content_must_fit_above_the_reserve() -> None:
    assert refused(500) == ""
    assert refused(501) == "it is 501 B, and the disk has 500 B above its reserve"


def test_the_offer_bounds_what_others_place_here() -> None:
    assert refused(10, placed=90, offer=100) == ""
    assert (
        refused(11, placed=90, offer=100)
        == "[storage] offer gives others 100 B, 90 B of it taken, and it is 11 B"
    )


def test_the_offer_does_not_bind_this_node_s_own_content() -> None:
    assert refused(400, foreign=False, placed=90, offer=100) == ""


@given(BYTES, ROOMS, st.booleans(), BYTES, st.none() | BYTES)
def test_what_is_taken_leaves_the_reserve(
    size: int, room: Room, foreign: bool, placed: int, offer: int | None
) -> None:
    if not refused(size, room, foreign=foreign, placed=placed, offer=offer):
        assert room.free - size >= room.reserve


@given(BYTES, BYTES, ROOMS, BYTES, st.none() | BYTES)
def test_less_is_never_refused_where_more_is_taken(
    size: int, less: int, room: Room, placed: int, offer: int | None
) -> None:
    if less <= size and not refused(size, room, placed=placed, offer=offer):
        assert not refused(less, room, placed=placed, offer=offer)


def test_the_room_is_that_of_the_disk(tmp_path: Path) -> None:
    room = Storage(tmp_path, reserve=7, offer=None).room()
    disk = os.statvfs(tmp_path)
    assert room.total == disk.f_blocks * disk.f_frsize
    assert room.reserve == 7
    assert 0 < room.free <= room.total


def test_a_node_gives_what_is_above_its_reserve(tmp_path: Path) -> None:
    free = Storage(tmp_path, reserve=0, offer=None).room().free
    half = Storage(tmp_path, reserve=free // 2, offer=None)
    assert free * 0.4 < half.free() < free * 0.6
    assert half.accepts()


def test_a_node_gives_what_is_left_of_its_offer(tmp_path: Path) -> None:
    storage = Storage(tmp_path, reserve=0, offer=1000)
    assert storage.free() == 1000
    storage.recount(400, counted=["c1"], fetching=[])
    assert storage.free() == 600
    storage.recount(1001, counted=["c1"], fetching=[])
    assert storage.free() == 0
    assert not storage.accepts()


def test_what_was_let_in_counts_before_the_next_sweep_and_only_once(tmp_path: Path) -> None:
    storage = Storage(tmp_path, reserve=0, offer=1000)
    storage.expect("c1", 300)
    storage.expect("c1", 300)
    storage.expect("c2", 200)
    assert storage.placed == 500
    assert storage.refuse(501, foreign=True)
    storage.recount(300, counted=["c1"], fetching=["c1", "c2"])
    assert storage.placed == 500
    storage.recount(300, counted=["c1"], fetching=[])
    assert storage.placed == 300


def test_below_the_floor_nothing_is_taken_and_the_way_out_is_told(tmp_path: Path) -> None:
    storage = Storage(tmp_path, reserve=2**60, offer=None)
    assert not storage.accepts()
    assert storage.free() == 0
    with pytest.raises(MeshError) as caught:
        storage.check(0)
    assert caught.value.code is Code.DISK_FLOOR
    assert "reserve" in caught.value.detail
    assert "meshctl trash" in caught.value.hint


def test_what_fits_is_taken(tmp_path: Path) -> None:
    Storage(tmp_path, reserve=0, offer=0).check(1)  # one's own content is no offer to others


def test_a_disk_that_cannot_be_asked_is_told(tmp_path: Path) -> None:
    with pytest.raises(MeshError) as caught:
        Storage(tmp_path / "gone", reserve=0, offer=None).room()
    assert caught.value.code is Code.BAD_STATE


def test_a_disk_that_takes_no_writing_takes_nothing_and_is_not_full(tmp_path: Path) -> None:
    """Only want of room empties the trash early."""
    storage = Storage(tmp_path, reserve=0, offer=None)
    storage.unwritable = "Read-only file system"
    assert storage.closed() == "Read-only file system"
    assert storage.full() == ""
    assert not storage.accepts()
    with pytest.raises(MeshError) as caught:
        storage.check(1)
    assert caught.value.code is Code.BAD_STATE
    assert "Read-only file system" in caught.value.detail
    assert "systemctl restart meshd" in caught.value.hint


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (41_942_016, "41.9 MB"),
        (2.5e12, "2.5 TB"),
        (7e18, "7000.0 PB"),
    ],
)
def test_bytes_are_shown_as_a_person_reads_them(count: float, text: str) -> None:
    assert shown(count) == text


# -- a disk that is gone -------------------------------------------------------------------------------------------


def test_a_disk_that_cannot_be_asked_takes_nothing_and_says_why(tmp_path: Path) -> None:
    """The other nodes must hear that, and not that this one is gone: its beat carries these."""
    storage = Storage(tmp_path / "gone", reserve=0, offer=None)
    why = f"No such file or directory: {tmp_path / 'gone'}"
    assert storage.unreadable() == why
    assert storage.closed() == why
    assert not storage.accepts()
    assert storage.free() == 0
    with pytest.raises(MeshError) as caught:
        storage.check(1)
    assert caught.value.code is Code.BAD_STATE
    assert why in caught.value.detail
    (tmp_path / "gone").mkdir()
    assert storage.unreadable() == storage.closed() == ""
    assert storage.accepts()
