"""The configuration file as models. Every key has a default; errors name file, key and what was expected."""

from meshd.config.load import DEFAULT_FILE, load, parse
from meshd.config.sections import Config, Control, Log, Overlay
from meshd.config.values import NODE_NAME, check_node_name, parse_duration, parse_size, parse_where

__all__ = [
    "DEFAULT_FILE",
    "NODE_NAME",
    "Config",
    "Control",
    "Log",
    "Overlay",
    "check_node_name",
    "load",
    "parse",
    "parse_duration",
    "parse_size",
    "parse_where",
]
