"""Builds dist/meshd_VERSION_ARCH.deb: `make deb`, `make deb ARCH=arm64`.

In it are a locked virtual environment for the distribution's own Python, kubo and ipfs-cluster, the units, man pages
and completions. Nothing is fetched when it is installed. The same sources give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from meshd import __version__
from meshd.systemd import messages
from scripts import completions, manuals, reference
from scripts.gobuild import BuildError, Go
from scripts.parts import CLUSTER, KUBO, PROGRAMS, Program, architecture, cache_folder

ROOT = Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
# The Python 3 of Debian 12, Ubuntu 24.04, Debian 13, Ubuntu 26.04: one package runs with each of them, so that it neither
# holds back the upgrade of a distribution nor breaks with it.
MINORS = (11, 12, 13, 14)
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
ENGINES = tuple(program for program in PROGRAMS if program.name in ("ipfs", "ipfs-cluster-service"))
HOME = "usr/lib/meshd"
SHARED = f"{HOME}/lib/python3"  # the packages; a compiled module is there once a Python, by the name that this one looks for
UNTRUE = ("RECORD", "WHEEL")  # what a wheel says of itself alone, when it lies with its sisters
DIRECTORIES = 0o755
DAEMON = '#!/bin/sh\nexec /usr/lib/meshd/bin/python -I -m meshd "$@"\n'
# The client needs the standard library alone, so no site, no shell and no runpy: it starts in half the time.
CLIENT = """#!/usr/bin/python3 -IS
import sys

sys.path.append("/usr/lib/meshd/lib/python3")

from meshctl.cli import main

sys.exit(main())
"""
# path in the package -> file in packaging/
PLAIN = {
    "usr/lib/systemd/system/meshd.service": "systemd/meshd.service",
    "usr/lib/systemd/user/meshd.service": "systemd/meshd.user.service",
    "usr/lib/sysusers.d/meshd.conf": "systemd/meshd.sysusers",
    "usr/lib/tmpfiles.d/meshd.conf": "systemd/meshd.tmpfiles",
    "usr/share/doc/meshd/examples/ports.conf": "systemd/ports.conf",
    "usr/share/doc/meshd/examples/zerotier-central.conf": "systemd/zerotier-central.conf",
    "usr/share/doc/meshd/examples/user.toml": "systemd/user.toml",
    "usr/share/lintian/overrides/meshd": "debian/lintian-overrides",
    "usr/share/python3/runtime.d/meshd.rtupdate": "debian/meshd.rtupdate",
    "etc/meshd/meshd.toml": "debian/meshd.toml",
}
SCRIPTS = ("postinst", "prerm", "postrm")


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Its output. Raises BuildError with the command's own words."""
    try:
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildError(f"cannot build the package: {command[0]} is not installed") from None
    if done.returncode:
        raise BuildError(f"cannot build the package: {command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def put(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def packed(content: str) -> bytes:
    """gzip without a name and a time."""
    return gzip.compress(content.encode(), 9, mtime=0)


# -- what is in it -------------------------------------------------------------------------------------------------


def environment(tree: Path, arch: str) -> list[str]:
    """The virtual environment: what requirements/run.txt locks, and meshd itself. `name version` of each."""
    home, shared = tree / HOME, tree / SHARED
    requirements = locked((ROOT / "requirements" / "run.txt").read_text())
    wanted = requirements  # and after the first Python, those with a wheel for each
    for minor in MINORS:
        with tempfile.TemporaryDirectory(prefix="meshd-wheels-") as folder:
            wheels(wanted, minor, arch, Path(folder))
            wanted = {name: requirements[name] for name in sorted(per_python(Path(folder)))}
            lay(Path(folder), shared)
        # A folder by this name is where Python looks; a link in its place would not replace the folder of an older package.
        put(home / f"lib/python3.{minor}/site-packages/meshd.pth", "../../python3\n")
    for package in ("meshd", "meshctl"):
        for file in sorted((ROOT / package).rglob("*.py")):
            put(shared / file.relative_to(ROOT), file.read_bytes())
    # Debian's own build of systemd-python: for both architectures, and with the security updates of the machine.
    (shared / "systemd").symlink_to("/usr/lib/python3/dist-packages/systemd")
    put(home / "pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")
    (home / "bin").mkdir()
    (home / "bin" / "python").symlink_to("/usr/bin/python3")
    return sorted(
        " ".join(info.name.removesuffix(".dist-info").rsplit("-", 1)) for info in shared.glob("*.dist-info")
    )


def locked(text: str) -> dict[str, str]:
    """name -> its lines in a lock, with the hashes. Raises BuildError."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\w)", "\n".join(line for line in text.splitlines() if line[:1] != "#")):
        name, mark, _ = entry.strip().partition("==")
        if not mark:
            raise BuildError(f"cannot build the package: {entry!r} in the lock is no name==version")
        # Of such a marker pip asks the Python that runs it, not the one that is meant.
        if re.search(r"python_(full_)?version", entry):
            raise BuildError(f"cannot build the package: {name} is locked for some versions of Python only")
        found[name] = entry.strip() + "\n"
    return found


def wheels(requirements: dict[str, str], minor: int, arch: str, into: Path) -> None:
    """Unpacks the wheels of these requirements for CPython 3.minor."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    chosen = ["--python-version", f"3.{minor}", "--implementation", "cp"]
    for abi in (f"cp3{minor}", "abi3", "none"):
        chosen += ["--abi", abi]
    for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_31", "manylinux_2_34"):
        chosen += ["--platform", f"{tag}_{MACHINES[arch]}"]
    exactly = ["--require-hashes", "--only-binary=:all:", "--no-deps", "--no-compile"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as lock:
        lock.write("".join(requirements.values()))
        lock.flush()
        run(*pip, *chosen, *exactly, "-r", lock.name, "--target", into)
    shutil.rmtree(into / "bin", ignore_errors=True)  # commands of the packages; meshd calls none


def lay(source: Path, target: Path) -> None:
    """Adds the wheels of one Python to those of the others. Raises BuildError where two differ in a file of one name."""
    for path in files_in(source):
        name = path.relative_to(source)
        about = name.parts[0].endswith(".dist-info")
        if about and name.name in UNTRUE:
            continue
        there = target / name
        if not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, there)
        elif not about and there.read_bytes() != path.read_bytes():  # about: serial numbers and times
            raise BuildError(f"cannot build the package: {name} is not the same for every version of Python")


def per_python(site: Path) -> set[str]:
    """The names, as the lock writes them, of the wheels there that are for one Python: not pure, nor of the stable ABI."""
    return {
        info.name.partition("-")[0].replace("_", "-").lower()
        for info in site.glob("*.dist-info")
        if re.search(r"^Tag: (cp\d+)-\1-", (info / "WHEEL").read_text(), re.MULTILINE)
    }


def engine(program: Program, arch: str) -> Path:
    """The program for that machine, built where it is not in the cache."""
    module = program.module
    folder = cache_folder() / f"{module.name}-{module.version}-{arch}"
    if not (folder / program.name).is_file():
        go = Go(module, arch, instead="put it into " + str(folder))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            go.build(go.fetch(), f"./cmd/{program.name}", Path(work) / program.name)
            (Path(work) / program.name).rename(folder / program.name)
    return folder / program.name


def stripped(source: Path, target: Path, arch: str) -> None:
    """Without the debugger's tables; a Go program's own stack traces need none."""
    prefix = "" if arch == architecture() else f"{MACHINES[arch]}-linux-gnu-"
    target.parent.mkdir(parents=True, exist_ok=True)
    run(f"{prefix}strip", "-o", target, source)
    target.chmod(0o755)


def documents(tree: Path, version: str, packages: list[str]) -> None:
    for name, page in manuals.PAGES.items():
        section = name.rpartition(".")[2]
        put(tree / f"usr/share/man/man{section}/{name}.gz", packed(page(__version__)))
    for name, made in completions.FILES.items():
        put(tree / name, made())
    codes = reference.conditions()
    put(tree / "usr/lib/systemd/catalog/meshd.catalog", messages.catalogue(codes))
    about = tree / "usr/share/doc/meshd"
    put(about / "changelog.gz", packed(changelog(version)))
    put(about / "NEWS.gz", packed((ROOT / "CHANGELOG.md").read_text()))
    words = (PACKAGING / "debian" / "copyright.in").read_text()
    put(
        about / "copyright",
        words.format(
            kubo=KUBO.version,
            kubo_module=KUBO.at,
            cluster=CLUSTER.version,
            cluster_module=CLUSTER.at,
            packages=", ".join(packages),
        ),
    )


def changelog(version: str) -> str:
    when = run("date", "--utc", "--rfc-email", "--date", f"@{epoch()}").strip()
    return (
        f"meshd ({version}) stable; urgency=medium\n\n  * What changed is in NEWS.gz.\n\n"
        f" -- {maintainer()}  {when}\n"
    )


def maintainer() -> str:
    found = re.search(r"^Maintainer: (.+)$", (PACKAGING / "debian" / "control.in").read_text(), re.MULTILINE)
    assert found is not None  # noqa: S101 - the file is ours
    return found.group(1)


def epoch() -> str:
    """The time of every file: of the last commit, or SOURCE_DATE_EPOCH."""
    return os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct").strip()


# -- the package ---------------------------------------------------------------------------------------------------


def fill(tree: Path, arch: str, version: str) -> None:
    """Everything but DEBIAN/."""
    packages = environment(tree, arch)
    for program in ENGINES:
        stripped(engine(program, arch), tree / HOME / "engines" / program.name, arch)
    for command, launcher in (("meshd", DAEMON), ("meshctl", CLIENT)):
        put(tree / "usr/bin" / command, launcher, 0o755)
    for name, source in PLAIN.items():
        content = (PACKAGING / source).read_bytes()
        put(tree / name, content, 0o755 if content.startswith(b"#!") else 0o644)
    documents(tree, version, packages)
    for path in [tree, *tree.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(DIRECTORIES)
        elif not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & 0o100 and path.suffix not in (".py", ".so") else 0o644)


def files_in(tree: Path) -> Iterator[Path]:
    return (path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink())


def control(tree: Path, arch: str, version: str) -> None:
    """DEBIAN/: the control file, sums, the conffile, and the scripts."""
    files = list(files_in(tree))
    sums = "".join(
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}\n"
        for path in files
    )
    size = sum((path.stat().st_size + 1023) // 1024 for path in files)
    text = (PACKAGING / "debian" / "control.in").read_text()
    place = tree / "DEBIAN"
    put(
        place / "control",
        text.format(
            version=version,
            architecture=arch,
            size=size,
            python=f"3.{MINORS[0]}",
            python_after=f"3.{MINORS[-1] + 1}",
        ),
    )
    put(place / "md5sums", sums)
    put(place / "conffiles", "/etc/meshd/meshd.toml\n")
    for name in SCRIPTS:
        put(place / name, (PACKAGING / "debian" / name).read_bytes(), 0o755)


def build(arch: str, version: str, into: Path, compression: str = "-Zxz") -> Path:
    """The package's file. Raises BuildError. compression: as dpkg-deb takes it; "-Zgzip -z1" is quick."""
    into.mkdir(parents=True, exist_ok=True)
    target = into / f"meshd_{version}_{arch}.deb"
    with tempfile.TemporaryDirectory(prefix="meshd-deb-") as work:
        tree = Path(work) / "tree"
        tree.mkdir()
        fill(tree, arch, version)
        control(tree, arch, version)
        env = os.environ | {"SOURCE_DATE_EPOCH": epoch()}
        draft = Path(work) / target.name
        run("dpkg-deb", "--root-owner-group", *compression.split(), "--build", tree, draft, env=env)
        shutil.copyfile(draft, target)
    return target


def main() -> int:
    parser = argparse.ArgumentParser(prog="make deb", description="build the Debian package")
    parser.add_argument("--arch", choices=MACHINES, default=architecture())
    parser.add_argument("--version", default=__version__)
    parser.add_argument("--into", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    try:
        print(build(options.arch, options.version, options.into))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
