"""Parsers of the configuration's values. Each error names what was expected."""

from __future__ import annotations

import ipaddress
import re
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from meshd.model import REPLICAS_MOST

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGTP", start=1):
    _UNITS |= {f"{_letter}B": 1000**_power, f"{_letter}IB": 1024**_power, _letter: 1024**_power}
_LONGEST_S = 1e10  # three centuries; more is a typing error
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
NODE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def parse_size(value: object) -> int:
    """Parse bytes: `5GiB`, `1 TB`, `1048576`. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = (
        re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)\s*", value)
        if isinstance(value, str)
        else None
    )
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError('expected a size such as "5GiB", "1TB" or a number of bytes')
    return int(float(match[1]) * _UNITS[match[2].upper()])


def parse_duration(value: object) -> float:
    """Parse seconds: `30d`, `12h`, `90s`. Raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LONGEST_S:
        return float(value)
    match = (
        re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*([smhdw])\s*", value) if isinstance(value, str) else None
    )
    if match is None:
        raise ValueError('expected a duration such as "30d", "12h", "10m" or "90s"')
    return float(match[1]) * _SECONDS[match[2]]


def check_node_name(name: str) -> str:
    """Check that a node's name is safe in a terminal, a file name and a table. Raises ValueError."""
    if not NODE_NAME.fullmatch(name):
        raise ValueError(
            "expected 1 to 63 of the letters a-z, A-Z, digits, '.', '_' and '-', a letter or digit at either end"
        )
    return name


def host_name() -> str:
    """The host's short name, where a node may have it; else "node"."""
    short = socket.gethostname().split(".")[0]
    return short if NODE_NAME.fullmatch(short) else "node"


def _printable(value: object) -> object:
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("expected printable characters only")
    return value


def _path(value: object) -> object:
    if value == "" or (isinstance(value, str) and not value.isprintable()):
        raise ValueError('expected a path of printable characters such as "/var/lib/meshd"')
    return value


def optional_size(value: object) -> int | None:
    """`parse_size`, or None for an empty value. Raises ValueError."""
    return None if value in ("", None) else parse_size(value)


def _replicas(value: object) -> int | str:
    if value == "all":
        return "all"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= REPLICAS_MOST:
        return value
    raise ValueError('expected a whole number from 1, or "all"')


_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\.?$){_LABEL}(?:\.{_LABEL})*\.?")
_WHERE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+))(?::([0-9]{1,5}))?")


def parse_where(text: str) -> tuple[str, int | None]:
    """Parse host and port (None without one): `attic`, `attic:4010`, `10.1.2.3:4010`, `fd00::1`, `[fd00::1]:4010`.

    An address must be one that a machine can have on a private network. Raises ValueError that says what was expected.
    """
    expected = (
        "expected a host name or a private address, with or without a port, such as"
        ' "attic.lan", "10.144.0.23:4010" or "[fd00::1]:4010"'
    )
    match = _WHERE.fullmatch(text)
    host, port = (match[1] or match[2], match[3]) if match else (text, None)
    if port is not None and not 0 < int(port) < 65536:
        raise ValueError("expected a port from 1 to 65535")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        bare = host.rstrip(".")
        if (match and match[1]) or not _HOST.fullmatch(host) or bare.rpartition(".")[2].isdigit():
            raise ValueError(expected) from None  # a name that ends in a number is a mistyped address
        return host, int(port) if port else None
    if (
        "%" in host
        or address.is_unspecified
        or address.is_multicast
        or address.is_link_local
        or address.is_global
    ):
        raise ValueError(f"{host} is not private; {expected}")
    return str(address), int(port) if port else None


def _where(value: object) -> object:
    if isinstance(value, str):
        parse_where(value)
    return value


def loopback_port(value: object) -> str:
    """Check a loopback address and port, or "". Raises ValueError."""
    if value == "":
        return ""
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
        if loopback and 0 < int(port) < 65536:
            return str(value)
    except ValueError:
        pass
    raise ValueError('expected a loopback address and port such as "127.0.0.1:4011", or "" to turn it off')


Words = Annotated[str, BeforeValidator(_printable)]  # these are shown in terminals
Folder = Annotated[Path, BeforeValidator(_path)]
Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Port = Annotated[int, Field(ge=1, le=65535)]
Where = Annotated[str, BeforeValidator(_where)]
Replicas = Annotated[int | Literal["all"], BeforeValidator(_replicas)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
