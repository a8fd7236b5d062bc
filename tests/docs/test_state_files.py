"""The page about backups names what is in the state folder, and nothing else."""

from __future__ import annotations

import re

from meshd import config, files
from meshd.node import Node
from tests.docs.pages import DOCS
from tests.engines.machine import short_folder
from tests.unit.built import close


def listed() -> set[str]:
    """The first column of the page's table."""
    page = (DOCS / "how-to" / "back-up-a-node.md").read_text().partition("## What is in the folder")[2]
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


async def declared() -> set[str]:
    """What the rooms declare, each folder once."""
    with short_folder() as folder:
        settings = config.parse(f'[paths]\nstate = "{folder}/s"\nrun = "{folder}/r"\n', "the test")
        files.prepare_folders(settings.state, settings.paths.run, settings.private_sockets)
        node = Node(settings)
        await close(node)
    return {f"{one.name.split('/')[0]}/" if "/" in one.name else one.name for one in node.state_files}


async def test_each_file_of_the_state_folder_is_on_the_page_and_declared_by_its_room() -> None:
    assert listed() == await declared()
