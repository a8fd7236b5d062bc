"""Completions of meshctl for bash, zsh and fish, written from its parsers: verbs, options, and file names."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable

import meshctl.cli
import meshctl.commands.logs
from scripts import reference

Made = Callable[[], str]
COMMON = {
    "--socket": "the daemon's socket",
    "--json": "print the daemon's documents",
    "--help": "tell about the verb",
}
AT_THE_TOP = COMMON | {"--version": "print the version"}  # with no verb
TAKES_FILES = ("pin",)  # its names are paths; the others' are of the mesh
WORDS = {"logs": meshctl.commands.logs.SERVICES, "peers": ("set",)}  # what else can stand behind a verb


def verbs() -> dict[str, str]:
    return {verb: summary for group in meshctl.cli.VERBS.values() for verb, summary in group.items()}


def valued(verb: str) -> list[str]:
    """Options behind which a value stands."""
    actions = reference.verb_parser(verb)._actions
    return ["--socket", *(o for a in actions if a.nargs != 0 for o in a.option_strings)]


def options(verb: str) -> dict[str, str]:
    """Option -> help."""
    actions = [a for a in reference.verb_parser(verb)._actions if a.help is not argparse.SUPPRESS]
    found = {
        option: (action.help or "") % {**vars(action), "prog": "meshctl"}
        for action in actions
        for option in action.option_strings
    }
    return found | COMMON


def bash() -> str:
    """For /usr/share/bash-completion/completions/meshctl"""
    cases = "\n".join(
        f"        {verb}) words={shlex.quote(' '.join(options(verb)))} valued={shlex.quote(' '.join(valued(verb)))}"
        f" named={shlex.quote(' '.join(WORDS.get(verb, ())))} ;;"
        for verb in verbs()
    )
    return f"""# bash completion for meshctl
_meshctl() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} verb= word words= valued=--socket named= skip=
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        if [[ -n $skip ]]; then skip=; continue; fi
        if [[ $word == --socket ]]; then skip=1; continue; fi
        if [[ $word != -* ]]; then verb=$word; break; fi
    done
    case $verb in
        '') words={shlex.quote(" ".join([*verbs(), "help", "--version", *COMMON]))} ;;
        help) words={shlex.quote(" ".join(verbs()))} named=$words ;;
{cases}
    esac
    COMPREPLY=()
    if [[ " $valued " == *" $before "* ]]; then
        compopt -o default
    elif [[ $current == -* || -z $verb ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    elif [[ -n $named ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$named" -- "$current")
    elif [[ " {" ".join(TAKES_FILES)} " == *" $verb "* ]]; then
        compopt -o default
    fi
}}
complete -F _meshctl meshctl
"""


def zsh() -> str:
    """For /usr/share/zsh/vendor-completions/_meshctl"""

    def spec(option: str, text: str, values: list[str]) -> str:
        shown = text.replace("[", "(").replace("]", ")").replace(":", " -").replace("\n", " ")
        value = ":value:_files" if option in values else ""
        return shlex.quote(f"{option}[{shown}]{value}")

    def behind(verb: str) -> str:
        if verb in WORDS:
            return shlex.quote(f"*:what:({' '.join(WORDS[verb])})")
        return "'*:file:_files'" if verb in TAKES_FILES else "'*:name:'"

    described = " ".join(
        shlex.quote(f"{verb}:{text}") for verb, text in [*verbs().items(), ("help", "tell about a verb")]
    )
    cases = "\n".join(
        f"    {verb}) _arguments {' '.join(spec(*item, valued(verb)) for item in options(verb).items())} {behind(verb)} ;;"
        for verb in verbs()
    )
    common = " ".join(spec(*item, ["--socket"]) for item in AT_THE_TOP.items())
    return f"""#compdef meshctl
local -a verbs
local curcontext=$curcontext state line
verbs=({described})
_arguments -C {common} '1:verb:->verb' '*::argument:->argument'
case $state in
  verb) _describe verb verbs ;;
  argument)
    case $line[1] in
{cases}
    help) _describe verb verbs ;;
    esac ;;
esac
"""


def fish() -> str:
    """For /usr/share/fish/vendor_completions.d/meshctl.fish"""
    none = f"not __fish_seen_subcommand_from {' '.join(verbs())}"
    lines = [f"complete -c meshctl -f -n {shlex.quote(none)}"]
    lines.append(f"complete -c meshctl -n {shlex.quote(none)} -a help -d 'tell about a verb'")
    lines.append(
        f"complete -c meshctl -n {shlex.quote(none)} -l version -d {_fished(AT_THE_TOP['--version'])}"
    )
    lines.append(
        f"complete -c meshctl -n {shlex.quote(none)} -l socket -r -F -d {_fished(COMMON['--socket'])}"
    )
    for verb, summary in verbs().items():
        lines.append(f"complete -c meshctl -n {shlex.quote(none)} -a {verb} -d {_fished(summary)}")
        seen = shlex.quote(f"__fish_seen_subcommand_from {verb}")
        if verb not in TAKES_FILES:
            lines.append(f"complete -c meshctl -f -n {seen}")
        if verb in WORDS:
            lines.append(f"complete -c meshctl -n {seen} -a {shlex.quote(' '.join(WORDS[verb]))}")
        for option, text in options(verb).items():
            flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            value = " -r -F" if option in valued(verb) else ""
            lines.append(f"complete -c meshctl -n {seen} {flag}{value} -d {_fished(text)}")
    return "\n".join([*lines, ""])


def _fished(text: str) -> str:
    escaped = " ".join(text.split()).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


FILES: dict[str, Made] = {
    "usr/share/bash-completion/completions/meshctl": bash,
    "usr/share/zsh/vendor-completions/_meshctl": zsh,
    "usr/share/fish/vendor_completions.d/meshctl.fish": fish,
}
