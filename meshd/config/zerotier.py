"""[overlay.zerotier] of the configuration file: this machine's ZeroTier service, and how to use each network."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from meshd.config.values import Folder, Section

NETWORK_ID = re.compile(r"[0-9a-f]{16}")
NODE_ADDRESS = re.compile(r"[0-9a-f]{10}")


def _network_id(value: object) -> str:
    if isinstance(value, str) and NETWORK_ID.fullmatch(value.strip().lower()):
        return value.strip().lower()
    raise ValueError('expected a ZeroTier network id: 16 hex digits such as "8056c2e21c000001"')


def _ip_address(value: object) -> str:
    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise ValueError('expected an IP address on that network such as "10.144.0.23"') from None


def _local_api(value: object) -> str:
    match = re.fullmatch(r"http://(127\.0\.0\.1|localhost|\[::1\]):(\d{1,5})/?", str(value))
    if value == "" or (match and 0 < int(match[2]) < 65536):
        return str(value).rstrip("/")
    raise ValueError('expected the API of ZeroTier on this machine such as "http://127.0.0.1:9993"')


def _api_url(value: object) -> str:
    """Check that a URL is https, as the token goes there; http is allowed on loopback."""
    place = r"(https://[A-Za-z0-9.\[\]:-]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?)"
    if value == "" or re.fullmatch(place + r"(/[A-Za-z0-9._/-]*)?", str(value)):
        return str(value).rstrip("/")
    raise ValueError('expected an https URL such as "https://api.zerotier.com/api/v1"')


_Path = Annotated[Folder, AfterValidator(Path.absolute)]


class Network(Section):
    """[[overlay.zerotier.networks]], one section a network"""

    id: Annotated[str, BeforeValidator(_network_id)] = Field(description="16 hex digits")
    auto_join: bool = Field(False, description="join it at the start, and again where it was left by hand")
    prefer_hosts: list[Annotated[str, BeforeValidator(_ip_address)]] = Field(
        default_factory=list, description="addresses on it where members are looked for first"
    )
    admin: Literal["", "controller", "central", "central-v2"] = Field(
        "",
        description="how this node can authorize others on it: this machine's own controller, or an API of ZeroTier"
        " Central (the older one, or v2); default: the controller, if it is this machine",
    )
    admin_token_file: _Path | None = Field(None, description="central: the file that holds its API token")
    admin_url: Annotated[str, BeforeValidator(_api_url)] = Field(
        "", description="central: where its API is; default: ZeroTier's own"
    )
    probe: bool = Field(
        True, description="look for members at every address of a managed route of at most a /22"
    )

    @model_validator(mode="after")
    def _has_token(self) -> Network:
        central = self.admin.startswith("central")
        if central and self.admin_token_file is None:
            raise ValueError(
                f'admin = "{self.admin}" takes admin_token_file, the file that holds the API token'
            )
        if not central and (self.admin_token_file or self.admin_url):
            raise ValueError('admin_token_file and admin_url belong to admin = "central" or "central-v2"')
        return self


class ZeroTier(Section):
    """[overlay.zerotier]: the ZeroTier One service of this machine"""

    home: _Path = Field(
        Path("/var/lib/zerotier-one"), description="its folder: token and port are found there"
    )
    api: Annotated[str, BeforeValidator(_local_api)] = Field(
        "", description="its local API; default: 127.0.0.1 and the port in zerotier-one.port, else 9993"
    )
    token_file: _Path | None = Field(
        None, description="the file that holds its token; default: authtoken.secret in home"
    )
    networks: list[Network] = Field(default_factory=list, description="what meshd does on which network")

    @model_validator(mode="after")
    def _distinct_networks(self) -> ZeroTier:
        ids = [network.id for network in self.networks]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f"networks: {twice[0]} stands there twice")
        return self

    def network(self, network_id: str) -> Network:
        """The section of that network; the defaults where the file has none."""
        return next((n for n in self.networks if n.id == network_id), Network(id=network_id))
