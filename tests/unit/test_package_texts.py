"""What the package's man pages, completions and journal catalogue say is what the programs understand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import meshctl.cli
from meshd.systemd import messages
from scripts import completions, deb, manuals, reference

VERBS = [verb for group in meshctl.cli.VERBS.values() for verb in group]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_is_in_the_manual_and_in_each_completion(verb: str) -> None:
    page = manuals.meshctl_page("1")
    assert f'.SS "meshctl {verb}' in page.replace("\\-", "-")
    for option in (o for a in reference.verb_parser(verb)._actions for o in a.option_strings):
        assert option in page.replace("\\-", "-")
        for made in (completions.bash, completions.zsh):
            assert option in next(line for line in made().splitlines() if f" {verb}) " in line)
        lines = [line for line in completions.fish().splitlines() if f"from {verb}'" in line]
        assert [line for line in lines if f" {option.lstrip('-')} " in line]


@pytest.mark.parametrize("name", manuals.PAGES)
@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_man_finds_no_fault_in_a_page(name: str, tmp_path: Path) -> None:
    page = tmp_path / name
    page.write_text(manuals.PAGES[name]("1"))
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
        env={"PATH": "/usr/bin:/bin", "MANROFFSEQ": "", "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


def test_a_line_that_begins_with_a_dot_is_no_command_of_the_page() -> None:
    assert manuals.escaped(".parts\n'quoted'\n-x\\") == "\\&.parts\n\\&'quoted'\n\\-x\\e"


@pytest.mark.parametrize(
    ("shell", "made"), [("bash", completions.bash), ("zsh", completions.zsh), ("fish", completions.fish)]
)
def test_the_shell_understands_its_completion(shell: str, made: completions.Made, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "completion"
    file.write_text(made())
    done = subprocess.run([shell, "-n", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("meshctl re", {"requests", "restore"}),
        ("meshctl pin --re", {"--replicas"}),
        ("meshctl --json st", {"status"}),
        ("meshctl status pi", set()),
        ("meshctl hel", {"help"}),
        ("meshctl help approv", {"approve"}),
        ("meshctl logs ''", {"kubo", "cluster"}),
        ("meshctl --socket /x st", {"status"}),
        ("meshctl pin ./", {"FILES"}),
        ("meshctl get -o ./", {"FILES"}),
        ("meshctl rm ./", set()),
    ],
)
def test_bash_offers_what_fits(typed: str, offered: set[str], tmp_path: Path) -> None:
    file = tmp_path / "completion"
    file.write_text(completions.bash())
    words = typed.split()
    script = (
        f". {file}; compopt() {{ echo FILES; }}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1};"
        ' _meshctl; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("meshctl hel", {"help"}),
        ("meshctl logs ", {"kubo", "cluster"}),
        ("meshctl get -o /et", {"/etc/"}),
        ("meshctl rm /et", set()),
    ],
)
def test_fish_offers_what_fits(typed: str, offered: set[str], tmp_path: Path) -> None:
    file = tmp_path / "completion"
    file.write_text(completions.fish())
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {file}; complete -C '{typed}'"],
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} == offered


def test_the_journal_explains_every_condition_there_is() -> None:
    codes = reference.conditions()
    assert len(codes) > 20
    text = messages.catalogue(codes)
    for code in codes:
        assert f"-- {messages.raised_id(code)}\n" in text
        assert f"-- {messages.cleared_id(code)}\n" in text
    assert text.count("\n-- ") + 1 == 2 * len(codes), "no two share an id"


def test_the_package_starts_the_client_without_site_and_from_any_folder(tmp_path: Path) -> None:
    """What the script begins with is the kernel's business: one interpreter and one word."""
    interpreter, _, rest = deb.CLIENT.partition("\n")
    assert interpreter == "#!/usr/bin/python3 -IS"
    script = tmp_path / "meshctl"
    script.write_text(f"#!{sys.executable} -IS\n{rest.replace(f'/{deb.SHARED}', str(deb.ROOT))}")
    script.chmod(0o755)
    (tmp_path / "meshctl.py").write_text("raise SystemExit('a module of the folder that it is called in')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "MESHD_SOCKET": "/nonexistent"}
    done = subprocess.run([script, "version"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("meshctl ")


def test_the_script_that_a_wheel_installs_is_the_one_of_the_checkout() -> None:
    """Not the entry point that pip would write, which imports re."""
    installed = Path(sys.prefix, "bin", "meshctl").read_text().splitlines()
    assert installed[1:] == (deb.PACKAGING / "bin" / "meshctl").read_text().splitlines()[1:]
