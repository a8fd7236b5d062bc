"""Two machines with the packaged units, and a cable between them."""

from __future__ import annotations

from pathlib import Path

from tests.system.conftest import Boot
from tests.system.service import join, plug


def test_two_machines_make_a_mesh_and_either_keeps_what_the_other_pinned(
    boot: Boot, installed: list[Path], cable: tuple[str, str]
) -> None:
    attic, cellar = boot("attic", installed), boot("cellar", installed)
    plug(attic, cable[0], "10.9.0.1")
    plug(cellar, cable[1], "10.9.0.2")
    join(attic, cellar)

    attic.run(
        "echo 'as it was said' > /root/minutes.txt && meshctl pin --replicas 2 /root/minutes.txt", seconds=120
    )
    attic.stop()
    cellar.run("meshctl get minutes.txt -o /tmp/back.txt", seconds=120)
    assert cellar.run("cat /tmp/back.txt") == "as it was said\n"
