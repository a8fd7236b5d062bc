"""meshctl get: GET /v1/pins/{ref}/content."""

from __future__ import annotations

import sys

from meshctl import atomic_output, hints, refs, render
from meshctl.arguments import Arguments, Options
from meshctl.client import Client, route
from meshctl.errors import DONE, MeshctlError, interrupted, usage
from meshctl.extract import CHUNK, Extracted, ends_properly, extract, write_all
from meshctl.percent import unquote
from meshctl.response import CutOffError, ProtocolError, Response
from meshctl.walk import name_problem

STDOUT = "-"
NOTHING = "nothing was left here"
PARTLY = "what was written is not all of it"
TARGET_LIMIT = 4096  # bytes of a symlink's target: Linux allows no longer path


class Content:
    """The daemon's description of the content that it sends. size: bytes, where known."""

    def __init__(self, name: str, kind: str, size: int | None) -> None:
        self.name = name
        self.kind = kind  # file, directory or symlink, whose content is its target
        self.size = size

    @property
    def directory(self) -> bool:
        return self.kind == "directory"


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl get`."""
    parser.description = (
        "Write a kept file or directory here, under its name in the current folder or as PATH. Nothing is ever\n"
        "overwritten, and what cannot be had whole leaves nothing behind. `-o -` writes a file's bytes, or a\n"
        "directory as a tar archive, to standard output. Symlinks that lead out of a directory are left out and named;\n"
        "one that is asked for by its own path is not followed, but it is said where it leads."
    )
    parser.epilog = (
        "examples:\n"
        "  meshctl get minutes-1974.pdf\n"
        "  meshctl get photos/1974/may.jpg -o may.jpg\n"
        "  meshctl get photos -o - | tar t"
    )
    parser.add_argument(
        "ref", metavar="REF[/PATH]", help="a name, an older one (name@2) or a CID; and a path inside it"
    )
    parser.add_argument("-o", "--output", metavar="PATH", help="where to write; - is standard output")


def run(args: Options, client: Client) -> int:
    """Fetch one file or directory."""
    if args.output == STDOUT and args.json:
        raise usage("cannot write content and JSON to standard output", "", "one of -o - and --json")
    if args.output == "":
        raise usage("cannot write to a path without a name", "", hints.command("get", args.ref, "-o PATH"))
    if args.output not in {None, STDOUT}:
        atomic_output.free_or_refuse(_trimmed(args.output), args.ref)
    ref, path = refs.split(args.ref, "get")
    target = route("pins", ref, "content", query={"path": path})
    progress = render.Progress(args.ref, None)
    try:
        with client.open("GET", target) as response:
            content = _described(response, args.ref)
            if content.kind == "symlink":
                raise _symlink(args, ref, path, response)
            progress = render.Progress(content.name, content.size)
            if args.output == STDOUT:
                return _to_stdout(response, content)
            return _to_disk(response, content, args, progress)
    except KeyboardInterrupt:
        progress.clear()
        shown = render.safe(args.ref)
        left = PARTLY if args.output == STDOUT else NOTHING
        raise interrupted(f"cannot get {shown}", f"interrupted; {left}", "the same again") from None
    finally:
        progress.clear()


def _described(response: Response, asked: str) -> Content:
    name = unquote(response.header("Meshd-Name") or "")
    kind = response.header("Meshd-Kind") or "file"
    length = response.header("Content-Length")
    said = response.header("Meshd-Size")
    size = int(said) if said and said.isdecimal() else None
    if kind != "directory" and length and length.isdecimal():
        if size is not None and size != int(length):
            raise _short(asked, f"the daemon announced {size} bytes and then {length}")
        size = int(length)
    return Content(name or asked.rstrip("/").rpartition("/")[2], kind, size)


def _symlink(args: Options, ref: str, path: str, response: Response) -> MeshctlError:
    """The error for a symlink, whose own content, a path, is of no use."""
    target = b""
    while len(target) < TARGET_LIMIT and (data := _read(response, TARGET_LIMIT)):
        target += data
    to = target[:TARGET_LIMIT].decode(errors="surrogateescape")
    title = f"cannot get {render.safe(args.ref)}"
    inside = _inside(path, to)
    if inside is None:
        top = hints.command("ls", ref)
        return MeshctlError(
            title, f"it is a symlink to {render.safe(to)}, which is not in {render.safe(ref)}", top
        )
    options = f"-o {args.output if args.output == STDOUT else hints.path(args.output)}" if args.output else ""
    leads = hints.command("get", "/".join([ref, *inside]), options)
    return MeshctlError(title, f"it is a symlink to {render.safe(to)}", leads)


def _inside(path: str, target: str) -> list[str] | None:
    """Resolve a symlink at `path` to names from the top of the entry; None if it leads out of it."""
    if target.startswith("/"):
        return None
    place = [step for step in path.split("/") if step][:-1]
    for step in target.split("/"):
        if step == "..":
            if not place:
                return None
            place.pop()
        elif step not in {"", "."}:
            place.append(step)
    return place


def _to_disk(response: Response, content: Content, args: Options, progress: render.Progress) -> int:
    target = args.output and _trimmed(args.output)
    if target is None:
        problem = name_problem(content.name)
        if problem:
            raise MeshctlError(f"cannot write {content.name!r} here", problem, "the same with -o PATH")
        target = content.name
        atomic_output.free_or_refuse(target, args.ref)
    if content.directory:
        size = _directory(response, target, args.ref, progress)
    else:
        size = _file(response, target, args.ref, content, progress)
    progress.clear()
    if args.json:
        kind = "directory" if content.directory else "file"
        render.document({"path": target, "name": content.name, "kind": kind, "size": size})
    else:
        render.say(f"got {render.safe(target)}{'/' if content.directory else ''}  {render.size(size)}")
    return DONE


def _file(response: Response, target: str, ref: str, content: Content, progress: render.Progress) -> int:
    with atomic_output.new_file(target, ref) as file:
        got = 0
        while data := _read(response, CHUNK):
            write_all(file, data)
            got += len(data)
            progress.update(got)
        if content.size is not None and got != content.size:
            raise _short(content.name, f"{got} of {content.size} bytes came; {NOTHING}")
    return got


def _directory(response: Response, target: str, ref: str, progress: render.Progress) -> int:
    with atomic_output.new_directory(target, ref) as directory:
        extracted: Extracted = extract(_Body(response), directory, progress.update)
    progress.clear()
    for path, link in extracted.skipped:
        render.note(
            f"note: left out {render.safe(path)}, a symlink that leads out of it (to {render.safe(link)})"
        )
    return extracted.size


def _to_stdout(response: Response, content: Content) -> int:
    sys.stdout.flush()
    out = sys.stdout.fileno()
    got = zeros = 0
    while data := _read(response, CHUNK, PARTLY):
        try:
            write_all(out, data)
        except BrokenPipeError:
            raise  # the reader is gone, which is no failure
        except OSError as error:
            title, why = (
                f"cannot write {render.safe(content.name)} to standard output",
                error.strerror or str(error),
            )
            hint = "df -h, make room where its output goes, then the same again"
            raise MeshctlError(title, f"{why}; {PARTLY}", hint) from None
        got += len(data)
        kept = len(data.rstrip(b"\0"))
        zeros = len(data) - kept + (zeros if kept == 0 else 0)
    if content.directory and not ends_properly(zeros):
        raise _short(content.name, f"the archive ends before its end, after {got} bytes")
    if not content.directory and content.size is not None and got != content.size:
        raise _short(content.name, f"{got} of {content.size} bytes came")
    return DONE


class _Body:
    """The response as a byte stream that raises MeshctlError for failures."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def read(self, size: int, /) -> bytes:
        return _read(self._response, size)


def _read(response: Response, size: int, left: str = NOTHING) -> bytes:
    try:
        return response.read1(size)
    except (OSError, ProtocolError) as error:
        if isinstance(error, CutOffError) and response.header("Content-Length"):
            return b""  # whoever reads compares with that, and says how much came
        raise _short("all of it", f"the daemon went away in the midst of it; {left}") from None


def _short(name: str, why: str) -> MeshctlError:
    return MeshctlError(f"cannot get {render.safe(name)}", why, "the same again, or meshctl status")


def _trimmed(path: str) -> str:
    return path.rstrip("/") or "/"
