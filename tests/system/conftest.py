"""Machines with the package installed, each as fresh as the first."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import meshd
from scripts import deb
from scripts.parts import architecture
from tests.once import once
from tests.system import machine
from tests.system.machine import Machine

OLDER, VERSION = "0.0.9", meshd.__version__
QUICKLY = "-Zgzip -z1"
NETWORK = """[Unit]
Description=the private network of the test

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip link add wg0 type veth peer name wg0-far
ExecStart=ip address add 10.7.0.1/24 dev wg0
ExecStart=ip link set wg0-far up
ExecStart=ip link set wg0 up
ExecStart=ip route add default via 10.7.0.254

[Install]
WantedBy=multi-user.target
"""
SETTINGS = """
[overlay]
kind = "static"
interface = "wg0"

[storage]
reserve = "100MiB"
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    why = machine.why_not()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(
                pytest.mark.timeout(1200)
            )  # seconds; the first one builds the package and the system, and the others wait for it
            if why:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, and the same of a lower version."""
    return once(tmp_path_factory.getbasetemp(), "packages", lambda: [_build(tmp_path_factory)])[0]


def _build(factory: pytest.TempPathFactory) -> Path:
    into, tree = factory.mktemp("packages"), factory.mktemp("older")
    made = deb.build(architecture(), VERSION, into, compression=QUICKLY)
    subprocess.run(["dpkg-deb", "-R", made, tree], check=True)  # quicker than to build it again
    about = tree / "DEBIAN" / "control"
    about.write_text(about.read_text().replace(f"Version: {VERSION}\n", f"Version: {OLDER}\n"))
    lower = into / made.name.replace(VERSION, OLDER)
    subprocess.run(["dpkg-deb", "--root-owner-group", *QUICKLY.split(), "-b", tree, lower], check=True)
    shutil.rmtree(tree)
    return into


def package(version: str = VERSION) -> str:
    """Its name inside a machine."""
    return f"/packages/meshd_{version}_{architecture()}.deb"


def install(suite: str, factory: pytest.TempPathFactory, packages: Path) -> list[Path]:
    """The layers of a machine on which the package was installed and enabled, and that has a private network."""
    name = f"installed-{suite}"
    return once(factory.getbasetemp(), name, lambda: _install(suite, factory.mktemp(name), packages))


def _install(suite: str, folder: Path, packages: Path) -> list[Path]:
    try:
        system = machine.base(suite)
    except RuntimeError as exc:  # no mirror can be reached from here
        pytest.skip(f"no Debian can be made to boot: {str(exc)[-200:]}")
    made = Machine(folder, "installed", [system], packages)
    try:
        made.boot()
        made.run(f"cat > /etc/systemd/system/private-network.service <<'END'\n{NETWORK}\nEND")
        made.run("systemctl enable --now private-network")
        made.run(f"apt-get install -y {package()}", seconds=300)
        made.run(f"cat > /etc/meshd/meshd.toml <<'END'\n{SETTINGS}\nEND")
        made.run("systemctl enable --now meshd && rm -rf /run/log/journal/* && systemctl stop meshd")
        made.run("rm -rf /var/lib/meshd/*")  # or each would be the same node
        made.stop()
    finally:
        made.remove()
    return [made.changes, system]


@pytest.fixture(scope="session")
def installed(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of a Debian 12."""
    return install(machine.BOOKWORM, tmp_path_factory, packages)


Boot = Callable[..., Machine]


@pytest.fixture
def boot(packages: Path, tmp_path: Path) -> Iterator[Boot]:
    """boot(name, layers): a machine that runs."""
    made: list[Machine] = []

    def make(name: str, layers: list[Path]) -> Machine:
        made.append(Machine(tmp_path / name, name, layers, packages))
        made[-1].boot()
        return made[-1]

    yield make
    for one in made:
        one.remove()


@pytest.fixture
def attic(boot: Boot, installed: list[Path]) -> Machine:
    """A machine on which meshd is installed and runs, in no mesh."""
    made = boot("attic", installed)
    made.until_active("meshd")
    return made


@pytest.fixture
def archive(attic: Machine) -> Machine:
    """The same, the first of the mesh `archive`."""
    attic.run("meshctl init --name archive")
    return attic


@pytest.fixture
def cable() -> Iterator[tuple[str, str]]:
    """The two ends of a veth link; each goes into a machine and ends with it."""
    ends = (f"mesh{os.getpid()}a", f"mesh{os.getpid()}b")  # as others may lay one too
    subprocess.run(["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]], check=True)
    yield ends
    subprocess.run(
        ["ip", "link", "delete", ends[0]], check=False, capture_output=True
    )  # mostly gone with a machine


@pytest.fixture(scope="session", autouse=True)
def _nothing_stays_mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    left = subprocess.run(
        ["findmnt", "-n", "-t", "overlay", "-o", "TARGET"], capture_output=True, text=True, check=False
    )
    own = f"{tmp_path_factory.getbasetemp()}/"  # others may still be at work
    assert not [line for line in left.stdout.splitlines() if own in line]
