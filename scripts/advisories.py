"""What is locked, which versions an advisory is about, and the file that keeps advisories for where there is no network.

Advisories are records of the OSV schema (https://ossf.github.io/osv-schema), without what only people read.
"""

from __future__ import annotations

import datetime as dt
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, Field, ValidationError

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
FILE = LOCKS / "advisories.json"
EXPORT = "https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip"

ECOSYSTEM = "PyPI"


class AdvisoryError(Exception):
    """Advisories or locks that cannot be used; the message says why and what to type."""


# -- what is locked ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Package:
    """One line of a lock."""

    name: str  # as PyPI compares names: in lower case, with hyphens
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def locked(folder: Path = LOCKS) -> list[Package]:
    """Every package of every lock, whatever machine its line is for."""
    found = {package for lock in sorted(folder.glob("*.txt")) for package in _packages(lock)}
    if not found:
        raise AdvisoryError(f"cannot audit: nothing is locked in {folder}; type: make lock")
    return sorted(found)


def _packages(lock: Path) -> Iterator[Package]:
    for number, line in enumerate(lock.read_text().splitlines(), 1):
        text = line.removesuffix("\\").strip()
        if not text or text.startswith(("#", "--hash=")):
            continue
        try:
            wanted = Requirement(text)
            (exact,) = wanted.specifier
            if exact.operator != "==":
                raise ValueError(exact.operator)
            yield Package(canonicalize_name(wanted.name), str(Version(exact.version)))
        except ValueError as error:  # those of packaging are ValueErrors, too
            raise AdvisoryError(
                f"cannot audit {lock.name}: line {number} is not one exact version: {text!r}; type: make lock"
            ) from error


# -- records of the OSV schema, and which versions they are about --------------------------------------------------


class Event(BaseModel):
    introduced: str | None = None  # "0" is before every version
    fixed: str | None = None
    last_affected: str | None = None


class Range(BaseModel):
    type: str  # ECOSYSTEM counts versions, GIT counts commits
    events: list[Event]


class Named(BaseModel):
    ecosystem: str
    name: str


class Affected(BaseModel):
    package: Named | None = None
    ranges: list[Range] = Field(default_factory=list)
    versions: list[str] = Field(default_factory=list)

    @property
    def name(self) -> str | None:
        """The package as locks name it; None where it is not one of PyPI."""
        if self.package is None or self.package.ecosystem != ECOSYSTEM:
            return None
        return canonicalize_name(self.package.name)

    def version_ranges(self) -> list[list[Event]]:
        return [r.events for r in self.ranges if r.type == "ECOSYSTEM"]


class Advisory(BaseModel):
    id: str
    modified: dt.datetime
    withdrawn: dt.datetime | None = None
    aliases: list[str] = Field(default_factory=list)
    summary: str = ""
    affected: list[Affected] = Field(default_factory=list)

    @property
    def ids(self) -> set[str]:
        return {self.id, *self.aliases}

    def about(self, name: str) -> list[Affected]:
        return [affected for affected in self.affected if affected.name == name]

    def affects(self, package: Package) -> bool:
        """Whether it is about this version. Where versions cannot be compared it is: then a person shall look."""
        if self.withdrawn is not None:
            return False
        version = Version(package.version)
        return any(
            any(_version(listed) == version for listed in affected.versions)
            or any(_covers(events, version) for events in affected.version_ranges())
            for affected in self.about(package.name)
        )

    def fixed_in(self, package: Package) -> list[str]:
        ranges = [events for affected in self.about(package.name) for events in affected.version_ranges()]
        return list(dict.fromkeys(event.fixed for events in ranges for event in events if event.fixed))


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _covers(events: Sequence[Event], version: Version) -> bool:
    """The schema's own algorithm: from `introduced` on a version is affected, until `fixed` or after `last_affected`."""
    known: list[tuple[Version, Event]] = []
    for event in events:
        at = _version(event.introduced or event.fixed or event.last_affected or "0")
        if at is None:
            return True
        known.append((at, event))
    affected = False
    for at, event in sorted(known, key=lambda pair: pair[0]):
        if event.introduced is not None:
            affected = affected or event.introduced == "0" or version >= at
        elif event.fixed is not None:
            affected = affected and version < at
        elif event.last_affected is not None:
            affected = affected and version <= at
    return affected


# -- the file ------------------------------------------------------------------------------------------------------


class Known(BaseModel):
    """requirements/advisories.json."""

    date: dt.date  # when it was asked for
    source: str
    packages: list[str]  # of which all was asked for that is known; of others `vulns` may lack something
    vulns: list[Advisory]


def read(path: Path) -> Known:
    try:
        return Known.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise AdvisoryError(
            f"cannot read {path}: {error}\nTo write it anew, type: make advisories"
        ) from error


def write(path: Path, known: Known) -> None:
    record = known.model_dump(mode="json", exclude_defaults=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def known_of(
    records: Iterable[Advisory], packages: Iterable[Package], *, date: dt.date, source: str
) -> Known:
    """What of these records is about packages of the locks: each record once, in an order that does not change."""
    names = {package.name for package in packages}
    kept = {
        record.id: record.model_copy(update={"affected": [a for a in record.affected if a.name in names]})
        for record in records
        if record.withdrawn is None and any(record.about(name) for name in names)
    }
    return Known(date=date, source=source, packages=sorted(names), vulns=[kept[i] for i in sorted(kept)])


def from_export(path: Path, packages: Iterable[Package]) -> Known:
    """Read OSV's export of a whole ecosystem, for a machine that cannot ask OSV itself."""
    try:
        with zipfile.ZipFile(path) as export:
            records = [
                Advisory.model_validate_json(export.read(name))
                for name in export.namelist()
                if name.endswith(".json")
            ]
    except (OSError, zipfile.BadZipFile, ValidationError) as error:
        raise AdvisoryError(
            f"cannot read OSV's export {path}: {error}; fetch it anew from {EXPORT}"
        ) from error
    if not records:
        raise AdvisoryError(f"cannot use {path}: no advisory is in it; fetch it anew from {EXPORT}")
    # An export says nowhere when it was made; it is as new as the newest record in it.
    return known_of(
        records,
        packages,
        date=max(r.modified for r in records).date(),
        source=f"OSV's export for {ECOSYSTEM}",
    )
