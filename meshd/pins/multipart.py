"""The validating multipart parser of an upload, which reads it while it is passed on to kubo.

kubo accepts much that is damaged, and silently drops what it cannot place. Measured on 0.43.0: of two files of one
name at the top the first is pinned apart and forgotten; a file below a symlink is left out; `/etc/passwd` becomes a
directory `etc`; what follows the closing boundary is ignored. The response to each is 200. So the form is checked
here, and an invalid one is refused before its end, without which kubo pins nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterator
from urllib.parse import unquote_to_bytes

from meshd.errors import Code, MeshError
from meshd.names import NAME_BYTES, has_unseen

AGAIN = "meshctl pin PATH"
NOTHING_KEPT = "nothing of it is kept"
_AS_ONE_FILE = "pin it as one file: tar -cf NAME.tar PATH; meshctl pin NAME.tar"
PATH_MOST = 4095  # bytes: PATH_MAX of Linux without its NUL; no longer path could be written out anywhere
DEPTH_MOST = 256  # names in a path: people's trees have dozens; each name is a directory more to remember, for kubo too
ENTRIES_MOST = 250_000
"""Files, symlinks and directories in one upload, including directories that only occur in a path. 100,000 small files
in directories of their own fit. One takes about 100 bytes until the upload ends (measured), so an upload 25 MB at
most.
"""
_HEAD_MOST = 16 * 1024  # bytes of a part's head; each byte of a path may be three there
_SHOWN_MOST = 200  # characters of a path in a message
_FILE_NAME = re.compile(rb'; *filename=(?:"((?:[^"\\]|\\.)*)"|([^\s";]+)) *(?:;|$)', re.IGNORECASE)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_DIRECTORY, _SYMLINK = "application/x-directory", "application/symlink"


class Form:
    """One multipart body. Counts while it is fed; raises MeshError as soon as kubo would not store all of it.

    size: bytes of files so far. files: regular files so far. directory: whether its single root is a directory. names:
    path segments so far, which is the cost of reading it beside its bytes.
    """

    def __init__(self, boundary: bytes, entries_most: int = ENTRIES_MOST) -> None:
        self.size = 0
        self.files = 0
        self.top = ""
        self.names = 0
        self._entries_most = entries_most
        # Digest of a path -> file, symlink, directory, or implied: a directory only named so far. Paths themselves would
        # take memory by the square of their depth. The key is secret, so that nobody can look for two of one digest.
        self._kinds: dict[bytes, str] = {}
        self._key = secrets.token_bytes(16)
        self._delimiter = b"\r\n--" + boundary
        self._rest = b"\r\n"  # so that the first boundary looks like the others
        self._kept_from = 0
        self._where: Callable[[bytes, int], int | None] = self._before
        self._counts = False  # whether the current part is a file

    @property
    def directory(self) -> bool:
        (digest,) = self._digests([self.top])
        return self._kinds.get(digest) in ("directory", "implied")

    @property
    def closed(self) -> bool:
        """Whether the closing boundary has come."""
        return self._where == self._after

    def feed(self, chunk: bytes) -> None:
        """Parse one chunk. Raises MeshError BAD_REQUEST, BAD_NAME."""
        data, at = self._rest + chunk, 0
        while (reached := self._where(data, at)) is not None:
            at = reached
        self._rest = data[self._kept_from :]

    def finish(self) -> None:
        """Check the end of the body. Raises MeshError UPLOAD_CUT_OFF before the form's end, BAD_REQUEST for no part."""
        if not self.closed:
            raise MeshError(
                Code.UPLOAD_CUT_OFF,
                "cannot pin that upload",
                f"it ended before its closing boundary; {NOTHING_KEPT}",
                AGAIN,
            )
        if not self.top:
            raise refused("it has no file in it")

    # -- states: each parses from `at`, and returns how far it got, or None where it needs more ----------------------

    def _before(self, data: bytes, at: int) -> int | None:
        if len(data) - at < len(self._delimiter) + 2:
            if not self._delimiter.startswith(data[at : at + len(self._delimiter)]):
                raise refused("it does not begin with the boundary that its Content-Type names")
            self._kept_from = at
            return None
        if not data.startswith(self._delimiter, at):
            raise refused("it does not begin with the boundary that its Content-Type names")
        return self._boundary(data, at)

    def _content(self, data: bytes, at: int) -> int | None:
        found = data.find(self._delimiter, at)
        if found < 0 or len(data) - found < len(self._delimiter) + 2:
            # What may be the beginning of a boundary waits for the next chunk.
            keep = found if found >= 0 else max(at, len(data) - len(self._delimiter) + 1)
            self._count(keep - at)
            self._kept_from = keep
            return None
        self._count(found - at)
        after = data[found + len(self._delimiter) :][:1]
        if after not in (b"\r", b"-", b" ", b"\t", b"\n"):  # longer than the boundary, so it is content
            self._count(len(self._delimiter))
            return found + len(self._delimiter)
        return self._boundary(data, found)

    def _boundary(self, data: bytes, at: int) -> int:
        end = at + len(self._delimiter) + 2
        what = data[end - 2 : end]
        if what == b"\r\n":
            self._where = self._head
            return end - 2  # with the line's end: a head of no lines ends at once
        if what != b"--":
            raise refused("a boundary in it is damaged")
        self._where = self._after
        return end

    def _head(self, data: bytes, at: int) -> int | None:
        end = data.find(b"\r\n\r\n", at, at + _HEAD_MOST)
        if end < 0:
            if len(data) - at >= _HEAD_MOST:
                raise refused(f"the head of a part in it is over {_HEAD_MOST} bytes")
            self._kept_from = at
            return None
        self._take(data[at:end])
        self._where = self._content
        return end + 4

    def _after(self, data: bytes, at: int) -> int | None:
        if data[at:].strip(b"\r\n"):
            raise refused("more follows its closing boundary")
        self._kept_from = len(data)
        return None

    def _count(self, size: int) -> None:
        if self._counts:
            self.size += size

    # -- the parts ---------------------------------------------------------------------------------------------------

    def _take(self, head: bytes) -> None:
        headers = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip()
        path = _path(headers.get(b"content-disposition", b""))
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
        if kind.startswith("multipart/"):
            raise refused(f"{_shown(path)} in it is a form itself")
        self._place(path, {_DIRECTORY: "directory", _SYMLINK: "symlink"}.get(kind, "file"))
        self._counts = kind not in (_DIRECTORY, _SYMLINK)
        self.files += self._counts

    def _place(self, path: str, kind: str) -> None:
        """Add a path to the tree so far, as kubo would. Raises where kubo would leave something out."""
        names = path.split("/")
        top = names[0]
        if self.top and top != self.top:
            raise refused(
                f"it has {_shown(self.top)} and {_shown(top)} at its top, and an entry is one file or directory"
            )
        self.top = top
        if kind == "symlink" and len(names) == 1:
            raise refused(f"{_shown(path)} is a symlink, and that alone cannot be kept")
        self.names += len(names)
        *above, own = self._digests(names)
        for depth, digest in enumerate(above, 1):
            if self._kinds.setdefault(digest, "implied") in ("file", "symlink"):
                higher = "/".join(names[:depth])
                raise refused(f"{_shown(path)} is below {_shown(higher)}, which is no directory")
        if self._kinds.get(own, "implied") != "implied" or (own in self._kinds and kind != "directory"):
            raise refused(f"{_shown(path)} is in it twice")
        self._kinds[own] = kind
        if len(self._kinds) > self._entries_most:
            raise refused(f"it has over {self._entries_most:,} files and directories in it", _AS_ONE_FILE)

    def _digests(self, names: list[str]) -> Iterator[bytes]:
        """The digests of each directory on the way, the top first, and of the whole path."""
        path = hashlib.blake2b(key=self._key, digest_size=16)
        for name in names:
            path.update(b"/" + name.encode())
            yield path.digest()


def refused(why: str, hint: str = AGAIN) -> MeshError:
    return MeshError(Code.BAD_REQUEST, "cannot pin that upload", f"{why}; {NOTHING_KEPT}", hint)


def _shown(path: str) -> str:
    """A path truncated for a message."""
    return ascii(path if len(path) <= _SHOWN_MOST else f"{path[:_SHOWN_MOST]}...")


def _path(disposition: bytes) -> str:
    """A part's path as kubo reads it, percent-decoded. Raises MeshError BAD_NAME for one that cannot be kept."""
    found = _FILE_NAME.search(disposition)
    if found is None or not disposition.lower().startswith(b"form-data"):
        raise refused("a part of it has no file name")
    raw = re.sub(rb"\\(.)", rb"\1", found[1]) if found[1] is not None else found[2]
    if not _BAD_ESCAPE.search(raw):  # else it is taken as it is
        raw = unquote_to_bytes(raw.replace(b"+", b" "))
    try:
        path = raw.decode()
    except UnicodeDecodeError:
        raise _bad_name(repr(raw)[1:], "is not UTF-8") from None
    if len(raw) > PATH_MOST:
        raise _too_deep(path, f"is longer than {PATH_MOST:,} bytes")
    names = path.split("/")
    if len(names) > DEPTH_MOST:
        raise _too_deep(path, f"has more than {DEPTH_MOST} names in it")
    if any(name in ("", ".", "..") for name in names):
        raise _bad_name(ascii(path), "is no path from the top of an entry")
    for name in names:
        if has_unseen(name):
            raise _bad_name(
                ascii(path), "has characters that do not show (control, direction or zero-width marks)"
            )
        if len(name) * 4 > NAME_BYTES and len(name.encode()) > NAME_BYTES:
            raise _bad_name(ascii(path), f"has a part of more than {NAME_BYTES} bytes")
    return path


def _too_deep(path: str, why: str) -> MeshError:
    detail = f"the path {_shown(path)} in it {why}; {NOTHING_KEPT}"
    return MeshError(Code.BAD_NAME, "cannot pin that upload", detail, _AS_ONE_FILE)


def _bad_name(shown: str, why: str) -> MeshError:
    detail = f"the name {shown[:300]} in it {why}; {NOTHING_KEPT}"
    return MeshError(Code.BAD_NAME, "cannot pin that upload", detail, f"rename it, then: {AGAIN}")
