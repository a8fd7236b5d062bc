"""Writes docs/reference/ from the code, so that it cannot say anything else: `make docs`.

`python -m scripts.reference --check` writes nothing, names what has drifted, and exits 1 where something has.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args, get_origin
from unittest import mock

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import meshctl.cli
import meshctl.parser
from meshctl.arguments import Arguments
from meshctl.errors import MeshctlError
from meshd import __main__ as daemon_command
from meshd import files
from meshd.component import Component
from meshd.config import Config, parse
from meshd.control.server import described, whole
from meshd.errors import Code, MeshError
from meshd.http.route import Route
from meshd.node import Node

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
_HEAD = "<!-- Made from the code; to make it again, type: make docs -->\n"


def routes() -> list[Route]:
    """The control API; its handlers can be looked at, not called."""
    return whole(route for component in components() for route in component.routes)


def peer_routes() -> list[Route]:
    """The peer API, as `routes`."""
    return [route for component in components() for route in component.peer_routes]


@functools.cache
def components() -> tuple[Component, ...]:
    """Those of a node that was built with the configuration's defaults, and does not run."""
    with tempfile.TemporaryDirectory() as folder:
        settings = parse(f'[paths]\nstate = "{folder}/s"\nrun = "{folder}/r"\n', "the reference")
        files.prepare_folders(settings.state, settings.paths.run, settings.private_sockets)
        made = Node(settings).components
        for component in made:
            component.release()
    return made


# -- the command line ----------------------------------------------------------------------------------------------


def verb_parser(verb: str) -> argparse.ArgumentParser:
    """What `meshctl VERB` understands, without the options that all verbs have."""
    declared = Arguments()
    import_module(f"meshctl.commands.{verb}").add_arguments(declared)
    return meshctl.parser.verb_parser(verb, declared, "", add_help=False)


def _spelled(action: argparse.Action) -> str:
    """`--name NAME`, `-o PATH, --output PATH`, or a positional's own name."""
    if not action.option_strings:
        return _metavar(action)
    value = "" if action.nargs == 0 else f" {_metavar(action)}"
    return ", ".join(f"{option}{value}" for option in action.option_strings)


def _metavar(action: argparse.Action) -> str:
    return str(action.metavar or action.dest.upper())


def _in_usage(action: argparse.Action) -> str:
    if action.option_strings:
        value = "" if action.nargs == 0 else f" {_metavar(action)}"
        return f"[{action.option_strings[-1]}{value}]"
    name = _metavar(action)
    return {"*": f"[{name} ...]", "+": f"{name} ...", "?": f"[{name}]"}.get(str(action.nargs), name)


def _about_verb(verb: str, summary: str) -> Iterator[str]:
    parser = verb_parser(verb)
    actions = [action for action in parser._actions if action.help is not argparse.SUPPRESS]
    options = [action for action in actions if action.option_strings]
    names = [action for action in actions if not action.option_strings]
    yield f"### meshctl {verb}\n"
    yield f"{parser.description or summary}\n"
    usage = " ".join(["meshctl", verb, *map(_in_usage, [*options, *names])])
    yield f"```text\n{usage}\n```\n"
    if actions:
        yield "| | |\n| --- | --- |"
        for action in [*names, *options]:
            text = (action.help or "") % {**vars(action), "prog": parser.prog}
            yield f"| `{_cell(_spelled(action))}` | {_cell(text)} |"
        yield ""
    for group in parser._mutually_exclusive_groups:
        listed = ", ".join(f"`{action.option_strings[-1]}`" for action in group._group_actions)
        yield f"Only one of {listed}.\n"
    if parser.epilog:
        yield f"```text\n{parser.epilog}\n```\n"


def _daemon_help(*arguments: str) -> str:
    """What `meshd ... --help` prints on a terminal of 80 columns."""
    printed = io.StringIO()
    terminal = mock.patch.dict(os.environ, COLUMNS="80")
    with terminal, contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        daemon_command.main([*arguments, "--help"])
    return printed.getvalue().strip()


def exit_codes() -> list[tuple[str, str]]:
    """Of meshctl: number and meaning."""
    found: list[tuple[str, str]] = re.findall(
        r"(\d+) ([^,.]+)[,.]", " ".join((meshctl.cli.__doc__ or "").split())
    )
    return found


def cli() -> str:
    """docs/reference/cli.md"""
    codes = exit_codes()
    lines = [
        _HEAD,
        "# Commands\n",
        "`meshctl` is the client; `meshd` is the daemon. `meshctl` alone lists its verbs, and `meshctl VERB --help` tells",
        "what stands here.\n",
        "## All verbs\n",
        "Every verb takes these, before its name or after it:\n",
        "| | |\n| --- | --- |",
        "| `--socket PATH` | the daemon's socket; without it `$MESHD_SOCKET`, else `$XDG_RUNTIME_DIR/meshd/meshd.sock` where"
        " there is one and you are not root, else `/run/meshd/meshd.sock` |",
        "| `--json` | print the daemon's documents, one a line; their shapes are in [openapi.json](openapi.json) |",
        "| `--help` | tell about the verb |\n",
        "What is asked for goes to standard output; progress, notes and errors go to standard error.\n",
        "| exit code | |\n| --- | --- |",
        *(f"| {number} | {' '.join(text.split())} |" for number, text in codes),
        "",
    ]
    for group, verbs in meshctl.cli.VERBS.items():
        lines.append(f"## Verbs about {'the ' if group != 'files' else ''}{group}\n")
        for verb, summary in verbs.items():
            lines += _about_verb(verb, summary)
    lines.append("## The daemon\n")
    for arguments in ((), *((verb,) for verb in daemon_command.VERBS)):
        lines.append(f"```text\n{_daemon_help(*arguments)}\n```\n")
    lines.append(
        "Exit codes: 0 done, 1 failed, 2 usage or configuration. SIGTERM and SIGINT stop it in order.\n"
    )
    return "\n".join(lines)


# -- the configuration ---------------------------------------------------------------------------------------------

_KINDS: dict[str, str] = {
    "parse_size": 'size: `"5GiB"`, `"1TB"`, or bytes',
    "optional_size": 'size, or `""`',
    "parse_duration": 'duration: `"30d"`, `"12h"`, `"10m"`, `"90s"`, or seconds',
    "_replicas": 'whole number from 1, or `"all"`',
    "loopback_port": 'loopback address and port, or `""`',
}


def _kind(field: FieldInfo) -> str:
    """What a value must be, for a person."""
    for validator in field.metadata:
        name = getattr(getattr(validator, "func", None), "__name__", "")
        if name in _KINDS:
            return _KINDS[name]
    if get_origin(field.annotation) is Literal:
        return " or ".join(f'`"{value}"`' for value in get_args(field.annotation))
    if field.annotation is bool:
        return "`true` or `false`"
    if get_origin(field.annotation) is list:
        return "list of texts"
    if field.annotation is int:
        bounds = {type(bound).__name__: bound for bound in field.metadata}
        return f"whole number from {bounds['Ge'].ge} to {bounds['Le'].le}"
    return "path" if "Path" in str(field.annotation) else "text"


_SIZES = (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024), ("", 1))
_SPANS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def _in_units(value: float, units: tuple[tuple[str, int], ...]) -> str:
    """In the largest unit of which it is a whole number."""
    unit, one = next(found for found in units if value % found[1] == 0)
    return f"{value / one:.0f}{unit}"


def _default(field: FieldInfo) -> str:
    """The default as TOML; "" where it depends on the machine or the key is left out."""
    kind, value = _kind(field), field.default
    if field.is_required():
        return ""
    if field.default_factory is not None or (value is None and "size" not in kind):
        return ""
    if value is None:
        return '""'
    if kind.startswith("size"):
        return f'"{_in_units(value, _SIZES)}"'
    if kind.startswith("duration"):
        return f'"{_in_units(value, _SPANS)}"'
    if isinstance(value, bool):
        return json.dumps(value)
    return str(value) if isinstance(value, int) else json.dumps(str(value))


def section_in(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a key that is a section, or a list of sections, of its own."""
    inner = get_args(field.annotation)[0] if get_origin(field.annotation) is list else field.annotation
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def sections(model: type[BaseModel] = Config, under: str = "") -> Iterator[tuple[str, type[BaseModel], bool]]:
    """Name, model, and whether there may be many of it."""
    for name, field in model.model_fields.items():
        section = section_in(field)
        if section is not None:
            yield f"{under}{name}", section, get_origin(field.annotation) is list
            yield from sections(section, f"{under}{name}.")


def config() -> str:
    """docs/reference/config.md"""
    lines = [
        _HEAD,
        "# The configuration file\n",
        "`meshd run` and `meshd check` read the file that `--config` names, else `/etc/meshd/meshd.toml` where there is one.",
        "It is [TOML](https://toml.io). No file is needed: every key has a default. A key or section that is not in this list",
        "is refused, with its name. `meshd check --config FILE` prints the effective configuration, or every mistake in it.",
        f"A change takes effect when the daemon is started again; of {', '.join(f'`{key}`' for key in daemon_command.RELOADED)}"
        " already at `systemctl reload meshd`.\n",
    ]
    example = []
    for name, model, many in sections():
        about = (model.__doc__ or "").partition("]")[2].strip("], :")
        heading, mute = (f"[[{name}]]", "# ") if many else (f"[{name}]", "")
        lines.append(f"## {heading}\n")
        if about:
            lines.append(f"{about[0].upper()}{about[1:]}.\n")
        lines.append("| key | type | default | |\n| --- | --- | --- | --- |")
        example.append(f"{mute}{heading}")
        for key, field in model.model_fields.items():
            if section_in(field) is not None:
                continue  # it has a heading of its own
            default = _default(field)
            shown = f"`{default}`" if default else "–"
            lines.append(f"| `{key}` | {_cell(_kind(field))} | {shown} | {_cell(field.description or '')} |")
            example.append(f"{mute}{key} = {default}" if default else f"# {key}: {field.description}")
        lines.append("")
        example.append("")
    lines += ["## All of it\n", "The whole file with its defaults:\n", "```toml", *example[:-1], "```", ""]
    return "\n".join(lines)


# -- errors and conditions -----------------------------------------------------------------------------------------

MEANING: dict[Code, str] = {
    Code.BAD_REQUEST: "the request makes no sense: a value, a shape, a reference to this node itself",
    Code.BAD_CONFIG: "the configuration file cannot be used; each key that is wrong is named with what was expected",
    Code.BAD_NAME: "a name of a node, a mesh or an entry that cannot be shown or written safely",
    Code.BAD_INVITE: "the line is no invite, was damaged on the way, was revoked, or is unknown to its issuer",
    Code.INVITE_EXPIRED: "its time is over",
    Code.INVITE_USED: "another node has joined with it",
    Code.UPLOAD_CUT_OFF: "an upload ended before its end; nothing was kept",
    Code.UPLOAD_MISMATCH: "another number of bytes or files came than the client had announced; nothing was kept",
    Code.DENIED: "the caller may not: another user, a stranger, a supervised program; or the system forbids what meshd needs to run",
    Code.NOT_OWNER: "only the node that brought an entry may ask that",
    Code.NOT_FOUND: "there is no such entry, node, invite, service or route",
    Code.NO_MESH: "this node is in no mesh yet",
    Code.IN_OTHER_MESH: "this node is in a mesh already",
    Code.NAME_TAKEN: "another member has that name; the invite is still good",
    Code.LAST_COPY: "content would be lost, as no other node that can be reached and stays holds it",
    Code.FEWER_COPIES: "nothing would be lost, but fewer copies than wanted would be left",
    Code.FORGOTTEN: "the mesh has forgotten this node, for good",
    Code.BUSY: "the same is under way already, or a port is taken, or too many ask at once",
    Code.DISK_FLOOR: "the disk is at the floor that `[storage] reserve` keeps",
    Code.NOT_READY: "the daemon or an engine is starting, stopping or too slow; try again",
    Code.OPERATION_INTERRUPTED: "what takes long did not come to its end, as meshd was stopped or whoever began it went away;"
    " what became of it is said",
    Code.NO_OVERLAY: "this machine has no address on the private network now",
    Code.PEER_UNREACHABLE: "another node does not answer, or somebody else does",
    Code.BAD_STATE: "a file or folder of the daemon's own cannot be used; it is named, and never replaced by guessing",
    Code.ENGINE_MISSING: "`ipfs` or `ipfs-cluster-service` is not there, or in a version that meshd is not made for",
    Code.ENGINE_FAILED: "kubo or the cluster failed; its own words are given",
    Code.INTERNAL: "a mistake in meshd; the details are in its log",
}


def errors() -> str:
    """docs/reference/errors.md"""
    lines = [
        _HEAD,
        "# Errors\n",
        "Whatever fails is one of these codes; the prose beside it may change, the codes do not. `meshctl` prints what cannot",
        "be done, why, and behind `try:` what to type. On the socket an error is an RFC 9457 problem document",
        "(`application/problem+json`) with two more members, `code` and `hint`; in a stream it is the last line, with",
        '`"event": "error"`.\n',
        "| code | HTTP | `meshctl` exits | |\n| --- | --- | --- | --- |",
    ]
    for code in sorted(Code):
        status, exits = MeshError(code, "").status, MeshctlError("", code=str(code)).exit_code
        lines.append(f"| `{code}` | {status} | {exits} | {MEANING[code]} |")
    return "\n".join([*lines, ""])


_FIELDS = ("code", "severity", "title", "cause", "hint", "subject")
_ERROR_FIELDS = ("code", "title", "cause", "hint")


@dataclass(frozen=True)
class Said:
    """One place that raises a condition. Words in braces are filled in when it runs."""

    code: str
    severity: str
    title: str
    cause: str
    hint: str
    file: Path


def conditions() -> dict[str, list[Said]]:
    """Every `Condition(...)` of the daemon's sources, by code."""
    found: dict[str, list[Said]] = {}
    for file in sorted((ROOT / "meshd").rglob("*.py")):
        tree = ast.parse(file.read_text())
        constants = _constants(tree)
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                raised: list[tuple[ast.Call, tuple[str, ...]]] = [
                    (call, _FIELDS) for call in _calls(function, "Condition")
                ]
                raised += [(call, _ERROR_FIELDS) for call in _calls(function, "ZeroTierError")]
                for call, fields in raised:
                    given: dict[str, ast.expr] = {"severity": ast.Constant("error")}
                    given |= dict(zip(fields, call.args, strict=False))
                    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
                    if not isinstance(given.get("code"), ast.Constant):
                        continue  # a copy of one that was raised elsewhere
                    for names in _fillings(tree, function, given["title"]):
                        text = {key: _text(node, constants | names) for key, node in given.items()}
                        severity = text["severity"].strip("{}").rpartition(".")[2].lower()
                        said = Said(
                            text["code"],
                            severity,
                            text["title"],
                            text.get("cause", ""),
                            text.get("hint", ""),
                            file,
                        )
                        found.setdefault(said.code, []).append(said)
    return dict(sorted(found.items()))


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """The module's names for a text or a number, and what they stand for."""
    return {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def _fillings(
    tree: ast.Module, function: ast.FunctionDef | ast.AsyncFunctionDef, title: ast.expr
) -> list[dict[str, ast.expr]]:
    """What a function that only passes its arguments on is called with, call by call; nothing for others."""
    parameters = [argument.arg for argument in function.args.args]
    if not (isinstance(title, ast.Name) and title.id in parameters):
        return [{}]
    return [dict(zip(parameters, call.args, strict=False)) for call in _calls(tree, function.name)]


def _text(node: ast.expr, names: dict[str, ast.expr]) -> str:
    """A message as the sources have it; what is filled in stands in braces, by its last name."""
    if isinstance(node, ast.Name) and node.id in names:
        return _text(names[node.id], {})
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, names) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, names)
    while isinstance(node, (ast.Call, ast.BoolOp)):
        node = node.args[0] if isinstance(node, ast.Call) else node.values[0]
    return f"{{{ast.unparse(node).rpartition('.')[2]}}}"


def conditions_page() -> str:
    """docs/reference/conditions.md"""
    lines = [
        _HEAD,
        "# Conditions\n",
        "What is true about a node's health. `meshctl status` shows those that hold, worst first; `meshctl watch` tells when",
        'one comes and when it goes; in `/metrics` each is `meshd_condition{code="…",severity="…",subject="…"} 1`. A condition',
        "goes by itself when its cause does. Words in braces stand for what is put there.",
        "[Read what is wrong](../how-to/read-what-is-wrong.md) says what to do about each.\n",
    ]
    for code, said in conditions().items():
        lines.append(f"## {code}\n")
        for one in said:
            lines += _about_condition(one)
    return "\n".join(lines)


def _about_condition(said: Said) -> Iterator[str]:
    yield f"{said.severity}: **{said.title}**\n"
    if said.cause:
        yield f"- cause: {said.cause}"
    if said.hint:
        yield f"- try: {said.hint}"
    yield f"- where: `{said.file.relative_to(ROOT)}`\n"


# -- all of them ---------------------------------------------------------------------------------------------------


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def openapi_document() -> str:
    """docs/reference/openapi.json"""
    return json.dumps(described(routes()), indent=2, ensure_ascii=False) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli,
    "config.md": config,
    "openapi.json": openapi_document,
    "conditions.md": conditions_page,
    "errors.md": errors,
}


def drifted(folder: Path = FOLDER) -> list[str]:
    """The pages that say something else than the code."""
    found = []
    for name, make in PAGES.items():
        page = folder / name
        if not page.is_file() or page.read_text() != make():
            found.append(name)
    return found


def write(names: Iterable[str], folder: Path = FOLDER) -> None:
    """Make these pages anew."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(PAGES[name]())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts.reference", description="write docs/reference/ from the code"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page has drifted")
    options = parser.parse_args(arguments)
    names = drifted()
    if not options.check:
        write(names)
        for name in names:
            print(f"wrote docs/reference/{name}")
        return 0
    for name in names:
        print(f"docs/reference/{name} does not say what the code does; type: make docs", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
