"""Walks the tree to pin before a byte is sent: opens every file once, checks every size and name."""

from __future__ import annotations

import errno
import os
import stat

from meshctl import hints
from meshctl.errors import MeshctlError, usage
from meshctl.render import UNSEEN, safe

FILE = "file"
DIRECTORY = "directory"
SYMLINK = "symlink"
STDIN = "-"

NAME_BYTES = 255
PATH_BYTES = 4095  # these three are meshd's limits of one upload
DEPTH = 256
ENTRIES = 250_000
_PATH_SHOWN = 60  # characters of a long path, at both its ends
_SHOWN = 8  # problems to name; the rest is counted


class Part:
    """One part of the form. where: its path in the entry. path: its path here. target: of a symlink."""

    __slots__ = ("kind", "path", "size", "target", "where")  # a tree may have very many

    def __init__(self, kind: str, where: str, path: str, size: int = 0, target: bytes = b"") -> None:
        self.kind = kind
        self.where = where
        self.path = path
        self.size = size
        self.target = target

    @property
    def length(self) -> int:
        """The size of the part's body, in bytes."""
        return self.size if self.kind == FILE else len(self.target)


class Tree:
    """One entry to pin. A directory comes before its content.

    size: bytes; None where unknown. followed: the target of the path, if it is a symlink.
    """

    def __init__(
        self, name: str, directory: bool, parts: list[Part], size: int | None, followed: str = ""
    ) -> None:
        self.name = name
        self.directory = directory
        self.parts = parts
        self.size = size
        self.followed = followed

    @property
    def files(self) -> int:
        """The number of regular files, as the daemon counts."""
        return sum(part.kind == FILE for part in self.parts)

    @property
    def symlinks(self) -> int:
        """The number of symlinks that are kept as such."""
        return sum(part.kind == SYMLINK for part in self.parts)


def name_problem(name: str) -> str:
    """Why this cannot be a name in the mesh; "" if it can."""
    if name in {"", ".", ".."}:
        return "that is no name"
    if any("\udc80" <= character <= "\udcff" for character in name):
        return "its name is not valid UTF-8"
    if not (name.isascii() and name.isprintable()) and _has_unseen(name):
        return "its name has characters that cannot be seen"
    if "/" in name:
        return "a name cannot have a / in it"
    if len(name.encode()) > NAME_BYTES:
        return f"its name is longer than {NAME_BYTES} bytes"
    return ""


def _has_unseen(name: str) -> bool:
    import unicodedata

    return any(unicodedata.category(character) in UNSEEN for character in name)


def look(path: str, name: str | None) -> Tree:
    """Walk a path and open every file in it. Raises MeshctlError that names what cannot be pinned, and why.

    A symlink given as the path itself is followed; symlinks inside a directory are kept as they are.
    """
    if not path:  # else "$UNSET" would be the current folder
        raise usage("cannot pin a path without a name", "it is empty", "meshctl pin PATH")
    chosen = name if name is not None else os.path.basename(os.path.abspath(path))
    problem = name_problem(chosen)
    if problem:
        hint = hints.command("pin", path, "--name NAME") if name is None else "another --name"
        raise usage(f"cannot pin {safe(path)} as '{safe(chosen)}'", problem, hint)
    try:
        real = os.path.realpath(path, strict=True)
        status = os.lstat(real)
    except OSError as error:
        raise _not_there(path, error) from None
    walk = _Walk(path)
    walk.take(real, chosen, status)
    walk.check(path)
    size = sum(part.size for part in walk.parts)
    followed = real if os.path.islink(path.rstrip("/")) else ""
    return Tree(chosen, stat.S_ISDIR(status.st_mode), walk.parts, size, followed)


def standard_input(name: str | None) -> Tree:
    """The entry for standard input. Raises MeshctlError (usage) without a valid name."""
    if name is None:
        raise usage("cannot pin standard input", "it has no name", "meshctl pin - --name NAME")
    problem = name_problem(name)
    if problem:
        raise usage(f"cannot pin standard input as '{safe(name)}'", problem, "another --name")
    return Tree(name, False, [Part(FILE, name, STDIN)], None)


class _Walk:
    """Collects parts and problems, without recursion, as a tree may be deep."""

    def __init__(self, asked: str) -> None:
        """asked: the path as it was typed."""
        self.parts: list[Part] = []
        self._asked = asked
        self._found = 0
        self._problems: list[tuple[str, str]] = []

    def take(self, path: str, where: str, status: os.stat_result) -> None:
        waiting = [(path, where, status)]
        while waiting:
            path, where, status = waiting.pop()
            self._found += 1
            if self._found > ENTRIES:
                raise _too_much(self._asked, f"it has over {ENTRIES:,} files and directories in it")
            if where.count("/") >= DEPTH:
                raise _too_much(self._asked, f"{_short(where)} in it has more than {DEPTH} names in its path")
            if len(where.encode()) > PATH_BYTES:
                raise _too_much(
                    self._asked, f"the path {_short(where)} in it is longer than {PATH_BYTES:,} bytes"
                )
            if stat.S_ISDIR(status.st_mode):
                self.parts.append(Part(DIRECTORY, where, path))
                waiting.extend(reversed(self._children(path, where)))
            elif stat.S_ISREG(status.st_mode):
                self._file(path, where)
            elif stat.S_ISLNK(status.st_mode):
                self._symlink(path, where)
            else:
                self._refuse(path, f"it is a {_kind(status.st_mode)}, which cannot be kept")

    def check(self, path: str) -> None:
        """Raises MeshctlError with the problems that were found."""
        if not self._problems:
            return
        if len(self._problems) == 1:
            culprit, why = self._problems[0]
            raise MeshctlError(f"cannot pin {safe(culprit)}", f"{why}; nothing was sent", _hint(why, culprit))
        shown = [f"{safe(culprit)} ({why})" for culprit, why in self._problems[:_SHOWN]]
        if len(self._problems) > _SHOWN:
            shown.append(f"and {len(self._problems) - _SHOWN} more")
        detail = f"{len(self._problems)} things in it are in the way: {', '.join(shown)}; nothing was sent"
        raise MeshctlError(f"cannot pin {safe(path)}", detail, _hint(self._problems[0][1], path))

    def _children(self, path: str, where: str) -> list[tuple[str, str, os.stat_result]]:
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            self._refuse(path, error.strerror or str(error))
            return []
        children = []
        for entry in entries:
            problem = name_problem(entry.name)
            if problem:
                self._refuse(entry.path, problem)
                continue
            try:
                children.append((entry.path, f"{where}/{entry.name}", entry.stat(follow_symlinks=False)))
            except OSError as error:
                self._refuse(entry.path, error.strerror or str(error))
        return children

    def _file(self, path: str, where: str) -> None:
        try:
            # O_NONBLOCK: if a FIFO took the file's place, this must not wait for its writer.
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                size = os.fstat(file).st_size
            finally:
                os.close(file)
        except OSError as error:
            self._refuse(path, error.strerror or str(error))
        else:
            self.parts.append(Part(FILE, where, path, size))

    def _symlink(self, path: str, where: str) -> None:
        try:
            target = os.fsencode(os.readlink(path))
        except OSError as error:
            self._refuse(path, error.strerror or str(error))
        else:
            self.parts.append(Part(SYMLINK, where, path, target=target))

    def _refuse(self, path: str, why: str) -> None:
        self._problems.append((path, why))


def _too_much(path: str, why: str) -> MeshctlError:
    """The error for a tree beyond an entry's limits, with the hint to pin it as one file."""
    hint = f"pin it as one file: tar -cf NAME.tar {hints.path(path)}; meshctl pin NAME.tar"
    return MeshctlError(f"cannot pin {safe(path)}", f"{why}; nothing was sent", hint)


def _short(where: str) -> str:
    return safe(where if len(where) <= 2 * _PATH_SHOWN else f"{where[:_PATH_SHOWN]}...{where[-_PATH_SHOWN:]}")


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "FIFO"
    if stat.S_ISSOCK(mode):
        return "socket"
    return "device"


def _hint(why: str, path: str) -> str:
    if why == os.strerror(errno.EACCES):
        return f"sudo meshctl pin {hints.path(path)}   (or, if it is yours: chmod -R u+rX {hints.path(path)})"
    if "name" in why:
        return "rename it (mv), then the same again"
    if "which cannot be kept" in why:
        return "move it elsewhere, or pin its content: cat FILE | meshctl pin - --name NAME"
    return f"ls -l {hints.path(path)}"


def _not_there(path: str, error: OSError) -> MeshctlError:
    why, hint = error.strerror or str(error), "ls -l, and check how it is spelled"
    missing = isinstance(error, FileNotFoundError)
    if os.path.islink(path) and (missing or error.errno == errno.ELOOP):
        why = f"it is a symlink to {os.readlink(path)}, {'which is not there' if missing else 'which leads back to it'}"
        hint = f"ls -l {hints.path(path)}"
    elif not missing:
        hint = _hint(why, path)
    return MeshctlError(f"cannot pin {safe(path)}", f"{why}; nothing was sent", hint)
