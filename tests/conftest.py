"""What holds for every test: see guards.py for what it may not leave behind, workers.py for how they run side by side."""

from __future__ import annotations

import os
import signal
import sys

import pytest
import structlog
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.guards", "tests.workers"]

# Where a machine is told to keep no bytecode, as images of Python often are, each of the many hundred programs that the
# tests start would compile all of meshd again, and each worker all tests. What is written, git ignores.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# On a busy machine an example may take long without any fault of the code.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """A run in the background of a script, or under nohup, is started with signals ignored, and what it starts would
    ignore them too: a test of Ctrl-C would wait for ever."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


# A logged exception is drawn with colours and all variables where rich is installed, as a tool of this house does: a
# quarter of a second each. Users of meshd have no rich.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)
