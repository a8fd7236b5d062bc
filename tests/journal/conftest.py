"""Where a journal of removals is; and that each is closed after its test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journal.journals import MADE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trash.db"


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()
