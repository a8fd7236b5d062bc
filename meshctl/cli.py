"""The parser, what becomes of errors, and the exit codes.

0 done, 1 failed, 2 usage, 3 daemon not reachable, 4 not found, 5 not permitted, 6 done but with fewer copies than
asked, 130 interrupted, 141 nobody reads what is printed.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import NoReturn, cast

from meshctl.errors import MeshctlError, interrupted, usage

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


class _Format(argparse.RawDescriptionHelpFormatter):
    """argparse's own, with a fixed width: to find it out it imports shutil, a tenth of our start-up time."""

    def __init__(self, prog: str) -> None:
        try:
            columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
        except (OSError, ValueError):
            columns = 80
        super().__init__(prog, width=max(40, min(columns, 110) - 2))


class Parser(argparse.ArgumentParser):
    """argparse, but it reports a wrong command line as a MeshctlError."""

    def error(self, message: str) -> NoReturn:
        raise usage("cannot understand the command", message, f"{self.prog} --help")


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return its exit code. Raises nothing but SystemExit of --help."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        _prepare()
        try:
            code = _run(arguments)
        except MeshctlError as error:
            code = _tell(error, as_json="--json" in _until_end(arguments))
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
    if None in {cast("object", sys.stdout), cast("object", sys.stderr)}:
        raise OSError(errno.EBADF, "standard output or standard error is closed")
    if cast("object", sys.stdin) is None:
        sys.stdin = os.fdopen(
            os.open(os.devnull, os.O_RDONLY)
        )  # also keeps the number 0 from the daemon's socket
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # every name must be printable in any locale
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # leave it where nohup ignores SIGHUP
            signal.signal(number, _terminated)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # undo what was begun, as for Ctrl-C


def _run(arguments: list[str]) -> int:
    before, verb, rest = _helped(*_split(arguments))
    top = _top_parser()
    chosen = top.parse_args(before)
    if verb is None:
        top.print_help()
        return 2
    summaries = {name: text for group in VERBS.values() for name, text in group.items()}
    if verb not in summaries:
        raise usage(f"cannot {verb}", "there is no such verb", _nearest(verb, list(summaries)))
    module = import_module(f"meshctl.commands.{verb}")
    parser = Parser(prog=f"meshctl {verb}", formatter_class=_Format, allow_abbrev=False)
    parser.description = summaries[verb]
    module.add_arguments(parser)
    _add_common(parser, chosen)
    options = _parse(parser, verb, rest)

    from meshctl.client import Client, socket_path  # after parsing: --help needs no http.client

    code: int = module.run(options, Client(socket_path(options.socket)))
    return code


def _parse(parser: Parser, verb: str, arguments: list[str]) -> argparse.Namespace:
    """Parse the options and names of one verb, in any order; after `--` everything is a name.

    parse_intermixed_args loses the `--`, each Python in its own way. So names after it that look like options pass
    through it with a NUL before them, which no argument can have.
    """
    options = _until_end(arguments)
    names = arguments[len(options) + 1 :]
    hidden = [f"\0{name}" if name.startswith("-") else name for name in names]
    try:
        parsed = parser.parse_intermixed_args([*options, *hidden])
    except MeshctlError as failure:
        raise _perhaps_a_name(failure, parser, verb, options) from None
    for key, value in vars(parsed).items():
        if isinstance(value, str):
            setattr(parsed, key, value.removeprefix("\0"))
        elif isinstance(value, list):
            setattr(parsed, key, [item.removeprefix("\0") for item in value])
    return parsed


def _perhaps_a_name(failure: MeshctlError, parser: Parser, verb: str, options: list[str]) -> MeshctlError:
    """The same failure; where an argument may be a name that begins with -, with a hint how to type it."""
    from meshctl.hints import command

    known = tuple(name for action in parser._actions for name in action.option_strings if len(name) == 2)
    takes_names = any(not action.option_strings for action in parser._actions)
    for word in options:
        if takes_names and len(word) > 2 and word[0] == "-" != word[1] and not word.startswith(known):
            failure.advise(f"{failure.hint}\n{command(verb, word)}   (if {word} is a name)")
            break
    return failure


def _until_end(arguments: list[str]) -> list[str]:
    """The arguments before the `--` that ends the options."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


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


def _top_parser() -> Parser:
    lines = ["verbs:"]
    for group in VERBS.values():
        lines += [f"  {name:<10} {text}" for name, text in group.items()] + [""]
    lines += [
        "example:",
        "  meshctl pin minutes-1974.pdf",
        "",
        "`meshctl help VERB` tells more about one verb. What stands behind -- is a name: meshctl rm -- -odd",
    ]
    parser = Parser(
        prog="meshctl",
        usage="meshctl [--socket PATH] VERB ...",
        description="Keep files together on a few private machines.",
        epilog="\n".join(lines),
        formatter_class=_Format,
        allow_abbrev=False,
    )
    _add_common(parser, None)
    parser.add_argument("--version", action="version", version=_version())
    return parser


def _add_common(parser: Parser, before: argparse.Namespace | None) -> None:
    """Add --socket and --json, which may come before the verb or after it."""
    parser.add_argument(
        "--socket",
        metavar="PATH",
        default=before.socket if before else None,
        help="the daemon's socket (default: $MESHD_SOCKET, else your own daemon's, else the system's)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        default=before.json if before else False,
        help="print the daemon's documents, one a line",
    )


def _version() -> str:
    from meshctl import __version__

    return f"meshctl {__version__}"


def _nearest(verb: str, verbs: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(verb, verbs, n=1)
    return f"meshctl {near[0]}" if near else "meshctl --help"


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
