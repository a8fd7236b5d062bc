"""What holds for every test: see tests/guards.py."""

from __future__ import annotations

pytest_plugins = ["tests.guards"]
