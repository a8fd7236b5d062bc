"""meshctl, the command-line client of meshd: standard library only, and nothing of meshd is imported."""

__version__ = "0.2.0"
