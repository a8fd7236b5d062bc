"""meshd keeps files together on a few machines, privately, without a cloud."""

__version__ = "0.2.0"
