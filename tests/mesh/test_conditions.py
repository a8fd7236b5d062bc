"""What is wrong is told with its cause, since when, and what to type, and goes by itself when its cause does.

Each is brought about on real programs. Told elsewhere: a full disk in test_full_disk, an address that goes in test_address, a
port that is taken in test_daemon, a key that others may read in test_looking, a node that is forgotten in test_away.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import BIN, ENGINES, Mesh, Node, Subnet, end, environment, run
from tests.mesh.pairing import until

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(120)]
_NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="making a network interface needs root")
Told = dict[str, Any]


def comes(node: Node, code: str, seconds: float = 30.0) -> Told:
    """The condition, once it holds: in words, as a document, for Prometheus and in the log it is the same."""
    condition: Told = until(lambda: node.conditions().get(code, {}), f"{node} tells {code}", seconds)
    lines = node.do("status").out.splitlines()
    began = (
        rf"{condition['severity']}: {re.escape(condition['title'])}, since (\d{{4}}-\d\d-\d\d )?\d\d:\d\d \("
    )
    (at,) = (number for number, line in enumerate(lines) if re.match(began, line))
    shown = lines[at + 1 : at + 3]
    assert shown[0].startswith("  "), "the cause"
    assert shown[1].startswith("  try: "), "what to type"
    assert f"meshd_condition{_labels(condition)} 1.0" in node.api("GET", "/metrics").text
    until(lambda: _logged(node, condition, "raised"), "its log says it")
    return condition


def goes(node: Node, condition: Told, seconds: float = 30.0) -> None:
    """It is gone by itself, everywhere, and was told once as it came and once as it went."""
    code = condition["code"]
    until(lambda: code not in node.conditions(), f"{node} tells {code} no more", seconds)
    assert condition["title"] not in node.do("status").out
    assert _labels(condition) not in node.api("GET", "/metrics").text
    since = condition["since"]
    until(lambda: _logged(node, condition, "cleared", since), "its log says that it is over")
    for what in ("raised", "cleared"):
        assert len(_logged(node, condition, what, since)) == 1, f"{what} is told once"


def _labels(condition: Told) -> str:
    return '{{code="{code}",severity="{severity}",subject="{subject}"}}'.format_map(condition)


def _logged(node: Node, condition: Told, what: str, since: float = 0.0) -> list[Told]:
    """The lines of its log about that condition, from a second before it began."""

    return [
        r
        for r in node.records()
        if r.get("event") == f"condition {what}"
        and (r.get("code"), r.get("subject")) == (condition["code"], condition["subject"])
        and datetime.fromisoformat(r["timestamp"]).timestamp() > since - 1.0
    ]


# -- a node by itself ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def interface(name: str, address: str) -> Iterator[None]:
    """An interface of that name while the block runs."""
    words = ["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"]
    try:
        subprocess.run(words, check=True, capture_output=True, timeout=20)
    except (subprocess.CalledProcessError, FileNotFoundError) as exc:
        pytest.skip(f"an interface cannot be made here: {exc}")
    try:
        for more in (["addr", "add", f"{address}/32", "dev", name], ["link", "set", name, "up"]):
            subprocess.run(["ip", *more], check=True, capture_output=True, timeout=20)
        yield
    finally:
        subprocess.run(["ip", "link", "del", name], check=True, capture_output=True, timeout=20)


@pytest.fixture
def address(subnet: Subnet) -> str:
    return f"10.232.{subnet.prefix.rpartition('.')[2]}.1"


@pytest.mark.root
@_NEEDS_ROOT
def test_a_private_network_that_is_not_there_yet(make_node: MakeNode, subnet: Subnet, address: str) -> None:
    name = f"cond{os.getpid() % 100000}"
    node = make_node(address=address, interface=name, metrics=subnet.address()).start()
    told = comes(node, "overlay-down")
    assert told["title"] == f"interface {name} cannot be used"
    assert told["cause"] == "there is no such interface"
    assert told["hint"].endswith(f"see: ip addr show {name}")
    with interface(name, address):
        goes(node, told)


@pytest.mark.root
@_NEEDS_ROOT
def test_a_private_network_that_nobody_has_named(make_node: MakeNode, subnet: Subnet, address: str) -> None:
    node = make_node(address=address, interface="wg0", metrics=subnet.address())
    text = node.config.read_text()
    node.config.write_text(text.replace('kind = "static"\ninterface = "wg0"', 'kind = "auto"'))
    if node.start().status()["overlay"]["address"] is not None:
        pytest.skip("this machine has a private overlay of its own")
    told = comes(node, "overlay-unknown")
    assert "no private overlay" in told["cause"]
    assert "[overlay]" in told["hint"]
    with interface(f"wg{os.getpid() % 100000}", address):
        goes(node, told)


# -- two nodes -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engines() -> Iterator[Path]:
    """The engines in a folder of our own, from which they can be taken away."""
    folder = Path(tempfile.mkdtemp(prefix="e"))
    for program in ENGINES.iterdir():
        (folder / program.name).symlink_to(program.resolve())
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def pair(make_nodes: MakeNode, engines: Path) -> Mesh:
    attic = make_nodes("attic", engines=engines)
    return Mesh([attic, make_nodes("barn")]).build()


@pytest.fixture
def attic(pair: Mesh) -> Node:
    pair.wait_whole()
    return pair[0]


@pytest.fixture
def barn(pair: Mesh) -> Node:
    return pair[1]


def test_a_node_that_has_joined_is_told_until_somebody_has_read_it(attic: Node) -> None:
    news = {"code": "member-joined", "subject": "barn"}
    until(lambda: attic.do("status").out and _logged(attic, news, "cleared"), "it was read")
    (line,) = _logged(attic, news, "raised")
    assert line["title"] == "barn joined, invited by attic"
    assert "barn joined" not in attic.do("status").out


def test_a_program_that_is_not_there_any_more(attic: Node, engines: Path) -> None:
    attic.stop()
    program = engines / "ipfs"
    real = program.readlink()
    program.unlink()
    try:
        attic.start()
        told = comes(attic, "service-down")
        assert told["title"] == "kubo does not run"
        assert told["cause"].startswith(f"cannot find ipfs: it is not in {engines}")
        ready = attic.api("GET", "/readyz")
        assert ready.status == 503
        assert "waiting for kubo: cannot find ipfs" in ready.text
        assert attic.api("GET", "/healthz").status == 200
    finally:
        program.symlink_to(real)
    goes(attic, told, 60)


def test_a_program_that_does_not_answer(attic: Node) -> None:
    pid = attic.pid_of("cluster")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        told = comes(attic, "service-frozen")
        assert told["title"] == "cluster runs but does not answer"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    goes(attic, told)


@pytest.fixture
def stranger(attic: Node, subnet: Subnet) -> Iterator[Callable[[], str]]:
    """A kubo that nobody admitted and that has the swarm key: what a forgotten node may be. It calls attic; its id."""
    folder = Path(tempfile.mkdtemp(prefix="k"))
    env = {"IPFS_PATH": str(folder), "HOME": str(folder), "LIBP2P_FORCE_PNET": "1"}
    program = ENGINES / "ipfs"
    assert run([program, "init", "--empty-repo", "--profile=autoconf-off"], timeout=60, **env).code == 0
    shutil.copy(attic.state / "kubo" / "swarm.key", folder)
    config = json.loads((folder / "config").read_text())
    config["Addresses"] |= {"Swarm": [f"/ip4/{subnet.address()}/tcp/4001"], "Gateway": []}
    config["Addresses"]["API"] = f"/unix{folder}/api.sock"
    config["Routing"] = {"Type": "none"}
    config["Swarm"]["DisableNatPortMap"] = True
    config["Discovery"]["MDNS"]["Enabled"] = False
    config["Bootstrap"] = []
    (folder / "config").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "daemon"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(**env),
            start_new_session=True,
        )

    def call() -> str:
        kubo_id = json.loads((attic.state / "kubo" / "config").read_text())["Identity"]["PeerID"]
        where = f"/ip4/{attic.address}/tcp/4001/p2p/{kubo_id}"
        words: list[str | Path] = [program, "--api", f"/unix{folder}/api.sock", "swarm", "connect", where]
        until(lambda: run(words, timeout=20, **env).code == 0, "it is connected", 30)
        return str(config["Identity"]["PeerID"])

    yield call
    process.terminate()
    process.wait(20)
    shutil.rmtree(folder)


def test_settings_that_somebody_changed_and_a_stranger_with_the_key(
    attic: Node, stranger: Callable[[], str]
) -> None:
    """Together, as the audit looks at both at once, and soon only while a service is young."""
    pid = attic.pid_of("kubo")
    assert pid is not None
    end(pid)
    until(lambda: attic.pid_of("kubo") not in (None, pid), "it is started again")
    attic.wait_ready()
    assert attic.kubo("config", "Routing.Type", "dht").code == 0
    caller = stranger()

    drift = comes(attic, "kubo-config-drift", 75)
    assert "Routing.Type is 'dht', must be 'none'" in drift["cause"]
    assert "restart" in drift["hint"]
    unknown = comes(attic, "swarm-stranger", 30)
    assert unknown["subject"] == caller
    assert caller in unknown["cause"]
    assert attic.ready()

    assert attic.kubo("config", "Routing.Type", "none").code == 0
    goes(attic, drift)
    attic.kubo("swarm", "disconnect", f"/p2p/{caller}")
    goes(attic, unknown)


def test_a_node_whose_machine_hangs(attic: Node, barn: Node) -> None:
    assert barn.process is not None
    barn.process.send_signal(signal.SIGSTOP)
    try:
        told = comes(attic, "peer-away", 40)
        assert told["title"] == "barn is away"
        assert "last seen 20" in told["cause"]
        assert "it did not answer in time" in told["cause"]
        assert "meshctl forget barn" in told["hint"]
    finally:
        barn.process.send_signal(signal.SIGCONT)
    goes(attic, told)


def _start_as(node: Node, changes: str) -> None:
    """Start it as a meshd that differs in what `changes` says."""
    program = f"import sys\n{changes}\nfrom meshd.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
    argv: list[str | Path] = [BIN / "python", "-c", program, "run", "--config", node.config]
    with node.log.open("ab") as log:
        node.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )


def test_a_node_of_another_version_that_has_no_room_and_one_of_another_protocol(
    attic: Node, barn: Node
) -> None:
    """One after the other and together, as each start of a node takes seconds."""
    barn.stop()
    as_it_was = barn.config.read_text()
    try:
        barn.config.write_text(as_it_was.replace('reserve = "1MiB"', 'reserve = "9999TB"'))
        _start_as(barn, "import meshd\nmeshd.__version__ = '0.0.1'")
        version = comes(attic, "peer-version", 60)
        assert "it runs 0.0.1" in version["cause"]
        assert "update meshd on barn" in version["hint"]
        full = comes(attic, "peer-full", 60)
        assert full["title"] == "barn takes no more content"
        floor = comes(barn, "disk-floor")
        assert "reserve" in floor["cause"]
        assert "meshctl trash" in floor["hint"]

        barn.stop()
        barn.config.write_text(as_it_was)
        _start_as(barn, "import meshd.mesh.protocol as p\np.PROTOCOL = 9")
        other = comes(attic, "peer-problem", 60)
        assert other["cause"] == "it speaks protocol 9 and this node 1: update meshd on this node"
        assert "meshctl version" in other["hint"]
        goes(attic, version, 60)
        goes(attic, full, 60)
    finally:
        barn.stop()
        barn.config.write_text(as_it_was)
        barn.start()
    goes(attic, other, 60)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_finds_nothing_to_complain_about(attic: Node) -> None:
    text = attic.api("GET", "/metrics").body
    found = run(["promtool", "check", "metrics"], stdin=text, timeout=20)
    assert (found.code, found.out, found.err) == (0, "", "")
