"""No command stands on a page that no test types; the few that are only read by the parser are named here, with the reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs import test_how_tos as how_tos
from tests.docs.console import commands
from tests.docs.following import indented
from tests.docs.pages import DOCS, PAGES, ROOT, TUTORIAL, commands_shown

TYPED_IN_ORDER = {
    TUTORIAL,
    ROOT / "README.md",
    *(
        how_tos.HOW_TO / name
        for name in (
            "add-a-machine.md",
            "back-up-a-node.md",
            "forget-a-lost-machine.md",
            "operate.md",  # by tests/system, on a machine that boots
            "pin-and-get.md",
            "remove-and-restore.md",
            "replace-a-dead-machine.md",
            "run-without-root.md",
            "use-wireguard-or-tailscale.md",
            "use-zerotier.md",  # in test_use_zerotier.py
        )
    ),
}
# Each is understood by the parser (test_pages.py); why it is not typed as well:
ONLY_PARSED = {
    "make test": "it is what runs this test",
    "make test ARGS='-k pin -x'": "it is what runs this test",
    "make check": "it is a part of what runs this test",
    "make test-newest": "it is a part of what runs this test, and tests/unit/test_newest.py has its choice",
    "make audit": "it asks OSV; tests/unit/test_locked_packages.py has one of its own",
    "make advisories FROM=all.zip": "it would change the checkout that is tested",
    "make lock UPGRADE=1": "it would change the checkout that is tested",
    ".venv/bin/pytest tests/unit/test_sas.py": "it is a part of what runs this test",
    "make format": "it would change the checkout that is tested",
    "make setup": "the tutorial types make -C meshd setup",
    "chmod 600 /srv/meshd/node.key": "no command of this project",
    "meshctl forget desk --force": "tests/mesh forgets by force",
    "meshctl invite --revoke ID": "it is typed with an id",
    "meshctl peers set NODE ADDRESS": "tests/mesh types it for machines that have moved",
    "meshctl operations ID": "it is typed with an id; tests/mesh follows one",
    "meshctl init --network ID": "it is typed with an id",
    "meshctl join ID": "it is typed with an id",
    "meshctl invite --for ADDRESS": "it is typed with an address",
    "meshctl approve ADDRESS": "it is typed with an address",
    "meshctl approve cellar --code '0844 3547 3343'": "tests/zerotier types the code of the day",
    "meshctl requests --deny cellar": "tests/zerotier denies a node",
    "meshctl join 8056c2e21c000001 --yes": "tests/meshctl answers nothing then",
    "meshctl join --name cellar2": "tests/mesh joins under another name",
    "meshd check --config FILE": "it is typed with a file",
}
# The reference is made from the code: its examples are the help's.
_WRITTEN = [*(p for p in PAGES if p.parent != DOCS / "reference"), ROOT / "CONTRIBUTING.md"]


def _words(text: str) -> str:
    """A command without a comment, a redirection, or what comes after it."""
    return re.split(r"\s{2,}#|\s#\s|\s[|<>]|\s2>|\s&&?$", text)[0].strip()


def _typed() -> set[str]:
    found = {_words(c.text) for page in TYPED_IN_ORDER for c in commands(page)}
    found |= {_words(c.text) for c in indented(ROOT / "README.md")} - {"make test"}
    found |= {how_tos.AT_A_TERMINAL, "meshctl pin minutes.txt"}
    return found | set(how_tos.IN_PASSING) | set(how_tos.UNTIL_INTERRUPTED)


def _shown(page: Path) -> set[str]:
    """Its blocks, and what it names in passing but for a verb alone."""
    lines = {c.text for c in commands(page)}
    if page.parent == ROOT:
        lines |= {c.text for c in indented(page)}
    lines |= {c.text for c in commands_shown(page) if c.prose and len(c.text.split()) > 2}
    return {_words(line) for line in lines}


@pytest.mark.parametrize("page", _WRITTEN, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_is_typed_by_a_test(page: Path) -> None:
    unread = _shown(page) - _typed() - set(ONLY_PARSED)
    assert not unread, "type them in a test of tests/docs, or say in ONLY_PARSED why not"
