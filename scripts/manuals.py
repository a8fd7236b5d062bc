"""The man pages, written from the same parsers and models as docs/reference: meshctl(1), meshd(8), meshd.toml(5)."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator

import meshctl.cli
from meshd.__main__ import RELOADED, VERBS
from scripts import reference
from scripts.completions import AT_THE_TOP

SEE = {
    "meshctl.1": ".BR meshd (8),\n.BR meshd.toml (5)",
    "meshd.8": ".BR meshctl (1),\n.BR meshd.toml (5),\n.BR journalctl (1),\n.BR systemd.unit (5)",
    "meshd.toml.5": ".BR meshd (8)",
}


def escaped(text: str) -> str:
    """Text as roff takes it: a leading dot or quote begins no command, a hyphen can be copied as one."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in plain.split("\n"))


def _prose(text: str) -> str:
    """Markdown's emphasis and links as plain words."""
    text = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", text)
    return escaped(text.replace("`", "").replace("**", ""))


def _head(name: str, section: int, summary: str, version: str) -> Iterator[str]:
    yield f'.TH {name.upper()} {section} "" "meshd {version}"'
    yield f".SH NAME\n{name} \\- {escaped(summary)}"


def _block(text: str) -> str:
    return f".nf\n{escaped(text)}\n.fi"


def _arguments(actions: list[argparse.Action], prog: str) -> Iterator[str]:
    for action in actions:
        text = (action.help or "") % {**vars(action), "prog": prog}
        yield f".TP\n.B {escaped(reference._spelled(action))}\n{_prose(text)}"


def meshctl_page(version: str) -> str:
    """meshctl(1)"""
    lines = [
        *_head("meshctl", 1, "keep files together on a few machines, privately", version),
        ".SH SYNOPSIS\n.B meshctl\n[\\-\\-socket PATH] [\\-\\-json] VERB ...",
        ".SH DESCRIPTION\nThe client of meshd. Root and the members of the group meshd may use it.",
    ]
    for group, verbs in meshctl.cli.VERBS.items():
        lines.append(f'.SH "VERBS ABOUT {group.upper()}"')
        for verb, summary in verbs.items():
            parser = reference.verb_parser(verb)
            actions = [action for action in parser._actions if action.help is not argparse.SUPPRESS]
            names = [action for action in actions if not action.option_strings]
            options = [action for action in actions if action.option_strings]
            usage = " ".join(["meshctl", verb, *map(reference._in_usage, [*options, *names])])
            lines.append(f'.SS "{escaped(usage)}"\n{_prose(parser.description or summary)}')
            lines += _arguments([*names, *options], parser.prog)
            if parser.epilog:
                lines.append(f".PP\n{_block(parser.epilog)}")
    lines.append(".SH OPTIONS")
    for option, text in AT_THE_TOP.items():
        lines.append(f".TP\n.B {escaped(option)}{' PATH' if option == '--socket' else ''}\n{escaped(text)}")
    lines.append(".PP\nmeshctl help VERB tells about one verb.")
    lines.append('.SH "EXIT STATUS"')
    for number, text in reference.exit_codes():
        lines.append(f".TP\n.B {number}\n{escaped(text)}")
    lines.append(".PP\nmeshctl status \\-\\-check has codes of its own: 0, 1, 2 and 3, as it says above.")
    lines += [
        ".SH ENVIRONMENT\n.TP\n.B MESHD_SOCKET\nThe daemon's socket."
        "\n.TP\n.B XDG_RUNTIME_DIR\nA daemon of your own is looked for in its folder meshd first; not for root."
        "\n.TP\n.B MESHCTL_DEBUG\nSet, a mistake of meshctl itself is told with where it is.",
        f'.SH "SEE ALSO"\n{SEE["meshctl.1"]}',
        "",
    ]
    return "\n".join(lines)


def meshd_page(version: str) -> str:
    """meshd(8)"""
    lines = [
        *_head("meshd", 8, "the daemon that keeps files together on a few machines, privately", version),
        ".SH SYNOPSIS\n"
        + "\n.br\n".join(
            f".B meshd {escaped(verb)}\n[\\-\\-config FILE]"
            + (" [\\-\\-with\\-key KEY]" if verb == "encrypt-secrets" else "")
            for verb in VERBS
        ),
        ".SH DESCRIPTION\nOne runs on each machine of a mesh, as meshd.service. It supervises kubo and ipfs\\-cluster, and is"
        " driven by\n.BR meshctl (1).",
    ]
    lines += [f".SS meshd {verb}\n{_block(reference._daemon_help(verb))}" for verb in VERBS]
    lines += [
        ".SH SIGNALS\n.TP\n.B SIGTERM, SIGINT\nStop kubo and the cluster in their order, then end."
        f"\n.TP\n.B SIGHUP\nUnder systemd: take over {escaped(', '.join(RELOADED))} of the configuration. What else has changed"
        " waits for a restart, and the journal names it.",
        ".SH FILES\n.TP\n.I /etc/meshd/meshd.toml\nThe configuration."
        "\n.TP\n.I /var/lib/meshd\nKeys, secrets, the catalogue and the content."
        "\n.TP\n.I /run/meshd/meshd.sock\nThe socket that meshctl talks to.",
        ".SH JOURNAL\njournalctl \\-u meshd prints what it did; MESHD_SERVICE=kubo behind it only what kubo said,"
        " MESHD_CONDITION=disk\\-low only that condition, and \\-x what to do about each.",
        '.SH "EXIT STATUS"\n0 done, 1 failed, 2 usage or configuration.',
        f'.SH "SEE ALSO"\n{SEE["meshd.8"]}',
        "",
    ]
    return "\n".join(lines)


def config_page(version: str) -> str:
    """meshd.toml(5)"""
    lines = [
        *_head("meshd.toml", 5, "the configuration of meshd", version),
        ".SH DESCRIPTION\n.I /etc/meshd/meshd.toml\nis TOML. Every key has a default, and an unknown one is refused."
        "\n.B meshd check\nprints the effective configuration, or every mistake in it.",
    ]
    for name, model, many in reference.sections():
        lines.append(f'.SH "{f"[[{name}]]" if many else f"[{name}]"}"')
        for key, field in model.model_fields.items():
            if reference.section_in(field) is None:
                default = reference._default(field)
                shown = f" Default: {default}." if default else ""
                kind = reference._kind(field).replace("`", "")
                lines.append(
                    f".TP\n.B {key}\n{_prose(field.description or '')} ({escaped(kind)}).{escaped(shown)}"
                )
    lines += [f'.SH "SEE ALSO"\n{SEE["meshd.toml.5"]}', ""]
    return "\n".join(lines)


PAGES: dict[str, Callable[[str], str]] = {
    "meshctl.1": meshctl_page,
    "meshd.8": meshd_page,
    "meshd.toml.5": config_page,
}
