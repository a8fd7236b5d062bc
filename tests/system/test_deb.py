"""The package's file, before anybody installs it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts import deb
from scripts.gobuild import BuildError
from scripts.parts import architecture
from tests.system.conftest import QUICKLY, VERSION


def _file(packages: Path) -> Path:
    return packages / f"meshd_{VERSION}_{architecture()}.deb"


@pytest.fixture(scope="session")
def unpacked(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in it."""
    tree = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["dpkg-deb", "-x", _file(packages), tree], check=True)
    return tree


@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed")
def test_lintian_finds_no_error(packages: Path) -> None:
    command = ["lintian", "--allow-root", "--fail-on", "error", "--tag-display-limit=0", str(_file(packages))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_same_sources_give_the_same_bytes(packages: Path, tmp_path: Path) -> None:
    again = deb.build(architecture(), VERSION, tmp_path, compression=QUICKLY)
    assert again.read_bytes() == _file(packages).read_bytes()


def test_nothing_in_it_belongs_to_a_user_or_may_be_written_by_one(packages: Path) -> None:
    listed = subprocess.run(["dpkg-deb", "-c", _file(packages)], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        mode, owner = line.split()[:2]
        assert owner == "root/root", line
        assert mode.startswith("l") or "w" not in mode[5:], line
        assert "s" not in mode, line


def test_every_compiled_module_is_there_for_every_python(unpacked: Path) -> None:
    made: dict[str, set[int]] = {}
    for path in (unpacked / deb.SHARED).rglob("*.so"):
        name, tag = path.name.split(".")[:2]
        if tag != "abi3":  # which is for all of them
            made.setdefault(f"{path.parent}/{name}", set()).add(
                int(tag.removeprefix("cpython-3").split("-")[0])
            )
    assert len(made) > 5
    assert all(there == set(deb.MINORS) for there in made.values()), made


def test_what_compiled_modules_need_is_in_depends(packages: Path, unpacked: Path) -> None:
    of = {"libgcc_s": "libgcc-s1", "libstdc++": "libstdc++6"}  # the library's package; of all others libc6
    depends = subprocess.run(
        ["dpkg-deb", "-f", _file(packages), "Depends"], capture_output=True, text=True, check=True
    ).stdout
    modules = sorted((unpacked / deb.SHARED).rglob("*.so"))
    told = subprocess.run(["objdump", "-p", *modules], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"NEEDED\s+(\S+)\.so", told)) - {"ld-linux-x86-64", "ld-linux-aarch64"}
    assert needed - of.keys() == {"libc", "libm", "libdl", "libpthread", "librt"}
    for package in ("libc6", *of.values()):
        assert re.search(rf"(^|, ){re.escape(package)}( |,|$)", depends.strip()), package


@pytest.mark.parametrize("minor", deb.MINORS)
def test_it_is_imported_by(minor: int, unpacked: Path) -> None:
    found = shutil.which(f"python3.{minor}")
    if found is None or subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"python3.{minor} is not installed")
    site = unpacked / deb.HOME / f"lib/python3.{minor}/site-packages"
    look = (
        f"import site; site.addsitedir({str(site)!r})\n"
        "import aiohttp._http_parser, aiohttp._websocket.reader_c, cryptography.x509, pydantic, yarl._quoting_c\n"
        "import meshd.daemon, meshctl.cli; print(meshd.__file__)"
    )
    done = subprocess.run([found, "-I", "-B", "-c", look], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(unpacked / deb.SHARED / "meshd/__init__.py"), done.stderr


def test_a_lock_that_is_not_the_same_for_every_python_is_refused() -> None:
    lock = "# made\none==1 \\\n    --hash=sha256:aa\ntwo==2 ; python_full_version < '3.13' \\\n    --hash=sha256:bb\n"
    with pytest.raises(BuildError, match="two is locked for some versions of Python only"):
        deb.locked(lock)
    assert deb.locked(
        lock.replace("python_full_version < '3.13'", "implementation_name != 'PyPy'")
    ).keys() == {
        "one",
        "two",
    }


def test_wheels_with_different_modules_of_one_name_are_refused(tmp_path: Path) -> None:
    for python, text in (("11", "a = 1"), ("12", "a = 2")):
        deb.put(tmp_path / python / "one.py", text)
        deb.put(tmp_path / python / "one-1.dist-info" / "RECORD", text)
    deb.lay(tmp_path / "11", tmp_path / "shared")
    with pytest.raises(BuildError, match=r"one\.py is not the same for every version of Python"):
        deb.lay(tmp_path / "12", tmp_path / "shared")
    assert not list((tmp_path / "shared").glob("*.dist-info"))
