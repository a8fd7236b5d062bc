"""Address book: overrides of the roster's addresses, for members that answer elsewhere. It holds for this node only.

An override holds until the member itself states another address or port. It is added once the member's certificate was
seen there; each call checks the certificate again.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

from meshd import files
from meshd.wire import Member

_LOG = structlog.get_logger(part="mesh")

Where = tuple[str, int]  # an IP address in its usual spelling, and a port


@dataclass(frozen=True, slots=True)
class _Found:
    """One override. stated: the roster's address when the member was found elsewhere."""

    stated: Where
    where: Where


class AddressBook:
    """The overrides, in `addresses.json` of the state folder."""

    def __init__(self, file: Path | None = None) -> None:
        """Blocks: reads the file. One that cannot be read counts as empty: the members are looked for again."""
        self._file = file
        self._found = _read(file)

    def of(self, member: Member) -> Where:
        """The address and port at which to call that member."""
        stated = (member.address, member.peer_port)
        found = self._found.get(member.fingerprint)
        return found.where if found is not None and found.stated == stated else stated

    async def found(self, member: Member, where: Where) -> None:
        """Add an override: that member was seen at `where`."""
        stated = (member.address, member.peer_port)
        if self.of(member) == where:
            return
        if where == stated:
            self._found.pop(member.fingerprint, None)
        else:
            self._found[member.fingerprint] = _Found(stated, where)
        await self._write()

    async def tidy(self, members: Iterable[Member]) -> None:
        """Drop each override whose member has stated another address since, lest it apply again if it moves back."""
        stated = {m.fingerprint: (m.address, m.peer_port) for m in members}
        kept = {key: found for key, found in self._found.items() if stated.get(key) == found.stated}
        if len(kept) < len(self._found):
            self._found = kept
            await self._write()

    async def _write(self) -> None:
        if self._file is None:
            return
        document = {key: [*found.stated, *found.where] for key, found in self._found.items()}
        try:
            await asyncio.to_thread(files.write_json, self._file, document)
        except OSError as exc:  # a full disk, which another check reports; the override applies all the same
            _LOG.warning("cannot remember where a member is", error=str(exc))


def _read(file: Path | None) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for fingerprint, item in files.read_known(file).items():
        match item:
            case [str(stated), int(stated_port), str(address), int(port)] if _usable(address, port):
                found[fingerprint] = _Found((stated, stated_port), (address, port))
    return found


def _usable(address: str, port: int) -> bool:
    try:
        return str(ipaddress.ip_address(address)) == address and 0 < port < 65536
    except ValueError:
        return False
