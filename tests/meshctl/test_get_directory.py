"""Fetching a directory: its tar stream is unpacked by someone who trusts nothing in it."""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path

import pytest
from aiohttp import web

from tests.meshctl.conftest import Meshctl
from tests.meshctl.fake_meshd import FakeMeshd

CONTENT = "/v1/pins/club/content"

Member = tuple[str, bytes | None] | tarfile.TarInfo


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.SYMTYPE
    member.linkname = target
    return member


def special(name: str, kind: bytes, **more: int | str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in more.items():
        setattr(member, key, value)
    return member


def archive(*members: Member) -> bytes:
    """A tar; (name, None) is a directory, (name, content) a file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.mode = 0o6777
            if content is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sends(meshd: FakeMeshd, data: bytes, *, cut: bool = False) -> None:
    """Answers with this archive; cut: and then goes away without the end of the body."""

    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {"Meshd-Kind": "directory", "Meshd-Name": "club", "Content-Type": "application/x-tar"}
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(data)
        if cut and request.transport is not None:
            request.transport.close()
        return response

    meshd.does("GET", CONTENT, handler)


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Everything below: bytes of files, targets of symlinks, None for directories."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


GOOD: list[Member] = [
    ("club", None),
    ("club/a", None),
    ("club/a/ä.txt", b"umlaut" * 100_000),
    ("club/empty", b""),
    ("club/hollow", None),
    link("club/a/up", "../empty"),
    link("club/latest", "a/ä.txt"),
]


async def test_a_directory_is_unpacked_as_it_was(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    sends(meshd, archive(*GOOD))
    result = await meshctl("get", "club")
    assert result.code == 0
    assert result.out == "got club/  600.0 kB\n"
    assert result.err == ""
    assert tree(meshctl.cwd) == {
        "club": None,
        "club/a": None,
        "club/a/up": "../empty",
        "club/a/ä.txt": b"umlaut" * 100_000,
        "club/empty": b"",
        "club/hollow": None,
        "club/latest": "a/ä.txt",
    }


async def test_modes_are_plain(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    plain = special("club/plain", tarfile.REGTYPE, mode=0o4600)
    sends(meshd, archive(("club", None), ("club/d", None), ("club/wild", b""), plain))
    assert (await meshctl("get", "club", umask=0o000)).code == 0
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in meshctl.cwd.rglob("*")}
    assert modes == {"club": 0o755, "d": 0o755, "wild": 0o755, "plain": 0o644}


async def test_it_can_have_another_name_here_but_not_a_taken_one(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    sends(meshd, archive(*GOOD))
    assert (await meshctl("get", "club", "-o", "other/")).code == 0
    assert (meshctl.cwd / "other" / "empty").exists()
    again = await meshctl("get", "club", "-o", "other")
    assert again.code == 1
    assert "cannot write other: it exists already" in again.err
    (meshctl.cwd / "club").mkdir()
    assert (await meshctl("get", "club")).code == 1
    assert tree(meshctl.cwd / "club") == {}


async def test_an_empty_directory_is_one(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    sends(meshd, archive(("club", None)))
    assert (await meshctl("get", "club")).code == 0
    assert tree(meshctl.cwd) == {"club": None}


async def test_a_dash_writes_the_tar_itself(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    data = archive(("club", None), ("club/a", b"a"))
    sends(meshd, data)
    result = await meshctl("get", "club", "-o", "-")
    assert result.code == 0
    assert result.out.encode() == data
    sends(meshd, data[:1024])
    assert (await meshctl("get", "club", "-o", "-")).code == 1


async def test_symlinks_that_lead_out_are_left_out_and_named(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    outside = ["/etc/passwd", "..", "../x", "d/../../x", "d/e/../../..", ""]
    links = [link(f"club/out{i}", target) for i, target in enumerate(outside)]
    sends(
        meshd,
        archive(("club", None), ("club/d", None), *links, link("club/d/in", "../d"), ("club/kept", b"k")),
    )
    result = await meshctl("get", "club")
    assert result.code == 0
    assert tree(meshctl.cwd / "club") == {"d": None, "d/in": "../d", "kept": b"k"}
    assert "note: left out out0, a symlink that leads out of it (to /etc/passwd)" in result.err
    assert result.err.count("note: ") == len(outside)


EVIL: dict[str, list[Member]] = {
    "a step up": [("club", None), ("club/../evil", b"x")],
    "only a step up": [("../evil", b"x")],
    "an absolute path": [("club", None), ("/tmp/meshctl-evil", b"x")],
    "beside the top": [("club", None), ("evil", b"x")],
    "a file as the top": [("club", b"x")],
    "a symlink as the top": [link("club", "/tmp"), ("club/evil", b"x")],
    "a write through a symlink": [
        ("club", None),
        ("club/d", None),
        link("club/s", "d"),
        ("club/s/evil", b"x"),
    ],
    "a write onto a symlink": [("club", None), link("club/s", "evil"), ("club/s", b"x")],
    "a directory onto a symlink": [("club", None), link("club/s", "."), ("club/s", None)],
    "a file twice": [("club", None), ("club/a", b"1"), ("club/a", b"2")],
    "a file in a file": [("club", None), ("club/a", b"1"), ("club/a/b", b"2")],
    "a missing folder": [("club", None), ("club/a/b", b"2")],
    "a hard link": [("club", None), special("club/h", tarfile.LNKTYPE, linkname="/etc/passwd")],
    "a device": [("club", None), special("club/d", tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "a FIFO": [("club", None), special("club/f", tarfile.FIFOTYPE)],
    "a sparse file": [("club", None), special("club/s", tarfile.GNUTYPE_SPARSE)],
    "nothing": [],
}


@pytest.mark.parametrize("what", EVIL)
async def test_an_archive_that_is_not_to_be_trusted_leaves_nothing(
    meshctl: Meshctl, meshd: FakeMeshd, what: str
) -> None:
    sends(meshd, archive(*EVIL[what]))
    result = await meshctl("get", "club")
    assert result.code == 1
    assert result.out == ""
    assert result.err.startswith("meshctl: cannot ")
    assert "nothing was left here" in result.err
    assert tree(meshctl.cwd) == {}
    assert not (meshctl.cwd.parent / "evil").exists()
    assert not Path("/tmp/meshctl-evil").exists()


def cuts() -> dict[str, bytes]:
    """Good archives that end too early, and one that was damaged."""
    whole = archive(("club", None), ("club/a", b"x" * 700), ("club/b", b"y" * 700))
    end = whole.index(b"y" * 700) + 1024
    return {
        "in a header": whole[:700],
        "behind a member": whole[: 512 + 512 + 1024],
        "in content": whole[: 512 + 512 + 300],
        "in padding": whole[: end - 100],
        "before the end mark": whole[:end],
        "in the midst of the end mark": whole[: end + 512],
        "just short of the end mark": whole[: end + 1023],
        "damaged": whole[:520] + b"\xff\xff" + whole[522:],
        "with something behind the end": whole + b"more",
    }


@pytest.mark.parametrize("where", list(cuts()))
@pytest.mark.parametrize("cut", [False, True])
async def test_an_archive_without_its_end_is_nothing(
    meshctl: Meshctl, meshd: FakeMeshd, where: str, cut: bool
) -> None:
    sends(meshd, cuts()[where], cut=cut)
    result = await meshctl("get", "club")
    assert result.code == 1, result
    assert "nothing was left here" in result.err
    assert tree(meshctl.cwd) == {}


async def test_zeros_in_a_file_are_no_end(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    whole = archive(("club", None), ("club/zeros", bytes(4096)))
    sends(meshd, whole[: 1024 + 4096])
    assert (await meshctl("get", "club")).code == 1
    sends(meshd, whole)
    assert (await meshctl("get", "club")).code == 0


async def test_the_smallest_end_is_enough(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    whole = archive(("club", None), ("club/a", b"x" * 512))
    sends(meshd, whole[: 1024 + 512 + 1024])
    assert (await meshctl("get", "club")).code == 0
