"""Asks OSV (https://osv.dev) for advisories; no question lasts longer than it may, whatever the network does.

As a program it is `make advisories`: it writes requirements/advisories.json anew, with all that OSV knows of every locked
package, whatever the version, so that the file still answers after `make lock` has taken another one.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, Field, ValidationError

from scripts.advisories import (
    ECOSYSTEM,
    EXPORT,
    FILE,
    LOCKS,
    Advisory,
    AdvisoryError,
    Known,
    Package,
    from_export,
    known_of,
    locked,
    write,
)

OSV = "https://api.osv.dev"
BATCH = 1000  # queries in one request: OSV's documentation allows no more
STEP_S = 10.0  # how long one answer may be silent
REFRESH_S = 300.0  # everything about all packages, one after the other

T = TypeVar("T")
Shape = TypeVar("Shape", bound=BaseModel)


class UnreachableError(Exception):
    """OSV gave no usable answer; the message says why."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """Do `work` in a thread that is left behind where it does not end: looking up a name has no time limit of its own."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError as error:
        raise UnreachableError(f"no whole answer within {seconds:g} seconds") from error


class _Named(BaseModel):
    id: str


class _Result(BaseModel):
    vulns: list[_Named] = Field(default_factory=list)
    next_page_token: str | None = None


class _Results(BaseModel):
    results: list[_Result]


class _Page(BaseModel):
    vulns: list[Advisory] = Field(default_factory=list)
    next_page_token: str | None = None


class Osv:
    """OSV's API (https://google.github.io/osv.dev/api/), or a mirror of it."""

    def __init__(self, service: str = OSV) -> None:
        if not service.startswith(("https://", "http://")):
            raise AdvisoryError(f"cannot ask {service!r}: it is not an http address; type for example: {OSV}")
        self.service = service.rstrip("/")

    def findings(self, packages: Sequence[Package]) -> list[tuple[Package, Advisory]]:
        """Which of these versions are affected, and by what."""
        found: list[tuple[Package, str]] = []
        asked = [(package, _query(package.name) | {"version": package.version}) for package in packages]
        while asked:
            batch, asked = asked[:BATCH], asked[BATCH:]
            answer = self._ask(_Results, "/v1/querybatch", {"queries": [query for _, query in batch]})
            if len(answer.results) != len(batch):
                raise UnreachableError(
                    f"{self.service} gives {len(answer.results)} answers to {len(batch)} questions"
                )
            for (package, query), result in zip(batch, answer.results, strict=True):
                found += [(package, named.id) for named in result.vulns]
                if result.next_page_token:
                    asked.append((package, query | {"page_token": result.next_page_token}))
        records = {name: self._record(name) for name in sorted({name for _, name in found})}
        return [(package, records[name]) for package, name in found if records[name].withdrawn is None]

    def all_about(self, names: Iterable[str]) -> list[Advisory]:
        """Everything about these packages, whatever the version."""
        found: list[Advisory] = []
        for name in names:
            page = self._ask(_Page, "/v1/query", _query(name))
            found += page.vulns
            while page.next_page_token:
                page = self._ask(_Page, "/v1/query", _query(name) | {"page_token": page.next_page_token})
                found += page.vulns
        return found

    def _record(self, name: str) -> Advisory:
        return self._ask(Advisory, f"/v1/vulns/{quote(name, safe='')}")

    def _ask(self, shape: type[Shape], path: str, body: dict[str, Any] | None = None) -> Shape:
        request = urllib.request.Request(  # noqa: S310 - the constructor takes http addresses only
            self.service + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "meshd-audit"},
        )
        try:
            with urllib.request.urlopen(request, timeout=STEP_S) as answer:  # noqa: S310 - as above
                return shape.model_validate_json(answer.read())
        except urllib.error.HTTPError as error:
            error.close()
            raise UnreachableError(f"{self.service} answers {error.code} to {path}") from error
        except (OSError, HTTPException) as error:
            raise UnreachableError(f"{self.service}: {getattr(error, 'reason', None) or error}") from error
        except ValidationError as error:
            raise UnreachableError(f"{self.service} does not answer {path} as OSV does") from error


def _query(name: str) -> dict[str, Any]:
    return {"package": {"name": name, "ecosystem": ECOSYSTEM}}


def everything(service: str, packages: Sequence[Package]) -> Known:
    """What the file shall hold, from OSV itself."""
    osv = Osv(service)
    names = sorted({package.name for package in packages})
    records = within(REFRESH_S, lambda: osv.all_about(names))
    return known_of(records, packages, date=dt.datetime.now(dt.UTC).date(), source=osv.service)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=f"Write requirements/{FILE.name} anew.")
    parser.add_argument("--from", dest="export", type=Path, metavar="ZIP", help=f"a copy of {EXPORT}")
    parser.add_argument("--service", default=OSV, metavar="URL", help=f"instead of {OSV}")
    parser.add_argument(
        "--locks", type=Path, default=LOCKS, metavar="FOLDER", help="instead of requirements/"
    )
    args = parser.parse_args(argv)
    try:
        packages = locked(args.locks)
        known = from_export(args.export, packages) if args.export else everything(args.service, packages)
        write(args.locks / FILE.name, known)
    except UnreachableError as error:
        print(
            f"cannot ask OSV: {error}. Fetch {EXPORT} on a machine that can, then type: "
            "make advisories FROM=all.zip",
            file=sys.stderr,
        )
        return 1
    except AdvisoryError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"advisories: {len(known.vulns)} about {len(known.packages)} packages, as of {known.date}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
