"""A program that once could not write to a full disk may never write again: that is remembered until its next start."""

from __future__ import annotations

import asyncio
from pathlib import Path

from meshd.supervise.service import Service
from tests.supervise.programs import Script
from tests.waiting import until

_REPEATS = """
: > {up}
while :; do read -r line < {quiet} && echo "$line"; done
"""


async def _hears(script: Script, line: str) -> None:
    await asyncio.to_thread((script.folder / "quiet").write_text, line + "\n")


async def test_what_a_program_says_of_a_full_disk_is_remembered_until_its_next_start(tmp_path: Path) -> None:
    script = Script(tmp_path, text=_REPEATS)
    service = Service(script, lambda: None)
    await service.start("settings")
    await _hears(script, "all is well")
    await until(lambda: any(line == "all is well" for _, line in service.lines))
    assert not service.state.starved
    await _hears(script, "write cluster/000001.log: No space left on device")
    await until(lambda: "000001.log" in service.state.starved)
    await service.stop("its disk was full", grace=0)
    await service.start("settings")
    assert not service.state.starved
    await service.stop("the test is over", grace=0)
