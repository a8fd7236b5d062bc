"""The configuration file as models. Every key has a default; errors name file, key and what was expected."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from meshd.config_zerotier import ZeroTier
from meshd.errors import Code, MeshError

DEFAULT_FILE = Path("/etc/meshd/meshd.toml")
_SOCKET_PATH_MAX = 107  # bytes, sun_path less its closing zero
_LONGEST_SOCKET = "private/cluster.sock"
_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGTP", start=1):
    _UNITS |= {f"{_letter}B": 1000**_power, f"{_letter}IB": 1024**_power, _letter: 1024**_power}
_LONGEST_S = 1e10  # three centuries; more is a slip
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
NODE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def parse_size(value: object) -> int:
    """Bytes from `5GiB`, `1 TB`, `1048576`. Raises ValueError."""
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
    """Seconds from `30d`, `12h`, `90s`. Raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LONGEST_S:
        return float(value)
    match = (
        re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*([smhdw])\s*", value) if isinstance(value, str) else None
    )
    if match is None:
        raise ValueError('expected a duration such as "30d", "12h", "10m" or "90s"')
    return float(match[1]) * _SECONDS[match[2]]


def check_node_name(name: str) -> str:
    """A name that is safe in a terminal, a file name and a table. Raises ValueError."""
    if not NODE_NAME.fullmatch(name):
        raise ValueError(
            "expected 1 to 63 of the letters a-z, A-Z, digits, '.', '_' and '-', a letter or digit at either end"
        )
    return name


def _host_name() -> str:
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


def _optional_size(value: object) -> int | None:
    return None if value in ("", None) else parse_size(value)


def _replicas(value: object) -> int | str:
    if value == "all":
        return "all"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000:
        return value
    raise ValueError('expected a whole number from 1, or "all"')


def _listen(value: object) -> str:
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
Replicas = Annotated[int | Literal["all"], BeforeValidator(_replicas)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Node(_Section):
    """[node]"""

    name: Annotated[str, BeforeValidator(lambda v: check_node_name(v) if isinstance(v, str) else v)] = Field(
        default_factory=_host_name, description="how the other nodes call this one; default: the host's name"
    )
    site: Words = Field(
        "", max_length=63, description="nodes of one site share a fate: copies avoid one site"
    )


class Paths(_Section):
    """[paths]"""

    state: Folder = Field(Path("/var/lib/meshd"), description="keys, secrets, the catalogue and the content")
    run: Folder = Field(Path("/run/meshd"), description="sockets")
    engines: Folder | None = Field(None, description="folder of ipfs and ipfs-cluster-service; default: PATH")

    @model_validator(mode="after")
    def _sockets_fit(self) -> Paths:
        longest = os.fsencode(self.run.absolute() / _LONGEST_SOCKET)
        if len(longest) > _SOCKET_PATH_MAX:
            over = len(longest) - _SOCKET_PATH_MAX
            raise ValueError(
                f"run: the sockets' paths would be {len(longest)} bytes and the kernel takes {_SOCKET_PATH_MAX};"
                f" expected a folder whose path is {over} bytes shorter"
            )
        return self


class Overlay(_Section):
    """[overlay]"""

    kind: Literal["auto", "static", "zerotier"] = Field(
        "auto", description="static: the address or interface below; zerotier: a network of ZeroTier One"
    )
    address: Words = Field("", description="static: this private address")
    interface: Words = Field("", max_length=15, description="static: the private address of this interface")
    zerotier: ZeroTier = Field(default_factory=ZeroTier)

    @model_validator(mode="after")
    def _one_of(self) -> Overlay:
        if self.kind == "static" and bool(self.address) == bool(self.interface):
            raise ValueError('kind "static" takes either address = "10.1.2.3" or interface = "wg0"')
        if self.kind != "static" and (self.address or self.interface):
            raise ValueError('address and interface belong to kind = "static"')
        if self.address:
            try:
                address = ipaddress.ip_address(self.address)
            except ValueError:
                raise ValueError(f"address: {self.address!r} is not an IP address") from None
            if address.is_unspecified or address.is_multicast or address.is_global:
                raise ValueError(
                    f"address: {self.address} is not private; expected the address that this machine has on its"
                    " private network (WireGuard, Tailscale, ZeroTier, a LAN)"
                )
        return self


class Ports(_Section):
    """[ports], all TCP and only on the overlay address"""

    swarm: Port = Field(4001, description="kubo's swarm")
    cluster: Port = Field(9096, description="ipfs-cluster's swarm")
    peer: Port = Field(4010, description="the peer API (HTTPS)")

    @model_validator(mode="after")
    def _distinct(self) -> Ports:
        if len({self.swarm, self.cluster, self.peer}) < 3:
            raise ValueError("swarm, cluster and peer must be three different ports")
        return self


class Storage(_Section):
    """[storage]"""

    reserve: Size = Field(5 * 1024**3, description="refuse new content below this much free space")
    offer: Annotated[int | None, BeforeValidator(_optional_size)] = Field(
        None,
        description="at most this much for what others place here; empty: what the disk has above reserve",
    )


class Pins(_Section):
    """[pins]"""

    replicas: Replicas = Field(3, description='copies of what is pinned here, or "all"')
    trash: Duration = Field(30 * 86400.0, description="how long removed content can be restored here")
    heal_after: Duration = Field(
        600.0, description="how long a node may be away before its copies are made elsewhere"
    )


class Metrics(_Section):
    """[metrics]"""

    listen: Annotated[str, BeforeValidator(_listen)] = Field(
        "127.0.0.1:4011", description='loopback address for /metrics, /healthz, /readyz; "" turns it off'
    )


class Control(_Section):
    """[control]"""

    admin_group: str = Field("meshd", description="members of this group may do everything")
    read_group: str = Field("", description="members of this group may look")


class Log(_Section):
    """[log]"""

    format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else json")
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least that is logged"
    )


class Config(_Section):
    """The whole of meshd.toml. Frozen; paths are absolute."""

    node: Node = Field(default_factory=Node)
    paths: Paths = Field(default_factory=Paths)
    overlay: Overlay = Field(default_factory=Overlay)
    ports: Ports = Field(default_factory=Ports)
    storage: Storage = Field(default_factory=Storage)
    pins: Pins = Field(default_factory=Pins)
    metrics: Metrics = Field(default_factory=Metrics)
    control: Control = Field(default_factory=Control)
    log: Log = Field(default_factory=Log)

    @property
    def state(self) -> Path:
        return self.paths.state.absolute()

    @property
    def private_sockets(self) -> Path:
        return self.paths.run.absolute() / "private"

    @property
    def control_socket(self) -> Path:
        return self.paths.run.absolute() / "meshd.sock"


def load(path: Path | None) -> Config:
    """The configuration in `path`; without a path the default file where there is one, else the defaults.

    Raises MeshError BAD_CONFIG that names the file and, line by line, every key that is wrong and what was expected.
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
    """`text` as TOML, validated. `source` is the name used in errors. Raises MeshError BAD_CONFIG."""
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


_EXPECTED = {  # pydantic's words for these are about Python, not about the file
    "string_type": 'expected text in quotes, such as "attic"',
    "path_type": 'expected a path in quotes, such as "/var/lib/meshd"',
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
}


def _explain(error: Any) -> str:
    """One line: the key, what was expected, what was given."""
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
    if colon and key in ("run", "address"):  # said of a whole section, about one key of it
        where, message = f"{where}.{key}", rest
    if error["type"] in ("model_type", "model_attributes_type"):
        message = f"expected a section: [{where}] on a line of its own, its keys below it"
    given = error.get("input")
    shown = f" (got {given!r})" if isinstance(given, (str, int, float, bool, list)) else ""
    return f"{where}: {message}{shown}"
