"""What holds for every test: see tests/guards.py for what it may not leave behind."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.guards"]

# On a busy machine an example may take long without any fault of the code.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
