"""The verbs, what becomes of errors, and the exit codes.

0 done, 1 failed, 2 usage, 3 daemon not reachable, 4 not found, 5 not permitted, 6 done but with fewer copies than
asked, 130 interrupted, 141 nobody reads what is printed.
"""

from __future__ import annotations

import errno
import os
import sys

from meshctl.arguments import Arguments, Options, before_end, declare_common, read
from meshctl.errors import MeshctlError, interrupted
from meshctl.interpreter import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

BROKEN_PIPE = 141  # 128 + SIGPIPE, the exit code of a program that does not catch the signal

# Each verb is the module of its name in meshctl.commands.
VERBS: dict[str, dict[str, str]] = {
    "mesh": {
        "init": "start a mesh with this node as its first",
        "invite": "print the line that admits one more node",
        "join": "join a mesh with an invite, or by its ZeroTier network",
        "requests": "list the nodes that ask to be let in",
        "approve": "let a node in that asks",
        "leave": "take this node out of its mesh",
        "peers": "list the nodes of the mesh, or say where one is now",
        "forget": "shut a node out of the mesh",
    },
    "files": {
        "pin": "keep files and directories in the mesh",
        "ls": "list what is kept, or what is inside it",
        "get": "write a kept file or directory here",
        "rm": "stop keeping something",
        "trash": "list what was removed and can come back",
        "restore": "bring something back from the trash",
    },
    "node": {
        "status": "how this node and its mesh are",
        "doctor": "look at every rule that keeps the mesh private and whole",
        "watch": "print what happens, as it happens",
        "operations": "list what takes long, or follow one of them again",
        "logs": "print what a service logged",
        "version": "print the versions of client and daemon",
    },
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return its exit code. Raises nothing but SystemExit of --help."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        _prepare()
        try:
            code = _run(arguments)
        except MeshctlError as error:
            code = _tell(error, as_json="--json" in before_end(arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return _tell(interrupted("cannot go on", "interrupted"), as_json=False)
    except OSError as error:
        _drop_output()
        return _tell(_no_output(error), as_json=False)
    except Exception as error:  # noqa: BLE001 - a traceback never reaches a person
        return _tell(_bug(error), as_json=False)


def _prepare() -> None:
    streams: list[object] = [sys.stdin, sys.stdout, sys.stderr]
    if None in streams[1:]:
        raise OSError(errno.EBADF, "standard output or standard error is closed")
    if streams[0] is None:
        sys.stdin = os.fdopen(
            os.open(os.devnull, os.O_RDONLY)
        )  # also keeps the number 0 from the daemon's socket
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # every name must be printable in any locale
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # leave it where nohup ignores SIGHUP
            signal.signal(number, _terminated)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # undo what was begun, as for Ctrl-C


def _run(arguments: list[str]) -> int:
    before, verb, rest = _helped(*_split(arguments))
    options = _understood(before, verb, rest) or _understood_slowly(before, verb, rest)
    if options is None or verb is None:
        return 2

    from meshctl.client import Client, socket_path  # after parsing: --help needs no client

    code: int = _command(verb).run(options, Client(socket_path(options.socket)))
    return code


def _understood(before: list[str], verb: str | None, rest: list[str]) -> Options | None:
    """The command line, where it is plainly right; None where argparse must look at it."""
    if verb is None or verb not in _summaries():
        return None
    common = Arguments()
    declare_common(common)
    chosen = read(common, before)
    if chosen is None:
        return None
    return read(_declared(verb, chosen), rest)


def _understood_slowly(before: list[str], verb: str | None, rest: list[str]) -> Options | None:
    """The command line as argparse understands it; None after the help of meshctl itself. Raises MeshctlError."""
    from meshctl import parser

    top = parser.top_parser(VERBS)
    chosen = top.parse_args(before, Options())
    if verb is None:
        top.print_help()
        return None
    summaries = _summaries()
    if verb not in summaries:
        raise parser.no_such_verb(verb, list(summaries))
    return parser.parse(parser.verb_parser(verb, _declared(verb, chosen), summaries[verb]), verb, rest)


def _summaries() -> dict[str, str]:
    return {name: text for group in VERBS.values() for name, text in group.items()}


def _command(verb: str) -> Any:
    """The module of a verb. importlib, which does the same, takes longer to load than most of these."""
    name = f"meshctl.commands.{verb}"
    __import__(name)
    return sys.modules[name]


def _declared(verb: str, before: Options) -> Arguments:
    declared = Arguments()
    _command(verb).add_arguments(declared)
    declare_common(declared, before)
    return declared


def _split(arguments: list[str]) -> tuple[list[str], str | None, list[str]]:
    """The arguments before the verb, the verb, and those after it."""
    i = 0
    while i < len(arguments) and arguments[i].startswith("-"):
        i += 2 if arguments[i] == "--socket" else 1
    verb = arguments[i] if i < len(arguments) else None
    return arguments[:i], verb, arguments[i + 1 :]


def _helped(before: list[str], verb: str | None, rest: list[str]) -> tuple[list[str], str | None, list[str]]:
    """`help VERB` as `VERB --help`, and `help` alone as `--help`."""
    if verb != "help":
        return before, verb, rest
    return (before, rest[0], ["--help"]) if rest else ([*before, "--help"], None, [])


def _tell(failure: MeshctlError, as_json: bool) -> int:
    from meshctl import render

    return render.tell(failure, as_json)


def _no_output(error: OSError) -> MeshctlError:
    """The error for output that cannot be written. Every other OSError is handled where it occurs."""
    full = error.errno == errno.ENOSPC
    hint = "df -h, make room where its output goes" if full else "look where its output goes"
    return MeshctlError("cannot go on", error.strerror or str(error), f"{hint}, then the same again")


def _bug(error: Exception) -> MeshctlError:
    """The error for a bug in meshctl. MESHCTL_DEBUG shows the stack trace."""
    if os.environ.get("MESHCTL_DEBUG"):
        import traceback

        traceback.print_exception(error)
    detail = f"{type(error).__name__}: {error}"
    return MeshctlError(
        "cannot go on", f"a mistake in meshctl ({detail})", "MESHCTL_DEBUG=1 meshctl …   and report it"
    )


def _drop_output() -> None:
    """Discard buffered output that cannot be written, so that Python does not complain again at exit."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
    except OSError:
        pass  # then there is nothing to discard
