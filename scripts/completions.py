"""Completions of meshctl for bash, zsh and fish, written from its parsers: verbs, options, and file names."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable

import meshctl.cli
from scripts import reference

Made = Callable[[], str]
COMMON = {
    "--socket": "the daemon's socket",
    "--json": "print the daemon's documents",
    "--help": "tell about the verb",
}
TAKES_FILES = ("pin",)  # its names are paths; the others' are of the mesh


def verbs() -> dict[str, str]:
    return {verb: summary for group in meshctl.cli.VERBS.values() for verb, summary in group.items()}


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
    cases = "\n".join(f"        {verb}) words={shlex.quote(' '.join(options(verb)))} ;;" for verb in verbs())
    return f"""# bash completion for meshctl
_meshctl() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} verb= word words
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        if [[ $word != -* ]]; then verb=$word; break; fi
    done
    case $verb in
        '') words={shlex.quote(" ".join([*verbs(), *COMMON]))} ;;
{cases}
        *) words= ;;
    esac
    if [[ $current == -* || -z $verb ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    else
        compopt -o default
        COMPREPLY=()
    fi
}}
complete -F _meshctl meshctl
"""


def zsh() -> str:
    """For /usr/share/zsh/vendor-completions/_meshctl"""

    def spec(option: str, text: str) -> str:
        return shlex.quote(f"{option}[{text.replace('[', '(').replace(']', ')').replace(':', ' -')}]")

    described = " ".join(shlex.quote(f"{verb}:{text}") for verb, text in verbs().items())
    cases = "\n".join(
        f"    {verb}) _arguments {' '.join(spec(*item) for item in options(verb).items())} '*:file:_files' ;;"
        for verb in verbs()
    )
    return f"""#compdef meshctl
local -a verbs
local curcontext=$curcontext state line
verbs=({described})
_arguments -C {" ".join(spec(*item) for item in COMMON.items())} '1:verb:->verb' '*::argument:->argument'
case $state in
  verb) _describe verb verbs ;;
  argument)
    case $line[1] in
{cases}
    esac ;;
esac
"""


def fish() -> str:
    """For /usr/share/fish/vendor_completions.d/meshctl.fish"""
    none = f"not __fish_seen_subcommand_from {' '.join(verbs())}"
    lines = [f"complete -c meshctl -f -n {shlex.quote(none)}"]
    for verb, summary in verbs().items():
        lines.append(f"complete -c meshctl -n {shlex.quote(none)} -a {verb} -d {_fished(summary)}")
        seen = shlex.quote(f"__fish_seen_subcommand_from {verb}")
        if verb not in TAKES_FILES:
            lines.append(f"complete -c meshctl -f -n {seen}")
        for option, text in options(verb).items():
            flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            lines.append(f"complete -c meshctl -n {seen} {flag} -d {_fished(text)}")
    return "\n".join([*lines, ""])


def _fished(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


FILES: dict[str, Made] = {
    "usr/share/bash-completion/completions/meshctl": bash,
    "usr/share/zsh/vendor-completions/_meshctl": zsh,
    "usr/share/fish/vendor_completions.d/meshctl.fish": fish,
}
