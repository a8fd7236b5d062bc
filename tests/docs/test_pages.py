"""What the pages say about the program holds: commands exist, links lead somewhere, the references are fresh."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import meshctl.cli
from meshd import __main__ as daemon
from meshd import config
from scripts import reference
from tests.docs.pages import DOCS, PAGES, ROOT, Line, anchors, blocks, commands_shown, links

HOW_TO_CONDITIONS = DOCS / "how-to" / "read-what-is-wrong.md"
_PLACEHOLDERS = {"VERB": "status", "N": "2", "ID": "8056c2e21c000001"}
_SHOWN = [line for page in PAGES for line in commands_shown(page)]
_CONFIGURATIONS = [
    (page, part.split("```")[0]) for page in PAGES for part in page.read_text().split("```toml\n")[1:]
]


class _ParsedError(Exception):
    """The command line was understood."""


def _parse_meshctl(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def client(*_: object) -> None:
        raise _ParsedError

    monkeypatch.setattr("meshctl.client.Client", client)
    monkeypatch.setattr("meshctl.cli._bug", _raise)
    meshctl.cli.main(arguments)


def _raise(error: Exception) -> None:
    raise error


def _parse_meshd(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: Path | None) -> config.Config:
        raise _ParsedError

    monkeypatch.setattr(daemon, "load", load)
    daemon.main(arguments)


def _understood(line: Line, monkeypatch: pytest.MonkeyPatch) -> bool:
    program, *arguments = [_PLACEHOLDERS.get(word, word) for word in shlex.split(line.text)]
    if line.prose and len(arguments) == 1 and program == "meshctl":
        return arguments[0] in {
            "--version",
            *(verb for group in meshctl.cli.VERBS.values() for verb in group),
        }
    parse = _parse_meshctl if program == "meshctl" else _parse_meshd
    if arguments[-1] in ("--version", "--help"):
        with pytest.raises(SystemExit) as ended:
            parse(arguments, monkeypatch)
        return ended.value.code == 0
    try:
        parse(arguments, monkeypatch)
    except (_ParsedError, SystemExit) as ended:
        return isinstance(ended, _ParsedError)
    return False


@pytest.mark.parametrize("line", _SHOWN, ids=str)
def test_every_command_that_is_shown_exists(
    line: Line, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _understood(line, monkeypatch), f"{line}\n{capsys.readouterr().err}"


def test_commands_are_found_where_they_stand() -> None:
    pages = {line.page for line in _SHOWN}
    assert {ROOT / "README.md", DOCS / "tutorial.md", HOW_TO_CONDITIONS} <= pages
    assert len(_SHOWN) > 100


def test_a_command_that_is_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (
        "meshctl pni x",
        "meshctl pin --copies 3 x",
        "meshctl rm",
        "meshd start",
        "meshd run --conf",
    ):
        assert not _understood(Line(PAGES[0], 0, text), monkeypatch), text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for number, target in links(page):
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        if not other.exists() or (anchor and anchor not in anchors(other)):
            broken.append(f"{page.relative_to(ROOT)}:{number}: {target}")
    assert not broken


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_the_configuration_that_is_shown(tmp_path: Path) -> None:
    page = DOCS / "how-to" / "operate.md"
    (shown,) = [lines for _, language, lines in blocks(page) if language == "yaml"]
    (tmp_path / "meshd.token").write_text("secret")
    made = tmp_path / "prometheus.yml"
    made.write_text("\n".join(shown).replace("/etc/prometheus/", f"{tmp_path}/") + "\n")
    done = subprocess.run(["promtool", "check", "config", made], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_page_is_in_the_index() -> None:
    index = DOCS / "README.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for _, target in links(index)}
    there = {path for path in DOCS.rglob("*") if path.suffix in (".md", ".json") and path != index}
    assert there <= linked


def test_the_references_say_what_the_code_does() -> None:
    assert reference.main(["--check"]) == 0, "type: make docs"


def test_a_reference_that_has_drifted_is_named(tmp_path: Path) -> None:
    reference.write(reference.PAGES, tmp_path)
    assert reference.drifted(tmp_path) == []
    page = tmp_path / "config.md"
    page.write_text(page.read_text().replace("5GiB", "6GiB"))
    (tmp_path / "errors.md").unlink()
    assert reference.drifted(tmp_path) == ["config.md", "errors.md"]


def test_the_configuration_in_the_reference_is_the_default() -> None:
    text = reference.config().split("```toml\n")[1].split("```")[0]
    assert config.parse(text, "the reference") == config.parse("", "the defaults")
    for section, model, many in reference.sections():
        heading = f"\n# [[{section}]]\n" if many else f"[{section}]\n"
        below = text.partition(heading)[2].partition("\n\n")[0]
        keys = {key for key, field in model.model_fields.items() if reference.section_in(field) is None}
        shown = {line.removeprefix("# ").partition(" =")[0].partition(":")[0] for line in below.splitlines()}
        assert keys == shown, section


def test_the_ways_to_a_private_network_are_shown_as_configurations() -> None:
    pages = {page.name for page, _ in _CONFIGURATIONS}
    assert pages >= {"README.md", "config.md", "add-a-machine.md", "use-wireguard-or-tailscale.md"}


@pytest.mark.parametrize(
    ("page", "text"),
    _CONFIGURATIONS,
    ids=[f"{page.relative_to(ROOT)}-{n}" for n, (page, _) in enumerate(_CONFIGURATIONS)],
)
def test_a_configuration_that_is_shown_is_valid(page: Path, text: str) -> None:
    assert config.parse(text, str(page)) != config.parse("", "the defaults") or page.name == "config.md"


def test_every_condition_is_explained() -> None:
    known, explained = set(reference.conditions()), anchors(HOW_TO_CONDITIONS)
    assert known <= explained, "each condition has a heading that says what to type"
    assert len(known) >= 10
