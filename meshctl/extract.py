"""Unpacks the tar stream of a directory, which is untrusted.

It unpacks only regular files, directories and symlinks; only below the given directory; never through a symlink; with
no mode bits beyond 0644 and 0755; and only if the archive has its proper end, so that a truncated stream never passes
for a whole one.
"""

from __future__ import annotations

import os

from meshctl.errors import MeshctlError
from meshctl.render import safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable
    from typing import Protocol

    class Source(Protocol):
        """The interface of a byte stream."""

        def read(self, size: int, /) -> bytes: ...


CHUNK = 1 << 20
_END = 1024  # two blocks of zeros


class Extracted:
    """The result. skipped: symlinks that lead out of the tree, as (path, target)."""

    def __init__(self) -> None:
        self.files = 0
        self.size = 0
        self.skipped: list[tuple[str, str]] = []


class _Watched:
    """A stream that counts its bytes and the zeros at its end, which distinguish an archive's end from a truncation."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.count = 0
        self.zeros = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self.count += len(data)
        kept = len(data.rstrip(b"\0"))
        self.zeros = len(data) - kept + (self.zeros if kept == 0 else 0)
        return data


def extract(source: Source, directory: int, progress: Callable[[int], None]) -> Extracted:
    """Unpack into `directory` (a descriptor) what is below the archive's single top member.

    progress: called with the bytes of content so far. Raises MeshctlError for an archive that is broken, truncated or
    hostile, and OSError for what the file system refuses.
    """
    import tarfile
    from typing import IO, cast

    watched = _Watched(source)
    result = Extracted()
    try:
        with tarfile.open(fileobj=cast(IO[bytes], watched), mode="r|", bufsize=CHUNK) as archive:
            top: str | None = None
            while (member := archive.next()) is not None:
                # tarfile would keep every header, and a tree may have very many.
                archive.members.clear()  # type: ignore[attr-defined] # missing in typeshed
                names = _names(member)
                top = names[0] if top is None else top
                if names[0] != top or (len(names) == 1 and not member.isdir()):
                    raise _hostile(member.name, "is outside of the directory")
                _unpack(archive, member, names[1:], directory, result, progress)
            ended = archive.offset
        while watched.read(CHUNK):
            pass
    except (tarfile.TarError, ValueError):  # ValueError: numbers in headers that are none
        raise _cut() from None
    if top is None or not _END <= watched.count - ended <= watched.zeros:
        raise _cut()
    return result


def ends_properly(zeros: int) -> bool:
    """Whether a stream that ends in so many zeros may be complete."""
    return zeros >= _END


def _names(member: tarfile.TarInfo) -> list[str]:
    names = member.name.removesuffix("/").split("/")
    if any(name in {"", ".", ".."} or "\0" in name for name in names):
        raise _hostile(member.name, "is no path below a directory")
    return names


def _unpack(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    names: list[str],
    top: int,
    result: Extracted,
    progress: Callable[[int], None],
) -> None:
    """Unpack one member. names: its path below `top`; empty for the top member itself."""
    if not names:
        return
    parent = _open_parent(names, top, member.name)
    try:
        if member.isdir():
            _make_directory(names[-1], parent, member.name)
        elif member.issym():
            if _stays_inside(member.linkname, depth=len(names) - 1):
                _make_symlink(member, names[-1], parent)
            else:
                result.skipped.append(("/".join(names), member.linkname))
        elif member.isreg() and not member.issparse():
            _make_file(archive, member, names[-1], parent, result, progress)
        else:
            raise _hostile(member.name, "is neither a file, a directory nor a symlink")
    finally:
        os.close(parent)


def _open_parent(names: list[str], top: int, shown: str) -> int:
    """A descriptor of the last name's parent. Each step must be a real directory, unpacked before."""
    directory = os.dup(top)
    try:
        for name in names[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(name, flags, dir_fd=directory)
            os.close(directory)
            directory = below
    except (FileNotFoundError, NotADirectoryError):
        os.close(directory)
        raise _hostile(shown, "is in a place that is no directory of the archive") from None
    except BaseException:
        os.close(directory)
        raise
    return directory


def _make_directory(name: str, parent: int, shown: str) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        raise _hostile(shown, "is in the archive twice") from None


def _make_symlink(member: tarfile.TarInfo, name: str, parent: int) -> None:
    try:
        os.symlink(member.linkname, name, dir_fd=parent)
    except FileExistsError:
        raise _hostile(member.name, "is in the archive twice") from None


def _make_file(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    name: str,
    parent: int,
    result: Extracted,
    progress: Callable[[int], None],
) -> None:
    content = archive.extractfile(member)
    if content is None:
        raise _hostile(member.name, "has no content")
    mode = 0o755 if member.mode & 0o100 else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.open(name, flags, mode, dir_fd=parent)
    except FileExistsError:
        raise _hostile(member.name, "is in the archive twice") from None
    with open(file, "wb", buffering=0) as out:
        left = member.size
        while left:
            data = content.read(min(left, CHUNK))
            if not data:
                raise _cut()
            write_all(out.fileno(), data)
            left -= len(data)
            result.size += len(data)
            progress(result.size)
    result.files += 1


def write_all(file: int, data: bytes) -> None:
    """Write all of it, however little the kernel takes at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _stays_inside(target: str, depth: int) -> bool:
    """Whether a symlink, `depth` directories below the top, leads to a place in the tree.

    Steps up may only come first. After a name that is a symlink they would start from its target, and two harmless
    links could combine into one that leads out.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    steps = [step for step in target.split("/") if step not in {"", "."}]
    up = 0
    while up < len(steps) and steps[up] == "..":
        up += 1
    return up <= depth and ".." not in steps[up:]


def _hostile(name: str, why: str) -> MeshctlError:
    detail = f"the daemon's archive is not to be trusted: {safe(name)} {why}; nothing was left here"
    return MeshctlError("cannot write this directory", detail, "meshctl version, and report it")


def _cut() -> MeshctlError:
    detail = "the daemon's archive ends before its end; nothing was left here"
    return MeshctlError("cannot get all of it", detail, "the same again, or meshctl status")
