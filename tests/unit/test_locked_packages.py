"""The locked packages against advisories: which versions are hit, what is accepted and until when, with and without OSV."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import audit, osv
from scripts.advisories import LOCKS, Advisory, AdvisoryError, Package, locked, read
from tests.unit.osv_stand_in import StandIn, serving

TODAY = dt.datetime.now(dt.UTC).date()
TOMORROW, YESTERDAY = TODAY + dt.timedelta(days=1), TODAY - dt.timedelta(days=1)
LOCK = """\
# What meshd runs with.
Rope.Ladder==1.4.2 ; python_version < '3.12' \\
    --hash=sha256:00 \\
    --hash=sha256:01
rung==2.0 \\
    --hash=sha256:02
"""
ROPE = Package("rope-ladder", "1.4.2")


def record(
    name: str = "GHSA-1", *events: dict[str, str], package: str = "rope-ladder", **more: Any
) -> dict[str, Any]:
    """An advisory as OSV writes it; unless said otherwise, 1.5 mends it."""
    affected = {
        "package": {"ecosystem": "PyPI", "name": package},
        "ranges": [{"type": "ECOSYSTEM", "events": events or ({"introduced": "0"}, {"fixed": "1.5"})}],
    }
    return {
        "id": name,
        "modified": "2026-01-01T00:00:00Z",
        "summary": "It frays",
        "affected": [affected],
        **more,
    }


def affects(version: str, *events: dict[str, str], **more: Any) -> bool:
    return Advisory.model_validate(record("GHSA-1", *events, **more)).affects(Package("rope-ladder", version))


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    (tmp_path / "run.txt").write_text(LOCK)
    keep(tmp_path)
    return tmp_path


@pytest.fixture
def service() -> Iterator[StandIn]:
    with serving() as stand_in:
        yield stand_in


def keep(locks: Path, *vulns: dict[str, Any], date: dt.date = TODAY) -> None:
    """Write the file that answers where there is no network."""
    known = {"date": str(date), "source": "a test", "packages": ["rope-ladder", "rung"], "vulns": vulns}
    (locks / "advisories.json").write_text(json.dumps(known))


def accept(
    locks: Path, until: dt.date, *, name: str = "GHSA-1", package: str = "rope-ladder", more: str = ""
) -> None:
    (locks / "accepted.toml").write_text(
        f'[[accept]]\nid = "{name}"\npackage = "{package}"\nwhy = "nobody climbs"\nuntil = {until}\n{more}'
    )


def offline(locks: Path) -> int:
    return audit.main(["--offline", "--locks", str(locks)])


def online(locks: Path, service: StandIn, *more: str) -> int:
    return audit.main(["--service", service.url, "--locks", str(locks), *more])


# -- what is locked ------------------------------------------------------------------------------------------------


def test_every_line_of_every_lock_is_audited(locks: Path) -> None:
    (locks / "dev.txt").write_text(LOCK.replace("rung==2.0", "rung==2.1"))
    assert locked(locks) == [ROPE, Package("rung", "2.0"), Package("rung", "2.1")]


def test_the_locks_of_this_checkout_can_be_read() -> None:
    names = {package.name for package in locked()}
    assert {"aiohttp", "cffi", "pytest", "systemd-python", "uv"} <= names, (
        "one of each lock, and one with a marker"
    )


@pytest.mark.parametrize(
    "line", ["rung>=2.0", "rung", "rung==2.*", "rung @ file:///rung", "-e .", "rung===two"]
)
def test_a_lock_that_names_no_exact_version_is_refused(locks: Path, line: str) -> None:
    (locks / "run.txt").write_text(f"{LOCK}{line}\n")
    with pytest.raises(AdvisoryError, match=r"line 7 .*make lock"):
        locked(locks)


def test_no_lock_at_all_is_no_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path)
    assert offline(tmp_path) == 1
    assert "cannot audit" in capsys.readouterr().err


# -- which versions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "hit"),
    [
        ("0.dev1", True),
        ("0.9", True),
        ("1.4.2", True),
        ("1.5rc1", True),
        ("1.5", False),
        ("1.5.0", False),
        ("1.10", False),
    ],
)
def test_a_version_is_hit_until_the_one_that_mends_it(version: str, hit: bool) -> None:
    assert affects(version) == hit


@pytest.mark.parametrize(
    ("version", "hit"),
    [
        ("0.9", False),
        ("1.0", True),
        ("1.2", False),
        ("1.9", False),
        ("2.0", True),
        ("2.3", True),
        ("2.4", False),
    ],
)
def test_ranges_in_any_order_begin_and_end(version: str, hit: bool) -> None:
    events = ({"introduced": "2.0"}, {"last_affected": "2.3"}, {"introduced": "1.0"}, {"fixed": "1.2"})
    assert affects(version, *events) == hit


def test_a_range_without_an_end_hits_all_that_follow() -> None:
    assert affects("99", {"introduced": "1.0"})
    assert not affects("0.9", {"introduced": "1.0"})


def test_a_listed_version_is_hit_however_it_is_written() -> None:
    affected = {
        "package": {"ecosystem": "PyPI", "name": "Rope_Ladder"},
        "versions": ["1.4.2.0", "not-a-version"],
    }
    assert affects("1.4.2", affected=[affected])
    assert not affects("1.4.3", affected=[affected])


def test_commits_of_a_repository_are_no_versions() -> None:
    affected = record()["affected"][0]
    affected["ranges"][0]["type"] = "GIT"
    assert not affects("1.4.2", affected=[affected])


def test_a_package_of_another_name_or_ecosystem_is_not_hit() -> None:
    assert not affects("1.4.2", package="rope")
    elsewhere = record()["affected"][0]
    elsewhere["package"]["ecosystem"] = "npm"
    assert not affects("1.4.2", affected=[elsewhere])


def test_what_was_withdrawn_hits_nothing() -> None:
    assert not affects("1.4.2", withdrawn="2026-02-01T00:00:00Z")


def test_a_range_that_cannot_be_compared_hits_so_that_a_person_looks() -> None:
    assert affects("1.4.2", {"introduced": "0"}, {"fixed": "the-second-of-may"})


# -- from the file -------------------------------------------------------------------------------------------------


def test_the_file_finds_what_is_locked_and_says_its_date(
    locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(locks, record(aliases=["CVE-1"]), record("GHSA-2", {"introduced": "3.0"}, package="rung"))
    assert offline(locks) == 1
    out, err = capsys.readouterr()
    assert f"advisories.json of {TODAY}" in out
    assert "rope-ladder 1.4.2: GHSA-1 (CVE-1): It frays; mended in 1.5" in err
    assert "rung" not in err
    assert "make lock UPGRADE=1" in err


def test_a_mended_version_passes(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(locks, record())
    (locks / "run.txt").write_text(LOCK.replace("1.4.2", "1.5"))
    assert offline(locks) == 0
    out, err = capsys.readouterr()
    assert "the locks pass" in out
    assert not err


def test_one_fault_under_two_names_is_told_once(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(
        locks,
        record("CVE-1", summary=""),
        record("PYSEC-1", aliases=["GHSA-1"], summary=""),
        record(aliases=["CVE-1"]),
    )
    assert offline(locks) == 1
    err = capsys.readouterr().err
    assert "rope-ladder 1.4.2: GHSA-1 (CVE-1, PYSEC-1): It frays; mended in 1.5" in err
    assert "1 above" in err


def test_a_file_that_is_old_or_lacks_a_package_says_so(
    locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(locks, date=TODAY - dt.timedelta(days=91))
    (locks / "dev.txt").write_text("knot==1\n")
    assert offline(locks) == 0
    out = capsys.readouterr().out
    assert "91 days old; where OSV can be reached, type: make advisories" in out
    assert "may lack advisories about knot;" in out


@pytest.mark.parametrize(
    "text", [None, "", "{}", '{"date": "2026-01-01", "source": "x", "packages": [], "vulns": [{}]}']
)
def test_a_file_that_cannot_be_read_is_no_pass(
    locks: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    file = locks / "advisories.json"
    file.unlink() if text is None else file.write_text(text)
    assert offline(locks) == 1
    assert "type: make advisories" in capsys.readouterr().err


def test_the_file_of_this_checkout_finds_an_old_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.txt").write_text("aiohttp==3.8.0\n")
    (tmp_path / "advisories.json").write_bytes((LOCKS / "advisories.json").read_bytes())
    assert offline(tmp_path) == 1
    assert "aiohttp 3.8.0: GHSA-" in capsys.readouterr().err


# -- what is accepted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [TODAY, TOMORROW])
@pytest.mark.parametrize("name", ["GHSA-1", "CVE-1"])
def test_an_accepted_advisory_passes_and_is_still_told(
    locks: Path, capsys: pytest.CaptureFixture[str], until: dt.date, name: str
) -> None:
    keep(locks, record(aliases=["CVE-1"]))
    accept(locks, until, name=name, package="Rope_Ladder")
    assert offline(locks) == 0
    assert f"accepted until {until}, as nobody climbs: rope-ladder 1.4.2: GHSA-1" in capsys.readouterr().out


def test_an_acceptance_is_for_its_own_advisory_and_package(locks: Path) -> None:
    keep(locks, record(), record("GHSA-2"))
    accept(locks, TOMORROW)
    assert offline(locks) == 1, "GHSA-2 is not accepted"
    keep(locks, record())
    accept(locks, TOMORROW, package="rung")
    assert offline(locks) == 1, "it is accepted for another package"


@pytest.mark.parametrize("vulns", [[record()], []], ids=["still-hits", "mended-since"])
def test_an_acceptance_that_has_ended_fails(
    locks: Path, capsys: pytest.CaptureFixture[str], vulns: list[dict[str, Any]]
) -> None:
    keep(locks, *vulns)
    accept(locks, YESTERDAY)
    assert offline(locks) == 1
    err = capsys.readouterr().err
    assert f"the acceptance of GHSA-1 (rope-ladder) ended on {YESTERDAY}" in err
    assert ("It frays" in err) == bool(vulns)


def test_an_acceptance_of_nothing_is_told(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accept(locks, TOMORROW)
    assert offline(locks) == 0
    assert "it can go" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        '[[accept]]\nid = "GHSA-1"\npackage = "rope-ladder"\nuntil = 2999-01-01\n',
        '[[accept]]\nid = "GHSA-1"\npackage = "rope-ladder"\nwhy = " "\nuntil = 2999-01-01\n',
        '[[accept]]\nid = "GHSA-1"\npackage = "rope-ladder"\nwhy = "nobody climbs"\n',
        '[[accept]]\nid = "GHSA-1"\npackage = "rope-ladder"\nwhy = "x"\nuntil = 2999-01-01\nfrom = 2000-01-01\n',
        '[[accepted]]\nid = "GHSA-1"\n',
        "[[accept]\n",
    ],
    ids=["no-reason", "empty-reason", "no-end", "unknown-key", "unknown-table", "no-toml"],
)
def test_an_acceptance_needs_a_reason_and_an_end(
    locks: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    keep(locks, record())
    (locks / "accepted.toml").write_text(text)
    assert offline(locks) == 1
    assert "cannot read" in capsys.readouterr().err


# -- from OSV ------------------------------------------------------------------------------------------------------


def test_osv_is_asked_before_the_file(
    locks: Path, service: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(locks, record("GHSA-9"))
    service.records = {
        "GHSA-1": record(),
        "GHSA-2": record("GHSA-2", package="rung"),
        "GHSA-3": record("GHSA-3"),
    }
    service.affected = {("rope-ladder", "1.4.2"): ["GHSA-1", "GHSA-3"], ("rung", "1.9"): ["GHSA-2"]}
    assert online(locks, service) == 1
    out, err = capsys.readouterr()
    assert f"2 locked packages, asked of {service.url}" in out
    assert [line.split(": ")[1] for line in err.splitlines()[:-1]] == ["GHSA-1", "GHSA-3"], "from two pages"
    assert service.asked == ["/v1/querybatch", "/v1/querybatch", "/v1/vulns/GHSA-1", "/v1/vulns/GHSA-3"]


def test_what_osv_has_withdrawn_is_no_finding(locks: Path, service: StandIn) -> None:
    service.records = {"GHSA-1": record(withdrawn="2026-02-01T00:00:00Z")}
    service.affected = {("rope-ladder", "1.4.2"): ["GHSA-1"]}
    assert online(locks, service) == 0


def test_an_acceptance_counts_for_what_osv_finds(locks: Path, service: StandIn) -> None:
    service.records = {"GHSA-1": record()}
    service.affected = {("rope-ladder", "1.4.2"): ["GHSA-1"]}
    accept(locks, TOMORROW)
    assert online(locks, service) == 0
    accept(locks, YESTERDAY)
    assert online(locks, service) == 1


@pytest.mark.parametrize("fault", ["500", "html", "short", "silent", "drip"])
def test_the_file_answers_where_osv_does_not(
    locks: Path, service: StandIn, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    keep(locks, record())
    service.fault = fault
    began = time.monotonic()
    assert online(locks, service, "--seconds", "1") == 1
    assert time.monotonic() - began < osv.STEP_S, "nothing waits for longer than it was told to"
    out, err = capsys.readouterr()
    assert "OSV cannot be asked" in out
    assert "GHSA-1" in err


def test_the_file_answers_where_there_is_no_network(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as gone:
        pass
    assert online(locks, gone) == 0
    assert "OSV cannot be asked" in capsys.readouterr().out
    keep(locks, record())
    assert online(locks, gone) == 1


def test_offline_asks_nobody(locks: Path, service: StandIn) -> None:
    assert online(locks, service, "--offline") == 0
    assert service.asked == []


def test_one_answer_may_not_be_silent_for_ever(service: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(osv, "STEP_S", 0.2)
    service.fault = "silent"
    with pytest.raises(osv.UnreachableError, match="timed out"):
        osv.Osv(service.url).findings([ROPE])


def test_the_program_ends_though_an_answer_does_not(locks: Path, service: StandIn) -> None:
    service.fault = "drip"
    command = [
        sys.executable,
        "-m",
        "scripts.audit",
        "--service",
        service.url,
        "--locks",
        str(locks),
        "--seconds",
        "0.5",
    ]
    done = subprocess.run(command, cwd=LOCKS.parent, capture_output=True, text=True, timeout=60, check=True)
    assert "no whole answer within 0.5 seconds" in done.stdout


def test_an_address_of_another_kind_is_refused(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["--service", "file:///etc", "--locks", str(locks)]) == 1
    assert "cannot ask 'file:///etc'" in capsys.readouterr().err


# -- make advisories -----------------------------------------------------------------------------------------------


def test_the_file_gets_all_about_each_locked_package(locks: Path, service: StandIn) -> None:
    mended, fork = (
        record("GHSA-2", {"introduced": "0"}, {"fixed": "1.0"}, details="long"),
        record("GHSA-3", package="fork"),
    )
    mended["affected"].append(fork["affected"][0])
    gone = record("GHSA-4", withdrawn="2026-02-01T00:00:00Z")
    service.records = {r["id"]: r for r in (mended, record(), fork, gone)}
    assert osv.main(["--service", service.url, "--locks", str(locks)]) == 0
    known = read(locks / "advisories.json")
    assert (known.date, known.packages) == (TODAY, ["rope-ladder", "rung"])
    assert [vuln.id for vuln in known.vulns] == ["GHSA-1", "GHSA-2"], (
        "those mended long ago too, and no others"
    )
    assert known.vulns[1] == Advisory.model_validate(record("GHSA-2", {"introduced": "0"}, {"fixed": "1.0"}))
    assert "long" not in (locks / "advisories.json").read_text(), "what only people read is left out"
    assert offline(locks) == 1


def test_the_file_stays_where_osv_cannot_be_asked(
    locks: Path, service: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(locks, record())
    before = (locks / "advisories.json").read_bytes()
    service.fault = "500"
    assert osv.main(["--service", service.url, "--locks", str(locks)]) == 1
    assert (locks / "advisories.json").read_bytes() == before
    assert "make advisories FROM=all.zip" in capsys.readouterr().err


def test_the_file_can_be_made_from_a_copy_of_osvs_export(locks: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as export:
        export.writestr("GHSA-1.json", json.dumps(record(modified="2026-03-05T10:00:00Z")))
        export.writestr(
            "GHSA-2.json", json.dumps(record("GHSA-2", package="fork", modified="2026-03-06T10:00:00Z"))
        )
    assert osv.main(["--from", str(tmp_path / "all.zip"), "--locks", str(locks)]) == 0
    known = read(locks / "advisories.json")
    assert ([vuln.id for vuln in known.vulns], known.date) == (["GHSA-1"], dt.date(2026, 3, 6))


@pytest.mark.parametrize("whole", [True, False])
def test_an_export_with_nothing_in_it_is_refused(
    locks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: bool
) -> None:
    if whole:
        zipfile.ZipFile(tmp_path / "all.zip", "w").close()
    else:
        (tmp_path / "all.zip").write_bytes(b"PK")
    before = (locks / "advisories.json").read_bytes()
    assert osv.main(["--from", str(tmp_path / "all.zip"), "--locks", str(locks)]) == 1
    assert (locks / "advisories.json").read_bytes() == before
    assert "fetch it anew" in capsys.readouterr().err
