"""One upload into a real kubo: whole or not at all."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from meshd.errors import Code, MeshError
from meshd.pins.storage import Storage
from meshd.pins.uploads import ADDING, Declared, Uploads
from tests.engines.machine import (
    Machine,
    Part,
    chunks,
    directory,
    multipart,
    nobody_listens,
    noise,
    symlink,
)
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TYPE = "multipart/form-data; boundary=x"
ANYTHING = Declared("entry", directory=None, size=None, files=None)


def declared(size: int, files: int) -> Declared:
    return Declared("entry", directory=None, size=size, files=files)


async def adding(machine: Machine) -> set[str]:
    """Roots that are pinned for an upload only."""
    return {pin.cid for pin in await machine.kubo.pins() if pin.name.startswith(ADDING)}


async def content(machine: Machine, path: str) -> bytes:
    async with machine.kubo.call("cat", [path]) as answer:
        return await answer.read()


async def names(machine: Machine, root: str) -> list[tuple[str, int, bool]]:
    return sorted((i.name, i.size, i.directory) for i in await machine.kubo.list(f"/ipfs/{root}"))


# -- what is taken -------------------------------------------------------------------------------------------------


async def test_a_file_is_taken_pinned_and_counted(machine: Machine) -> None:
    data = noise(2 * 2**20 + 17)
    added = await machine.add(Part("minutes.pdf", data), declared=declared(len(data), 1))
    assert (added.size, added.files) == (len(data), 1)
    assert added.root in await adding(machine)
    assert await content(machine, added.root) == data
    await machine.uploads.release(added.root)
    assert added.root not in await adding(machine)


async def test_the_same_bytes_have_the_same_root_on_every_node(machine: Machine) -> None:
    """Profile unixfs-v1-2025: a small file is one raw block, named by its SHA-256."""
    added = await machine.add(Part("hello", b"hello mesh\n"))
    name = bytes([1, 0x55, 0x12, 32]) + hashlib.sha256(b"hello mesh\n").digest()
    assert added.root == "b" + base64.b32encode(name).decode().lower().rstrip("=")


async def test_an_empty_file_is_a_file(machine: Machine) -> None:
    added = await machine.add(Part("nothing", b""), declared=declared(0, 1))
    assert (added.size, added.files) == (0, 1)
    assert await content(machine, added.root) == b""


async def test_a_directory_is_taken_with_all_that_is_in_it(machine: Machine) -> None:
    added = await machine.add(
        directory("club"),
        Part("club/a.txt", b"12345"),
        directory("club/empty"),
        directory("club/sub"),
        Part("club/sub/ä %2F b.txt", b"123"),
        Part("club/sub/nothing", b""),
        declared=declared(8, 3),
    )
    assert (added.size, added.files) == (8, 3)
    assert await names(machine, added.root) == [("a.txt", 5, False), ("empty", 0, True), ("sub", 0, True)]
    assert await names(machine, f"{added.root}/sub") == [("nothing", 0, False), ("ä %2F b.txt", 3, False)]
    assert await names(machine, f"{added.root}/empty") == []


async def test_an_empty_directory_is_a_directory(machine: Machine) -> None:
    added = await machine.add(directory("empty"), declared=declared(0, 0))
    assert (added.size, added.files) == (0, 0)
    assert (await machine.kubo.stat(f"/ipfs/{added.root}")).directory


async def test_a_symlink_in_a_directory_is_kept_as_one_and_is_no_file(machine: Machine) -> None:
    added = await machine.add(
        directory("club"), Part("club/a", b"1"), symlink("club/b", "a"), declared=declared(1, 1)
    )
    assert [name for name, *_ in await names(machine, added.root)] == ["a", "b"]
    async with machine.kubo.call("get", [f"/ipfs/{added.root}"], archive="true") as answer:
        with tarfile.open(fileobj=io.BytesIO(await answer.read())) as archive:
            (link,) = [member for member in archive if member.issym()]
    assert (link.name, link.linkname) == (f"{added.root}/b", "a")


async def test_many_small_files_are_counted(machine: Machine) -> None:
    parts = [Part(f"club/{i}", b"x" * i) for i in range(300)]
    added = await machine.add(directory("club"), *parts, declared=declared(sum(range(300)), 300))
    assert added.files == 300


async def test_two_files_of_the_same_bytes_are_two(machine: Machine) -> None:
    data = noise(1000)
    added = await machine.add(
        directory("d"), Part("d/1", data), Part("d/2", data), declared=declared(2000, 2)
    )
    assert added.files == 2


async def test_progress_is_told_as_bytes_that_only_grow(machine: Machine) -> None:
    data = noise(5 * 2**20)
    told: list[int] = []

    async def hear(count: int) -> None:
        told.append(count)

    body = multipart("x", directory("d"), Part("d/1", data), Part("d/2", data[:100]))
    await machine.uploads.add(chunks(body), TYPE, ANYTHING, hear)
    assert told == sorted(told)
    assert len(told) > 2
    assert told[-1] == len(data) + 100


async def test_a_body_without_declared_counts_is_taken(machine: Machine) -> None:
    assert (await machine.add(Part("stdin", b"123"))).size == 3


# -- what is refused, and leaves nothing pinned --------------------------------------------------------------------


async def refused(
    machine: Machine, body: AsyncIterator[bytes], wanted: Declared = ANYTHING, kind: str = TYPE
) -> MeshError:
    before = await adding(machine)
    with pytest.raises(MeshError) as caught:
        await machine.uploads.add(body, kind, wanted, nobody_listens)
    assert await adding(machine) == before, "nothing of it is pinned"
    assert machine.uploads.count == 0
    return caught.value


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (declared(4, 1), "4 bytes were announced and more came"),
        (declared(6, 1), "6 bytes were announced and 5 came"),
        (declared(5, 2), "2 files were announced and 1 came"),
        (declared(9, 0), "9 bytes were announced and 5 came; 0 files were announced and 1 came"),
        (Declared("entry", directory=True, size=5, files=1), "a directory was announced and a file came"),
    ],
)
async def test_counts_that_do_not_match_are_refused(wanted: Declared, why: str, machine: Machine) -> None:
    error = await refused(machine, chunks(multipart("x", Part("f", noise(5)))), wanted)
    assert (error.code, error.detail) == (Code.UPLOAD_MISMATCH, f"{why}; nothing of it is kept")
    assert error.hint == "meshctl pin PATH"


@pytest.mark.parametrize("cut", [1, 5, 9, 11, 100_000])
async def test_a_body_without_its_closing_boundary_is_refused(cut: int, machine: Machine) -> None:
    """kubo itself acknowledges it, and pins it."""
    whole = multipart("x", Part("f", noise(200_000))).removesuffix(b"\r\n")
    error = await refused(machine, chunks(whole[:-cut]), declared(200_000, 1))
    assert error.code is Code.UPLOAD_CUT_OFF
    assert "closing boundary" in error.detail


async def test_a_boundary_that_comes_in_pieces_is_a_boundary(machine: Machine) -> None:
    body = multipart("x", Part("f", b"12345"))
    added = await machine.uploads.add(chunks(body, size=1), TYPE, declared(5, 1), nobody_listens)
    assert added.size == 5


async def test_a_boundary_in_quotes_is_a_boundary(machine: Machine) -> None:
    kind = 'multipart/form-data; boundary="x"'
    assert (
        await machine.uploads.add(chunks(multipart("x", Part("f", b"1"))), kind, ANYTHING, nobody_listens)
    ).size == 1


@pytest.mark.parametrize(
    "failure", [ConnectionResetError, aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError]
)
async def test_a_body_that_breaks_off_is_refused(failure: Callable[[], Exception], machine: Machine) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield multipart("x", Part("f", noise(100_000)))[:50_000]
        raise failure()

    error = await refused(machine, broken())
    assert error.code is Code.UPLOAD_CUT_OFF


async def test_a_body_that_breaks_off_once_kubo_has_begun_to_answer_is_refused_at_once(
    machine: Machine,
) -> None:
    """kubo waits for the rest of it, and nobody else may have to."""
    before, begun = await adding(machine), asyncio.Event()

    async def broken() -> AsyncIterator[bytes]:
        yield multipart("x", Part("f", noise(4 * 2**20)))[: 3 * 2**20]
        await begun.wait()
        raise ConnectionResetError

    async def on_bytes(_: int) -> None:
        begun.set()

    with pytest.raises(MeshError) as caught:
        async with asyncio.timeout(20):
            await machine.uploads.add(broken(), TYPE, ANYTHING, on_bytes)
    assert caught.value.code is Code.UPLOAD_CUT_OFF
    assert await adding(machine) == before


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ((Part("a", b"1"), Part("b", b"2")), "it has 'a' and 'b' at its top"),
        ((Part("a", b"1"), Part("a", b"2")), "'a' is in it twice"),
        ((directory("d"), Part("d/a", b"1"), Part("d/a", b"2")), "'d/a' is in it twice"),
        ((directory("d"), Part("d/a/b", b"1"), Part("d/a", b"2")), "'d/a' is in it twice"),
        (
            (directory("d"), Part("d/a", b"1"), Part("d/a/b", b"2")),
            "'d/a/b' is below 'd/a', which is no directory",
        ),
        (
            (directory("d"), symlink("d/l", "/etc"), Part("d/l/x", b"1")),
            "'d/l/x' is below 'd/l', which is no dir",
        ),
        ((symlink("l", "/etc"),), "'l' is a symlink, and that alone cannot be kept"),
        ((Part("f", b"", "multipart/mixed; boundary=y"),), "'f' in it is a form itself"),
        ((), "it has no file in it"),
    ],
)
async def test_what_is_not_one_file_or_directory_is_refused(
    parts: tuple[Part, ...], why: str, machine: Machine
) -> None:
    """kubo itself takes most of these, and leaves something out."""
    error = await refused(machine, chunks(multipart("x", *parts)))
    assert error.code is Code.BAD_REQUEST
    assert error.detail.startswith(why)
    assert error.detail.endswith("; nothing of it is kept")
    assert error.hint == "meshctl pin PATH"


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "d/../../x",
        "/etc/passwd",
        "d//x",
        "d/",
        ".",
        "",
        "d/.",
        "\x1b[2J",
        "d/a\nb",
        "\u202egpj",
        "x" * 256,
    ],
)
async def test_a_name_that_cannot_be_kept_is_refused(path: str, machine: Machine) -> None:
    error = await refused(machine, chunks(multipart("x", Part(path, noise(9)))))
    assert error.code is Code.BAD_NAME
    assert "\x1b" not in error.detail
    assert error.detail.endswith("; nothing of it is kept")
    assert error.hint == "rename it, then: meshctl pin PATH"


def one_part(head: bytes, content: bytes = b"1", end: bytes = b"\r\n--x--\r\n") -> bytes:
    return b"--x\r\n" + head + b"\r\n\r\n" + content + end


_FILE = b'Content-Disposition: form-data; name="file"; filename="f"'


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (one_part(b"Content-Type: text/plain"), "a part of it has no file name"),
        (b"--x\r\n\r\n1\r\n--x--\r\n", "a part of it has no file name"),
        (one_part(_FILE.replace(b'"f"', b'"caf%E9"')), "'caf\\xe9' in it is not UTF-8"),
        (one_part(_FILE + b"\r\nX: " + b"a" * 20_000), "the head of a part in it is over 16384 bytes"),
        (
            one_part(_FILE, end=b"\r\n--x--\r\n--x\r\n" + _FILE + b"\r\n\r\n2\r\n--x--\r\n"),
            "more follows its closing",
        ),
        (one_part(_FILE, end=b"\r\n--x-\r\n\r\n--x--\r\n"), "a boundary in it is damaged"),
        (b"hello" + one_part(_FILE), "it does not begin with the boundary"),
        (one_part(_FILE).replace(b"--x", b"--y"), "it does not begin with the boundary"),
    ],
)
@pytest.mark.parametrize("size", [1, 64 * 1024])
async def test_a_damaged_form_is_refused(body: bytes, why: str, size: int, machine: Machine) -> None:
    error = await refused(machine, chunks(body, size))
    assert why in error.detail
    assert error.hint.endswith("meshctl pin PATH")


async def test_what_looks_like_a_boundary_and_goes_on_is_content(machine: Machine) -> None:
    data = b"\r\n--xyz\r\n--\r\n-\r\n--x1"
    for size in (1, 3, 64):
        body = multipart("x", Part("f", data))
        added = await machine.uploads.add(chunks(body, size), TYPE, declared(len(data), 1), nobody_listens)
        assert await content(machine, added.root) == data


async def test_more_than_was_announced_is_refused_before_all_of_it_came(machine: Machine) -> None:
    asked_for = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked_for
        yield b"--x\r\n" + _FILE + b"\r\n\r\n"
        while True:
            asked_for += 1
            yield noise(1000)

    error = await refused(machine, endless(), declared(5000, 1))
    assert error.detail.startswith("5000 bytes were announced and more came")
    assert asked_for <= 6


@pytest.mark.parametrize(
    "kind",
    [
        "application/octet-stream",
        "",
        "multipart/form-data",
        "multipart/mixed; boundary=x",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\udcff",  # a byte of the header that is no text
        "multipart/form-data; boundary=ä",
    ],
)
async def test_what_is_not_multipart_is_refused(kind: str, machine: Machine) -> None:
    error = await refused(machine, chunks(b"hello"), kind=kind)
    assert error.code is Code.BAD_REQUEST


async def test_noise_that_calls_itself_multipart_is_refused(machine: Machine) -> None:
    error = await refused(machine, chunks(noise(1000) + b"\r\n--x--\r\n"))
    assert error.code is Code.BAD_REQUEST


async def test_below_the_disk_floor_it_is_cut_short(machine: Machine) -> None:
    full = Uploads(machine.kubo, Storage(machine.state, reserve=2**60, offer=None))
    before = await adding(machine)
    with pytest.raises(MeshError) as caught:
        await full.add(chunks(multipart("x", Part("f", noise(9)))), TYPE, ANYTHING, nobody_listens)
    assert caught.value.code is Code.DISK_FLOOR
    assert await adding(machine) == before


# -- several at once, and the end ----------------------------------------------------------------------------------


async def test_one_of_two_uploads_of_the_same_bytes_does_not_take_the_pin_from_the_other(
    machine: Machine,
) -> None:
    data = noise(100)
    one = await machine.add(Part("a", data))
    two = await machine.add(Part("b", data))
    assert one.root == two.root
    await machine.uploads.release(one.root)
    assert await machine.kubo.pinned([two.root]) == {two.root}
    with pytest.raises(MeshError, match="announced"):
        await machine.add(Part("c", data), declared=declared(101, 1))
    assert await machine.kubo.pinned([two.root]) == {two.root}
    await machine.uploads.unpin(two.root)
    assert await machine.kubo.pinned([two.root]) == {two.root}, "the other one still needs it"
    await machine.uploads.release(two.root)
    assert await machine.kubo.pinned([two.root]) == set()


async def test_what_is_received_is_pinned_until_an_entry_was_made_of_it(machine: Machine) -> None:
    body = chunks(multipart("x", Part("f", noise(10))))
    async with machine.uploads.receive(body, TYPE, ANYTHING, nobody_listens) as added:
        assert machine.uploads.count == 1, "no garbage is collected meanwhile"
        named = {p.cid: p.name for p in await machine.kubo.pins()}
        assert added.root in await adding(machine)
        assert not machine.uploads.left_over(named[added.root], added.root), "no sweep takes it away"
    assert machine.uploads.left_over(named[added.root], added.root)
    assert (machine.uploads.count, added.root in await adding(machine)) == (0, False)


async def test_what_no_entry_could_be_made_of_is_not_pinned(machine: Machine) -> None:
    body = chunks(multipart("x", Part("f", noise(10))))
    with pytest.raises(MeshError):
        async with machine.uploads.receive(body, TYPE, ANYTHING, nobody_listens) as added:
            raise MeshError(Code.BAD_STATE, "cannot make an entry of it")
    assert (machine.uploads.count, added.root in await adding(machine)) == (0, False)


async def test_open_uploads_are_counted_and_can_be_ended(machine: Machine) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield multipart("x", Part("f", noise(100_000)))[:50_000]
        begun.set()
        await asyncio.Event().wait()

    async def upload() -> None:
        leave = machine.uploads.enter()
        try:
            await machine.uploads.add(endless(), TYPE, ANYTHING, nobody_listens)
        finally:
            leave()

    before = await adding(machine)
    task = asyncio.create_task(upload())
    await begun.wait()
    assert machine.uploads.count == 1
    idle = asyncio.create_task(machine.uploads.wait_idle())
    await machine.uploads.abort_all()
    assert task.cancelled()
    assert machine.uploads.count == 0
    await idle
    await until(lambda: same(machine, before))


async def same(machine: Machine, before: set[str]) -> bool:
    return await adding(machine) == before
