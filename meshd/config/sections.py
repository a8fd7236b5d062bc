"""The sections of meshd.toml. Every key has a default."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from meshd.config import values
from meshd.config.values import Duration, Folder, Port, Replicas, Section, Size, Where, Words
from meshd.config.zerotier import ZeroTier

_SOCKET_PATH_MAX = 107  # bytes: sun_path without its closing zero
_LONGEST_SOCKET = "private/cluster.sock"


class Node(Section):
    """[node]"""

    name: Annotated[
        str, BeforeValidator(lambda v: values.check_node_name(v) if isinstance(v, str) else v)
    ] = Field(
        default_factory=values.host_name,
        description="how the other nodes call this one; default: the host's name",
    )
    site: Words = Field(
        "", max_length=63, description="nodes of one site share a fate: copies avoid one site"
    )


class Paths(Section):
    """[paths]"""

    state: Folder = Field(Path("/var/lib/meshd"), description="keys, secrets, the catalogue and the content")
    disk: Folder | None = Field(
        None,
        description="where the disk of state is mounted: without it there meshd does not start; default: as /etc/fstab says",
    )
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


class Overlay(Section):
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


class Ports(Section):
    """[ports], all TCP and only on the overlay address"""

    swarm: Port = Field(4001, description="kubo's swarm")
    cluster: Port = Field(9096, description="ipfs-cluster's swarm")
    peer: Port = Field(4010, description="the peer API (HTTPS)")

    @model_validator(mode="after")
    def _distinct(self) -> Ports:
        if len({self.swarm, self.cluster, self.peer}) < 3:
            raise ValueError("swarm, cluster and peer must be three different ports")
        return self


class Mesh(Section):
    """[mesh]"""

    seeds: list[Where] = Field(
        default_factory=list,
        max_length=32,
        description="host names or addresses where members may be when they are not where they were, each with or"
        ' without a port (default: [ports] peer); such as ["attic.lan", "10.144.0.23:4010"]',
    )


class Storage(Section):
    """[storage]"""

    reserve: Size = Field(5 * 1024**3, description="refuse new content below this much free space")
    offer: Annotated[int | None, BeforeValidator(values.optional_size)] = Field(
        None,
        description="at most this much for what others place here; empty: what the disk has above reserve",
    )


class Pins(Section):
    """[pins]"""

    replicas: Replicas = Field(3, description='copies of what is pinned here, or "all"')
    trash: Duration = Field(30 * 86400.0, description="how long removed content can be restored here")
    heal_after: Duration = Field(
        600.0, description="how long a node may be away before its copies are made elsewhere"
    )


class Metrics(Section):
    """[metrics]"""

    listen: Annotated[str, BeforeValidator(values.loopback_port)] = Field(
        "127.0.0.1:4011", description='loopback address for /metrics, /healthz, /readyz; "" turns it off'
    )
    peer_token_file: Folder | None = Field(
        None,
        description="file with a token of 16 characters or more: whoever sends it gets /metrics on the peer port too",
    )


class Control(Section):
    """[control]"""

    admin_group: str = Field("meshd", description="members of this group may do everything")
    read_group: str = Field("", description="members of this group may look")


class Notify(Section):
    """[notify]"""

    command: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        description="run when a condition comes or goes, with a JSON document on standard input;"
        ' such as ["/usr/local/bin/tell-me", "mesh"]',
    )


class Log(Section):
    """[log]"""

    format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto: text on a terminal, fields in the journal under systemd, else json"
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least that is logged"
    )


class Config(Section):
    """The whole of meshd.toml. Frozen; paths are absolute."""

    node: Node = Field(default_factory=Node)
    paths: Paths = Field(default_factory=Paths)
    overlay: Overlay = Field(default_factory=Overlay)
    ports: Ports = Field(default_factory=Ports)
    mesh: Mesh = Field(default_factory=Mesh)
    storage: Storage = Field(default_factory=Storage)
    pins: Pins = Field(default_factory=Pins)
    metrics: Metrics = Field(default_factory=Metrics)
    control: Control = Field(default_factory=Control)
    notify: Notify = Field(default_factory=Notify)
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
