"""The form of an upload: what it may hold, and what reading it costs."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator, Sequence
from urllib.parse import quote

import hypothesis.strategies as st
import pytest
from hypothesis import given

from meshctl import walk
from meshd.errors import Code, MeshError
from meshd.pins import multipart, uploads
from meshd.pins.multipart import Form

FILE, DIRECTORY, SYMLINK = "application/octet-stream", "application/x-directory", "application/symlink"


def body(parts: Sequence[tuple[str, str]]) -> bytes:
    """A form of empty parts: path and media type."""
    heads = [
        f'--x\r\nContent-Disposition: form-data; filename="{quote(path)}"\r\nContent-Type: {kind}\r\n\r\n'
        for path, kind in parts
    ]
    return "\r\n".join([*heads, "--x--\r\n"]).encode()


def read(raw: bytes, **options: int) -> Form:
    found = Form(b"x", **options)
    for start in range(0, len(raw), 8192):
        found.feed(raw[start : start + 8192])
    found.finish()
    return found


def refusal(raw: bytes, **options: int) -> MeshError:
    with pytest.raises(MeshError) as caught:
        read(raw, **options)
    return caught.value


def peak(raw: bytes) -> int:
    """Bytes of memory that reading it took at most, beside the form."""
    tracemalloc.start()
    try:
        try:
            read(raw)
        except MeshError:
            pass  # what is refused must not cost much either
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def deep(parts: int, depth: int, name: str = "a") -> Iterator[tuple[str, str]]:
    """Files, each at the end of a way of its own."""
    for number in range(parts):
        yield "/".join(["top", str(number), *[name] * (depth - 3), "f"]), FILE


# -- the deep form -------------------------------------------------------------------------------------------------


def test_the_deep_form_is_refused_and_takes_little_memory() -> None:
    """420 kB of deep paths once took a gigabyte."""
    raw = body(list(deep(40, 5200)))
    assert 400_000 < len(raw) < 450_000
    assert peak(raw) < 10 * len(raw)
    error = refusal(raw)
    assert error.code is Code.BAD_NAME
    assert error.title == "cannot pin that upload"
    assert "is longer than 4,095 bytes; nothing of it is kept" in error.detail
    assert len(error.detail) < 400
    assert error.hint == "pin it as one file: tar -cf NAME.tar PATH; meshctl pin NAME.tar"


def test_the_deepest_paths_that_are_taken_cost_memory_by_their_length_not_its_square() -> None:
    raw = body(list(deep(60, multipart.DEPTH_MOST, name="fourteen-bytes")))
    assert read(raw).files == 60
    assert peak(raw) < 16 * len(raw)


def test_a_path_may_have_so_many_names_and_no_more() -> None:
    assert read(body(list(deep(1, 256)))).files == 1
    error = refusal(body(list(deep(1, 257))))
    assert "has more than 256 names in it" in error.detail
    assert "tar -cf" in error.hint


def test_a_path_may_be_so_long_and_no_longer() -> None:
    """Counted as it is on a disk, not as it is written in the form."""
    longest = "/".join([*["ä" * 127] * 15, "x" * 14, "y" * 255])
    assert len(longest.encode()) == 4095
    assert read(body([(longest, FILE)])).files == 1
    assert "longer than 4,095 bytes" in refusal(body([(longest.replace("/x", "/xx"), FILE)])).detail


# -- the wide form -------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_small_files_are_taken() -> None:
    parts = [(f"top/{number // 100}/{number}", FILE) for number in range(100_000)]
    assert read(body(parts)).files == 100_000


@pytest.mark.parametrize("kind", [FILE, SYMLINK, DIRECTORY])
def test_so_many_things_are_taken_and_no_more(kind: str) -> None:
    parts = [("top", DIRECTORY), *((f"top/{number}", kind) for number in range(99))]
    read(body(parts), entries_most=100)
    error = refusal(body([*parts, ("top/more", kind)]), entries_most=100)
    assert error.code is Code.BAD_REQUEST
    assert "it has over 100 files and directories in it" in error.detail
    assert "tar -cf" in error.hint


def test_directories_that_are_only_named_in_a_path_count() -> None:
    parts = list(deep(10, 12))
    read(body(parts), entries_most=111)
    assert "over 110 files" in refusal(body(parts), entries_most=110).detail


def test_meshctl_refuses_the_same_before_it_sends_anything() -> None:
    assert (walk.DEPTH, walk.PATH_BYTES, walk.ENTRIES) == (
        multipart.DEPTH_MOST,
        multipart.PATH_MOST,
        multipart.ENTRIES_MOST,
    )


async def test_while_many_paths_are_read_the_loop_serves_others() -> None:
    turns, reading = 0, True

    async def others() -> None:
        nonlocal turns
        while reading:
            turns += 1
            await asyncio.sleep(0)

    served = asyncio.create_task(others())
    found = Form(b"x")
    await uploads._feed(found, body([(f"top/{number}", FILE) for number in range(20_000)]))
    reading = False
    await served
    assert found.files == 20_000
    assert turns > 20


# -- what fits together --------------------------------------------------------------------------------------------

_PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(lambda names: "/".join(["t", *names]))


def _fits(parts: Sequence[tuple[str, str]]) -> bool:
    """The rule in its plainest words: nothing twice, and all above it are directories."""
    kinds: dict[str, str] = {}
    for path, kind in parts:
        names = path.split("/")
        above = ["/".join(names[:depth]) for depth in range(1, len(names))]
        if any(kinds.get(each, DIRECTORY) != DIRECTORY for each in above):
            return False
        if path in kinds or (kind != DIRECTORY and any(each.startswith(f"{path}/") for each in kinds)):
            return False
        kinds[path] = kind
    return True


@given(st.lists(st.tuples(_PATHS, st.sampled_from([FILE, DIRECTORY, SYMLINK])), min_size=1, max_size=8))
def test_what_has_one_place_each_is_taken_and_nothing_else(parts: list[tuple[str, str]]) -> None:
    if _fits(parts):
        assert read(body(parts)).directory
    else:
        assert refusal(body(parts)).code is Code.BAD_REQUEST
