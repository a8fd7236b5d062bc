"""Atomic output of what is fetched: a temporary sibling first, then a rename. It never overwrites anything."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager

from meshctl import hints
from meshctl.errors import MeshctlError
from meshctl.render import safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NAME_BYTES = 255  # the limit of file systems


def free_or_refuse(target: str, ref: str) -> None:
    """Raises MeshctlError if the name is taken, or if it cannot be made there. ref: what is fetched."""
    if os.path.lexists(target):
        other, name = "OTHER", ref.rstrip("/").rpartition("/")[2]
        if os.path.isdir(target) and os.path.basename(target) != name:
            other = hints.path(os.path.join(target, name))
        raise MeshctlError(
            f"cannot write {safe(target)}", "it exists already", hints.command("get", ref, f"-o {other}")
        )
    parent = os.path.dirname(target) or "."
    if os.path.lexists(parent) and not os.path.isdir(parent):
        raise MeshctlError(
            f"cannot write {safe(target)}",
            f"{safe(parent)} is no folder",
            hints.command("get", ref, "-o OTHER"),
        )
    if not os.path.isdir(parent):
        raise MeshctlError(
            f"cannot write {safe(target)}",
            f"there is no folder {safe(parent)}",
            f"mkdir -p {hints.path(parent)}",
        )


def sibling(target: str) -> str:
    """A temporary name beside the target, so that the last step is a rename on the same file system."""
    parent, name = os.path.split(target)
    suffix = f".meshctl-{os.urandom(4).hex()}"
    kept = os.fsencode(name)[: NAME_BYTES - len(suffix) - 1].decode(errors="ignore")
    return os.path.join(parent, f".{kept}{suffix}")


@contextmanager
def new_file(target: str, ref: str) -> Iterator[int]:
    """A file descriptor to write to. The file gets its name when the block ends well; else nothing is left.

    It is durable: the content before the name, and the name before this returns. Raises MeshctlError.
    """
    temporary = sibling(target)
    try:
        try:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                yield file
                os.fsync(file)
            finally:
                os.close(file)
            _name_file(temporary, target)
        finally:
            _discard_file(temporary)
        sync_parent(target)
    except OSError as error:
        raise cannot_write(target, ref, error) from None


@contextmanager
def new_directory(target: str, ref: str) -> Iterator[int]:
    """A descriptor of a new, empty directory. It gets its name at the end, or is removed, as with `new_file`."""
    temporary = sibling(target)
    try:
        try:
            os.mkdir(temporary, 0o700)  # closed to others until it is complete
            directory = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                yield directory
                os.fchmod(directory, 0o755 & ~_umask())
                _sync_file_system(directory)
            finally:
                os.close(directory)
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            # A rename to a name that was taken just now fails, unless it is an empty directory, which is no loss.
            os.rename(temporary, target)
        except BaseException:
            _discard_tree(temporary)
            raise
        sync_parent(target)
    except OSError as error:
        raise cannot_write(target, ref, error) from None


def cannot_write(target: str, ref: str, error: OSError) -> MeshctlError:
    """An OSError of writing what `ref` names, as an error for a person."""
    hint = hints.command("get", ref, "-o OTHER")
    if isinstance(error, FileExistsError):
        return MeshctlError(f"cannot write {safe(target)}", "it exists already", hint)
    if isinstance(error, PermissionError):
        return MeshctlError(f"cannot write {safe(target)}", "you may not write there", hint)
    if error.errno == errno.ENOSPC:
        hint = "df -h, make room, then the same again"
    return MeshctlError(
        f"cannot write {safe(target)}", f"{error.strerror or error}; nothing was left there", hint
    )


def sync_parent(target: str) -> None:
    """Make a new name survive a power cut."""
    parent = os.open(os.path.dirname(target) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _name_file(temporary: str, target: str) -> None:
    try:
        os.link(temporary, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}:
            raise
        # No hard links here (vfat, some network file systems): reserve the name first, then replace it.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.rename(temporary, target)


def _discard_file(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # it was renamed, or never made


def _discard_tree(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_file_system(directory: int) -> None:
    """Call syncfs once instead of an fsync a file: a tree may have very many."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(directory) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
