"""The command line by argparse: help, the wording of every mistake, and every form that an option can have.

Loaded only where meshctl.arguments does not understand what was typed: argparse takes as long as Python's own start.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, NoReturn

from meshctl.arguments import Arguments, BadValueError, Options, before_end, declare_common
from meshctl.errors import MeshctlError, usage

if TYPE_CHECKING:
    from meshctl.arguments import Convert


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


def verb_parser(verb: str, declared: Arguments, summary: str, *, add_help: bool = True) -> Parser:
    """argparse's parser of what a verb declares, without the options that all verbs have."""
    parser = Parser(
        prog=f"meshctl {verb}",
        description=declared.description or summary,
        epilog=declared.epilog or None,
        formatter_class=_Format,
        allow_abbrev=False,
        add_help=add_help,
    )
    _declare(parser, declared)
    return parser


def _declare(parser: Parser, declared: Arguments) -> None:
    groups: dict[int, argparse._MutuallyExclusiveGroup] = {}
    for one in declared.declared:
        how = dict(one.how)
        if "type" in how:
            how["type"] = _as_argparse_wants(how["type"])
        if one.group is None:
            parser.add_argument(*one.names, **how)
            continue
        if one.group not in groups:
            groups[one.group] = parser.add_mutually_exclusive_group()
        groups[one.group].add_argument(*one.names, **how)


def _as_argparse_wants(convert: Convert) -> Convert:
    def converted(text: str) -> object:
        try:
            return convert(text)
        except BadValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converted


def parse(parser: Parser, verb: str, arguments: list[str]) -> Options:
    """Parse the options and names of one verb, in any order; after `--` everything is a name.

    parse_intermixed_args loses the `--`, each Python in its own way. So names after it that look like options pass
    through it with a NUL before them, which no argument can have.
    """
    options = before_end(arguments)
    names = arguments[len(options) + 1 :]
    hidden = [f"\0{name}" if name.startswith("-") else name for name in names]
    try:
        parsed = parser.parse_intermixed_args([*options, *hidden], Options())
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


def top_parser(verbs: dict[str, dict[str, str]]) -> Parser:
    """The parser of what stands before a verb, with the help that lists all verbs."""
    lines = ["verbs:"]
    for group in verbs.values():
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
    common = Arguments()
    declare_common(common)
    _declare(parser, common)
    parser.add_argument("--version", action="version", version=_version())
    return parser


def _version() -> str:
    from meshctl import __version__

    return f"meshctl {__version__}"


def no_such_verb(verb: str, verbs: list[str]) -> MeshctlError:
    """The error for a verb that is none, with the one that is spelled most like it."""
    from difflib import get_close_matches

    near = get_close_matches(verb, verbs, n=1)
    hint = f"meshctl {near[0]}" if near else "meshctl --help"
    return usage(f"cannot {verb}", "there is no such verb", hint)
