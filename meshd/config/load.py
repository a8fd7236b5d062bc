"""Loads the configuration file. Errors name the file, the key and what was expected."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from meshd.config.sections import Config
from meshd.errors import Code, MeshError

DEFAULT_FILE = Path("/etc/meshd/meshd.toml")


def load(path: Path | None) -> Config:
    """Load the configuration in `path`; without a path the default file where there is one, else the defaults.

    Raises MeshError BAD_CONFIG that names the file and, line by line, every wrong key and what was expected.
    """
    chosen = path if path is not None else DEFAULT_FILE
    try:
        text = chosen.read_bytes().decode()
        return parse(text, str(chosen))
    except FileNotFoundError:
        if path is None:
            return parse("", "the defaults")
        raise MeshError(
            Code.BAD_CONFIG,
            f"cannot read {path}",
            "there is no such file",
            f"see what is there: ls -l {path.parent}; or leave --config out, for every key has a default",
        ) from None
    except (OSError, UnicodeDecodeError) as exc:
        raise MeshError(
            Code.BAD_CONFIG,
            f"cannot read {chosen}",
            exc.strerror or str(exc) if isinstance(exc, OSError) else f"it is not UTF-8: {exc}",
            f"check its owner and mode: ls -l {chosen}",
        ) from exc


def parse(text: str, source: str) -> Config:
    """Parse and validate TOML. source: its name in errors. Raises MeshError BAD_CONFIG."""
    try:
        document: dict[str, Any] = tomllib.loads(text)
        return Config.model_validate(document)
    except tomllib.TOMLDecodeError as exc:
        raise MeshError(
            Code.BAD_CONFIG,
            f"cannot use {source}",
            f"it is not TOML: {exc}",
            f"mend it, then: meshd check --config {source}",
        ) from exc
    except ValidationError as exc:
        lines = [_explain(error) for error in exc.errors(include_url=False)]
        raise MeshError(
            Code.BAD_CONFIG,
            f"cannot use {source}",
            "\n".join(lines),
            f"mend it, then: meshd check --config {source}",
        ) from exc


_EXPECTED = {  # pydantic's own messages for these are about Python, not about the file
    "string_type": 'expected text in quotes, such as "attic"',
    "path_type": 'expected a path in quotes, such as "/var/lib/meshd"',
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "list_type": 'expected a list, such as ["10.144.0.23"]',
    "missing": "it is not there, and has no default",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
}


def _explain(error: Any) -> str:
    """A validation error as one line: the key, what was expected, what was given."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        model: Any = Config
        for part in error["loc"][:-1]:
            if isinstance(part, int):
                (model,) = get_args(model)  # list[Section]
            else:
                model = model.model_fields[part].annotation
        known = ", ".join(model.model_fields)
        return f"{where}: unknown key; expected one of {known}"
    message = _EXPECTED.get(error["type"], error["msg"].removeprefix("Value error, "))
    key, colon, rest = message.partition(": ")
    if colon and key in ("run", "address"):  # reported for the whole section, though about this key of it
        where, message = f"{where}.{key}", rest
    if error["type"] in ("model_type", "model_attributes_type"):
        message = f"expected a section: [{where}] on a line of its own, its keys below it"
    given = error.get("input")
    shown = f" (got {given!r})" if isinstance(given, (str, int, float, bool, list)) else ""
    return f"{where}: {message}{shown}"
