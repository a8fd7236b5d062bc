"""Asks of every locked package whether an advisory is about the locked version: what `make audit` calls.

OSV is asked where the network allows it; else requirements/advisories.json answers, which `make advisories` writes. An
advisory that does no harm here is named in requirements/accepted.toml, with the reason and a last day, in this form:

    [[accept]]
    id = "GHSA-xxxx-xxxx-xxxx"  # or any other name of it
    package = "idna"
    why = "meshd gives it no text of strangers"
    until = 2027-03-01

No library does this: pip-audit and `uv audit` need an advisory service, and pip-audit says "No known vulnerabilities
found" where its service knows none of the packages.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scripts.advisories import FILE, LOCKS, Advisory, AdvisoryError, Known, Package, locked, read
from scripts.osv import OSV, Osv, UnreachableError, within

ACCEPTED = LOCKS / "accepted.toml"
ASK_S = 30.0  # two requests, and one for each finding
OLD = dt.timedelta(days=90)


class Acceptance(BaseModel):
    """An advisory that somebody has looked at, and that is no reason to fail until then."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    id: str = Field(min_length=1)
    package: str = Field(min_length=1)
    why: str = Field(min_length=1)
    until: dt.date  # the last day

    def covers(self, finding: Finding) -> bool:
        return self.id in finding.ids and canonicalize_name(self.package) == finding.package.name

    def __str__(self) -> str:
        return f"{self.id} ({self.package})"


class _Accepted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    accept: list[Acceptance] = Field(default_factory=list)


@dataclass(frozen=True)
class Finding:
    """One advisory about one package of the locks."""

    package: Package
    ids: tuple[str, ...]  # all its names; the first is the one to show
    summary: str
    fixed_in: tuple[str, ...]

    def __str__(self) -> str:
        also = f" ({', '.join(self.ids[1:])})" if len(self.ids) > 1 else ""
        mended = f"mended in {', '.join(self.fixed_in)}" if self.fixed_in else "not mended in any version"
        return f"{self.package}: {self.ids[0]}{also}: {self.summary or 'no summary'}; {mended}"


def one_each(hits: Iterable[tuple[Package, Advisory]]) -> list[Finding]:
    """Several databases feed OSV, and the same fault comes under several names: it is told once, under all of them."""
    found: list[Finding] = []
    # A record with a summary comes before the others, as its words are shown.
    for package, advisory in sorted(hits, key=lambda hit: (hit[0], not hit[1].summary, hit[1].id)):
        names = (advisory.id, *advisory.aliases)
        same = next((f for f in found if f.package == package and not advisory.ids.isdisjoint(f.ids)), None)
        if same is not None:
            found.remove(same)
        found.append(
            Finding(
                package,
                tuple(dict.fromkeys((*same.ids, *names) if same else names)),
                same.summary if same else advisory.summary,
                tuple(dict.fromkeys((*(same.fixed_in if same else ()), *advisory.fixed_in(package)))),
            )
        )
    return found


def accepted(path: Path) -> list[Acceptance]:
    if not path.exists():
        return []
    try:
        return _Accepted.model_validate(tomllib.loads(path.read_text())).accept
    except (OSError, ValueError, ValidationError) as error:
        raise AdvisoryError(f"cannot read {path}: {error}\nMend it, then type: make audit") from error


@dataclass(frozen=True)
class Verdict:
    failures: list[str]
    remarks: list[str]


def judge(findings: Sequence[Finding], accepts: Sequence[Acceptance], today: dt.date) -> Verdict:
    """What fails the audit: a finding that nobody has accepted, and an acceptance whose last day has gone."""
    failures, remarks = [], []
    for finding in findings:
        by = next((a for a in accepts if a.covers(finding) and a.until >= today), None)
        if by is None:
            failures.append(str(finding))
        else:
            remarks.append(f"accepted until {by.until}, as {by.why}: {finding}")
    for acceptance in accepts:
        if acceptance.until < today:
            failures.append(f"the acceptance of {acceptance} ended on {acceptance.until}")
        elif not any(acceptance.covers(finding) for finding in findings):
            remarks.append(
                f"the acceptance of {acceptance} is about nothing that is locked and known; it can go"
            )
    return Verdict(failures, remarks)


def by_file(known: Known, packages: Sequence[Package]) -> list[Finding]:
    return one_each((p, a) for p in packages for a in known.vulns if a.affects(p))


def gaps(known: Known, packages: Sequence[Package], today: dt.date) -> list[str]:
    """What an answer from the file does not cover."""
    names = {package.name for package in packages}
    missing = names.difference(known.packages)
    found = []
    if missing:
        which = "any of these packages" if missing == names else ", ".join(sorted(missing))
        found.append(f"the file may lack advisories about {which}")
    if today - known.date > OLD:
        found.append(f"the file is {(today - known.date).days} days old")
    return [f"{gap}; where OSV can be reached, type: make advisories" for gap in found]


def examine(packages: Sequence[Package], args: argparse.Namespace, today: dt.date) -> list[Finding]:
    """The findings, from OSV or from the file; says which of the two it was."""
    if not args.offline:
        osv = Osv(args.service)
        try:
            hits = within(args.seconds, lambda: osv.findings(packages))
        except UnreachableError as error:
            say(f"OSV cannot be asked ({error}); {FILE.name} answers instead")
        else:
            say(f"{len(packages)} locked packages, asked of {osv.service}")
            return one_each(hits)
    known = read(args.locks / FILE.name)
    say(f"{len(packages)} locked packages, by {FILE.name} of {known.date} (from {known.source})")
    for remark in gaps(known, packages, today):
        say(remark)
    return by_file(known, packages)


def say(text: str) -> None:
    print(f"audit: {text}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check the locked packages against published advisories.")
    parser.add_argument("--offline", action="store_true", help=f"ask nobody; {FILE.name} answers")
    parser.add_argument("--service", default=OSV, metavar="URL", help=f"instead of {OSV}")
    parser.add_argument("--seconds", type=float, default=ASK_S, help="how long OSV may take, all in all")
    parser.add_argument(
        "--locks", type=Path, default=LOCKS, metavar="FOLDER", help="instead of requirements/"
    )
    args = parser.parse_args(argv)
    today = dt.datetime.now(dt.UTC).date()
    try:
        accepts = accepted(args.locks / ACCEPTED.name)
        verdict = judge(examine(locked(args.locks), args, today), accepts, today)
    except AdvisoryError as error:
        print(error, file=sys.stderr)
        return 1
    for remark in verdict.remarks:
        say(remark)
    for failure in verdict.failures:
        print(f"  {failure}", file=sys.stderr)
    if verdict.failures:
        print(
            f"cannot pass the locks: {len(verdict.failures)} above. Type: make lock UPGRADE=1, "
            f"or say in requirements/{ACCEPTED.name} why it does no harm and until when",
            file=sys.stderr,
        )
        return 1
    say("the locks pass")
    return 0


if __name__ == "__main__":
    sys.exit(main())
