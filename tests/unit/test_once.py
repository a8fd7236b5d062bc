"""What several processes of the tests need is made by one of them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.once import once

WORKERS = 3


class Maker:
    """Makes a folder of its worker, while the test holds it up."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.made: list[Path] = []
        self.began = threading.Event()
        self.may_end = threading.Event()

    def make(self, worker: int) -> list[Path]:
        self.began.set()
        assert self.may_end.wait(30)
        self.made.append(self.base / f"gw{worker}" / "package")
        return [self.made[-1], self.base / "system"]

    def ask(self, worker: int) -> list[Path]:
        """As that worker asks: with a folder of its own below the one of the run."""
        own = self.base / f"gw{worker}"
        own.mkdir()
        return once(own, "package", lambda: self.make(worker))


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def test_one_makes_it_and_the_others_wait_for_it_and_get_the_same(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    with ThreadPoolExecutor(WORKERS) as workers:
        asked = [workers.submit(maker.ask, number) for number in range(WORKERS)]
        assert maker.began.wait(30)
        assert not any(one.done() for one in asked)
        maker.may_end.set()
        got = [one.result(30) for one in asked]
    assert len(maker.made) == 1
    assert got == [[maker.made[0], maker.base / "system"]] * WORKERS


def test_where_one_process_runs_all_tests_it_looks_nowhere_else(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    maker.may_end.set()
    assert maker.ask(0) != maker.ask(1), "the folder above is that of all runs there ever were"


def test_what_failed_is_tried_again_by_who_asks_next(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")

    def fail() -> list[Path]:
        raise RuntimeError("no mirror can be reached")

    with pytest.raises(RuntimeError, match="no mirror"):
        once(maker.base / "gw9", "package", fail)
    maker.may_end.set()
    assert maker.ask(0) == [maker.made[0], maker.base / "system"]
