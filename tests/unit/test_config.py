"""The configuration file: every key has a default, and a mistake is told with its key and what was expected."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from meshd import config
from meshd.config import Config, parse_duration, parse_size
from meshd.errors import Code, MeshError


def parse(text: str) -> Config:
    return config.parse(text, "meshd.toml")


def refusal(text: str) -> MeshError:
    with pytest.raises(MeshError) as caught:
        parse(text)
    assert caught.value.code is Code.BAD_CONFIG
    return caught.value


# -- defaults ------------------------------------------------------------------------------------------------------


def test_no_file_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "meshd.toml")
    assert config.load(None) == parse("")


def test_the_defaults_are_those_of_the_design() -> None:
    made = parse("")
    assert (made.state, made.paths.run) == (Path("/var/lib/meshd"), Path("/run/meshd"))
    assert (made.ports.swarm, made.ports.cluster, made.ports.peer) == (4001, 9096, 4010)
    assert made.storage.reserve == 5 * 2**30
    assert made.storage.offer is None
    assert made.pins.replicas == 3
    assert made.pins.trash == 30 * 86400
    assert made.metrics.listen == "127.0.0.1:4011"
    assert made.overlay.kind == "auto"
    assert made.node.name


def test_the_example_of_the_design_is_understood() -> None:
    made = parse("""
        [node]
        name = "attic"
        site = ""
        [paths]
        state = "/var/lib/meshd"
        run = "/run/meshd"
        [overlay]
        kind = "static"
        address = "127.0.0.2"
        [ports]
        swarm = 4001
        cluster = 9096
        peer = 4010
        [storage]
        reserve = "5GiB"
        offer = "1TB"
        [pins]
        replicas = "all"
        trash = "30d"
        [metrics]
        listen = ""
    """)
    assert made.node.name == "attic"
    assert made.overlay.address == "127.0.0.2"
    assert made.storage.offer == 10**12
    assert made.pins.replicas == "all"
    assert made.metrics.listen == ""


def test_the_sockets_are_where_the_design_says() -> None:
    made = parse('paths.run = "/run/m"')
    assert made.control_socket == Path("/run/m/meshd.sock")
    assert made.private_sockets == Path("/run/m/private")


def test_paths_become_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    assert parse('paths.state = "here"').state == Path("/tmp/here")


# -- mistakes ------------------------------------------------------------------------------------------------------

MISTAKES = [
    ("a name with a space", '[node]\nname = "my attic"', "node.name", "expected 1 to 63"),
    ("a name that is no text", "[node]\nname = 5", "node.name", "text in quotes"),
    ("an empty name", '[node]\nname = ""', "node.name", "expected 1 to 63"),
    ("a name that looks like an option", '[node]\nname = "-v"', "node.name", "a letter or digit at either end"),
    ("a name that is too long", f'[node]\nname = "{"a" * 64}"', "node.name", "expected 1 to 63"),
    ("a site that would colour a terminal", '[node]\nsite = "\\u001b[31m"', "node.site", "printable"),
    ("a name that would colour a terminal", '[node]\nname = "a\\u001b[31m"', "node.name", "(got 'a\\x1b[31m')"),
    ("a name written backwards", '[node]\nname = "a\\u202e"', "node.name", "(got 'a\\u202e')"),
    ("a name with a letter beyond ASCII", '[node]\nname = "dachgeschoß"', "node.name", "a-z, A-Z"),
    ("no path", '[paths]\nstate = ""', "paths.state", "expected a path"),
    ("a path that is no text", "[paths]\nrun = 5", "paths.run", "expected a path in quotes"),
    ("a path with a zero in it", '[paths]\nrun = "/a\\u0000b"', "paths.run", "printable"),
    ("a port in words", '[ports]\nswarm = "many"', "ports.swarm", "expected a whole number (got 'many')"),
    ("a site that is too long", f'[node]\nsite = "{"a" * 64}"', "node.site", "63"),
    ("a size in words", '[storage]\nreserve = "lots"', "storage.reserve", '"5GiB"'),
    ("a negative size", "[storage]\nreserve = -1", "storage.reserve", '"5GiB"'),
    ("a size that is a truth", "[storage]\nreserve = true", "storage.reserve", '"5GiB"'),
    ("a size with a fraction and no unit of text", "[storage]\nreserve = 1.5", "storage.reserve", '"5GiB"'),
    ("an endless size", f'[storage]\nreserve = "{"9" * 400}"', "storage.reserve", '"5GiB"'),
    ("an offer in words", '[storage]\noffer = "some"', "storage.offer", '"5GiB"'),
    ("a duration without a unit", '[pins]\ntrash = "30"', "pins.trash", '"30d"'),
    ("a duration in a list", "[pins]\ntrash = [30]", "pins.trash", '"30d"'),
    ("an endless duration", "[pins]\ntrash = inf", "pins.trash", '"30d"'),
    ("a duration that is no number", "[pins]\ntrash = nan", "pins.trash", '"30d"'),
    ("no copies", "[pins]\nreplicas = 0", "pins.replicas", 'or "all"'),
    ("half a copy", "[pins]\nreplicas = 1.5", "pins.replicas", 'or "all"'),
    ("copies in words", '[pins]\nreplicas = "some"', "pins.replicas", 'or "all"'),
    ("a port below 1", "[ports]\nswarm = 0", "ports.swarm", "greater than or equal to 1"),
    ("a port above 65535", "[ports]\npeer = 65536", "ports.peer", "less than or equal to 65535"),
    ("a port used twice", "[ports]\nswarm = 4010", "ports", "three different ports"),
    ("a seed with a space", '[mesh]\nseeds = ["attic.lan", "b c"]', "mesh.seeds.1", '"10.144.0.23:4010"'),
    ("a seed that is no text", "[mesh]\nseeds = [4010]", "mesh.seeds.0", "text in quotes"),
    ("a seed that is empty", '[mesh]\nseeds = [""]', "mesh.seeds.0", "expected a host name"),
    ("a seed that is a URL", '[mesh]\nseeds = ["https://attic"]', "mesh.seeds.0", "expected a host name"),
    ("a seed on the Internet", '[mesh]\nseeds = ["8.8.8.8"]', "mesh.seeds.0", "8.8.8.8 is not private"),
    ("a seed that is everywhere", '[mesh]\nseeds = ["0.0.0.0"]', "mesh.seeds.0", "is not private"),
    ("a seed with a slip in its address", '[mesh]\nseeds = ["10.0.0.256"]', "mesh.seeds.0", "expected a host name"),
    ("a seed with port 0", '[mesh]\nseeds = ["attic:0"]', "mesh.seeds.0", "a port from 1 to 65535"),
    ("a seed with a port too high", '[mesh]\nseeds = ["attic:65536"]', "mesh.seeds.0", "a port from 1 to 65535"),
    ("a seed with half a port", '[mesh]\nseeds = ["attic:"]', "mesh.seeds.0", "expected a host name"),
    ("a name in brackets", '[mesh]\nseeds = ["[attic]:1"]', "mesh.seeds.0", "expected a host name"),
    ("one seed that is no list", '[mesh]\nseeds = "attic"', "mesh.seeds", "expected a list"),
    ("too many seeds", f"[mesh]\nseeds = {['a'] * 33}", "mesh.seeds", "at most 32 items"),
    ("metrics on every address", '[metrics]\nlisten = "0.0.0.0:4011"', "metrics.listen", "loopback"),
    ("metrics on the LAN", '[metrics]\nlisten = "192.168.1.2:4011"', "metrics.listen", "loopback"),
    ("metrics on a name", '[metrics]\nlisten = "localhost:4011"', "metrics.listen", "loopback"),
    ("metrics without a port", '[metrics]\nlisten = "127.0.0.1"', "metrics.listen", "loopback"),
    ("metrics on port 0", '[metrics]\nlisten = "127.0.0.1:0"', "metrics.listen", "loopback"),
    ("an unknown kind of overlay", '[overlay]\nkind = "carrier"', "overlay.kind", "'auto', 'static' or 'zerotier'"),
    ("static without an address", '[overlay]\nkind = "static"', "overlay", 'interface = "wg0"'),
    (
        "static with both",
        '[overlay]\nkind = "static"\naddress = "10.0.0.1"\ninterface = "wg0"',
        "overlay",
        "either address",
    ),
    ("an address without a kind", '[overlay]\naddress = "10.0.0.1"', "overlay", 'kind = "static"'),
    ("an address that is none", '[overlay]\nkind = "static"\naddress = "attic"', "overlay.address", "'attic' is not an IP"),
    ("an interface's name that is too long", f'[overlay]\nkind = "static"\ninterface = "{"w" * 16}"', "overlay.interface", "15"),
    ("an unknown level", '[log]\nlevel = "loud"', "log.level", "'debug'"),
    ("an unknown format", '[log]\nformat = "xml"', "log.format", "'json'"),
    ("an unknown key", "[ports]\nswram = 4001", "ports.swram", "expected one of swarm, cluster, peer"),
    ("an unknown section", "[port]\nswarm = 4001", "port", "expected one of node, paths, overlay, ports"),
    ("a section that is none", "ports = 4001", "ports", "expected a section: [ports]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("attic", "attic", None),
        ("attic.lan:4010", "attic.lan", 4010),
        ("meshd-0.meshd.mesh.svc.cluster.local.", "meshd-0.meshd.mesh.svc.cluster.local.", None),
        ("10.144.0.23", "10.144.0.23", None),
        ("10.144.0.23:1", "10.144.0.23", 1),
        ("100.64.0.1:65535", "100.64.0.1", 65535),
        ("fd00::1", "fd00::1", None),
        ("[FD00::0:1]:4010", "fd00::1", 4010),
        ("[fd00::1]", "fd00::1", None),
    ],
)
def test_a_seed_is_a_name_or_an_address_with_or_without_a_port(
    text: str, host: str, port: int | None
) -> None:
    assert config.parse_where(text) == (host, port)
    assert parse(f'[mesh]\nseeds = ["{text}"]').mesh.seeds == [text]


ZT, ON = "[overlay.zerotier]\n", '[[overlay.zerotier.networks]]\nid = "8056c2e21c000001"\n'
CENTRAL = 'admin = "central"\nadmin_token_file = "/x"\n'
FIRST = "overlay.zerotier.networks.0"
MISTAKES += [
    ("no folder of ZeroTier", ZT + 'home = ""', "overlay.zerotier.home", "expected a path"),
    ("a folder of ZeroTier that is no text", ZT + "home = 5", "overlay.zerotier.home", "expected a path in quotes"),
    ("no token file", ZT + 'token_file = ""', "overlay.zerotier.token_file", "expected a path"),
    ("ZeroTier of another machine", ZT + 'api = "http://10.0.0.1:9993"', "overlay.zerotier.api", '"http://127.0.0.1:9993"'),
    ("ZeroTier without a port", ZT + 'api = "http://127.0.0.1"', "overlay.zerotier.api", '"http://127.0.0.1:9993"'),
    ("ZeroTier at port 0", ZT + 'api = "http://localhost:0"', "overlay.zerotier.api", '"http://127.0.0.1:9993"'),
    ("ZeroTier at a port too high", ZT + 'api = "http://[::1]:65536"', "overlay.zerotier.api", '"http://127.0.0.1:9993"'),
    ("an unknown key of ZeroTier", ZT + "port = 1", "overlay.zerotier.port", "expected one of home, api, token_file, networks"),
    ("networks that are no sections", ZT + 'networks = "8056c2e21c000001"', "overlay.zerotier.networks", "expected a list"),
    ("a network without an id", "[[overlay.zerotier.networks]]", f"{FIRST}.id", "it is not there"),
    ("a network's id that is too short", ON.replace("01", "0"), f"{FIRST}.id", '16 hex digits such as "8056c2e21c000001"'),
    ("a network's id that is not hex", ON.replace("8056", "805g"), f"{FIRST}.id", "16 hex digits"),
    ("a network's id that is a number", ON.replace('"8056c2e21c000001"', "8056"), f"{FIRST}.id", "16 hex digits"),
    ("a network twice", ON + ON.upper().replace("ID =", "id =").replace("OVERLAY.ZEROTIER.NETWORKS", "overlay.zerotier.networks"),
     "overlay.zerotier", "8056c2e21c000001 stands there twice"),
    ("auto_join in words", ON + 'auto_join = "sometimes"', f"{FIRST}.auto_join", "expected true or false"),
    ("probe in words", ON + 'probe = "gently"', f"{FIRST}.probe", "expected true or false"),
    ("a host that is in no list", ON + 'prefer_hosts = "10.144.0.23"', f"{FIRST}.prefer_hosts", "expected a list"),
    ("a host by its name", ON + 'prefer_hosts = ["attic"]', f"{FIRST}.prefer_hosts.0", 'such as "10.144.0.23"'),
    ("a host that is a range", ON + 'prefer_hosts = ["10.1.1.1", "10.1.1.0/24"]', f"{FIRST}.prefer_hosts.1", 'such as "10.144.0.23"'),
    ("an unknown kind of admin", ON + 'admin = "me"', f"{FIRST}.admin", "'controller', 'central' or 'central-v2'"),
    ("Central without a token", ON + 'admin = "central-v2"', FIRST, "takes admin_token_file"),
    ("Central with an empty token file", ON + 'admin = "central"\nadmin_token_file = ""', f"{FIRST}.admin_token_file", "expected a path"),
    ("a token without Central", ON + 'admin_token_file = "/x"', FIRST, 'belong to admin = "central"'),
    ("a token in the file itself", ON + CENTRAL + 'admin_token = "secret"', f"{FIRST}.admin_token", "expected one of id, auto_join"),
    ("a URL without Central", ON + 'admin = "controller"\nadmin_url = "https://x"', FIRST, 'belong to admin = "central"'),
    ("a URL of another kind", ON + CENTRAL + 'admin_url = "ftp://x"', f"{FIRST}.admin_url", "expected an https URL"),
    ("a URL that anybody can read along", ON + CENTRAL + 'admin_url = "http://example.org/api"', f"{FIRST}.admin_url", "expected an https URL"),
    ("a URL that only looks local", ON + CENTRAL + 'admin_url = "http://127.0.0.1.example.org/"', f"{FIRST}.admin_url", "expected an https URL"),
    ("a URL with a password", ON + CENTRAL + 'admin_url = "https://me:pw@x/api"', f"{FIRST}.admin_url", "expected an https URL"),
    ("a URL with a query", ON + CENTRAL + 'admin_url = "https://x/api?a=b"', f"{FIRST}.admin_url", "expected an https URL"),
    ("ZeroTier with an address of one's own", '[overlay]\nkind = "zerotier"\naddress = "10.0.0.1"', "overlay", 'kind = "static"'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "key", "expected"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_names_its_key_and_what_was_expected(text: str, key: str, expected: str) -> None:
    error = refusal(text)
    assert error.title == "cannot use meshd.toml"
    (line,) = error.detail.splitlines()
    assert line.startswith(f"{key}: ")
    assert expected in line
    assert error.hint.endswith("meshd check --config meshd.toml")


def test_all_mistakes_are_told_at_once() -> None:
    error = refusal('[ports]\nswarm = 0\n[pins]\ntrash = "x"\nreplica = 1')
    assert [line.partition(":")[0] for line in error.detail.splitlines()] == [
        "ports.swarm",
        "pins.trash",
        "pins.replica",
    ]


def test_what_was_given_is_shown() -> None:
    assert "(got 'x')" in refusal('[pins]\ntrash = "x"').detail


def test_a_section_given_twice_is_told_with_its_line() -> None:
    error = refusal("[pins]\n[pins]\n")
    assert "not TOML" in error.detail
    assert "line 2" in error.detail


def test_networks_are_understood_as_people_who_share_stores_write_them() -> None:
    made = parse("""
        [overlay.zerotier]
        token_file = "zerotier.token"
        [[overlay.zerotier.networks]]
        id = "8056C2E21C000001"
        auto_join = true
        prefer_hosts = ["10.144.0.23", "fd80:56c2:e21c:0:199:93a1:b2c3:d4e5"]
        admin = "central"
        admin_token_file = "/etc/meshd/central.token"
        [[overlay.zerotier.networks]]
        id = "a325774dfb000001"
        admin = "central-v2"
        admin_token_file = "/etc/meshd/new.token"
        admin_url = "http://127.0.0.1:8080/api/v2/"
        probe = false
    """).overlay.zerotier
    first, second = made.networks
    assert (first.id, first.auto_join, first.probe) == ("8056c2e21c000001", True, True)
    assert first.prefer_hosts == ["10.144.0.23", "fd80:56c2:e21c:0:199:93a1:b2c3:d4e5"]
    assert (second.auto_join, second.probe, second.admin_url) == (
        False,
        False,
        "http://127.0.0.1:8080/api/v2",
    )
    assert made.network("a325774dfb000001") == second
    assert made.network("1111111111111111").auto_join is False
    assert made.token_file == Path("zerotier.token").absolute()
    assert parse("").overlay.zerotier.home == Path("/var/lib/zerotier-one")


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2001:4860:4860::8888", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:8.8.8.8"],
)
def test_an_address_that_is_not_private_is_refused(address: str) -> None:
    error = refusal(f'[overlay]\nkind = "static"\naddress = "{address}"')
    assert f"{address} is not private" in error.detail


@pytest.mark.parametrize(
    "address", ["127.0.0.2", "10.1.2.3", "192.168.1.2", "172.16.0.1", "100.64.0.7", "fd00::1", "::1"]
)
def test_a_private_address_is_taken(address: str) -> None:
    assert parse(f'[overlay]\nkind = "static"\naddress = "{address}"').overlay.address == address


def test_a_socket_path_may_be_just_as_long_as_the_kernel_takes() -> None:
    longest = "/" + "r" * (107 - len("//private/cluster.sock"))
    assert len(os.fsencode(f"{longest}/private/cluster.sock")) == 107
    assert parse(f'paths.run = "{longest}"').paths.run == Path(longest)
    error = refusal(f'paths.run = "{longest}rrr"')
    assert "paths.run: " in error.detail
    assert "110 bytes" in error.detail
    assert "3 bytes shorter" in error.detail


def test_a_socket_path_is_measured_in_bytes_not_in_letters() -> None:
    assert "paths.run: " in refusal(f'paths.run = "/{"ü" * 50}"').detail


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('[node]\nname = "attic"\n')
    assert config.load(file).node.name == "attic"


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("[pins]\nreplicas = 0\n")
    with pytest.raises(MeshError, match=str(file)):
        config.load(file)


@pytest.mark.parametrize(
    ("content", "why"), [(None, "no such file"), (b"\xff\xfe", "not UTF-8"), ("folder", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_told(content: bytes | str | None, why: str, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        file.mkdir()
    with pytest.raises(MeshError) as caught:
        config.load(file)
    assert caught.value.code is Code.BAD_CONFIG
    assert caught.value.title == f"cannot read {file}"
    assert why in caught.value.detail


# -- sizes and durations -------------------------------------------------------------------------------------------


def outcome(read: Callable[[object], float], text: str) -> float | str:
    """What it reads, or what it says to that."""
    try:
        return read(text)
    except ValueError as error:
        return str(error)


UNITS = {"": 1, "B": 1, "k": 2**10, "KB": 10**3, "KiB": 2**10, "M": 2**20, "MB": 10**6, "MiB": 2**20}
UNITS |= {"GB": 10**9, "GiB": 2**30, "TB": 10**12, "TiB": 2**40, "PB": 10**15, "PiB": 2**50, "gib": 2**30}
SPACE = st.sampled_from(["", " "])


@given(st.integers(0, 2**18), st.sampled_from(sorted(UNITS)), SPACE)
@example(5, "GiB", "")
def test_a_size_is_its_number_times_its_unit(count: int, unit: str, space: str) -> None:
    assert parse_size(f"{count}{space}{unit}") == count * UNITS[unit]


@given(st.integers(0, 2**63))
def test_a_number_is_a_size_in_bytes(count: int) -> None:
    assert parse_size(count) == count


def test_a_size_may_have_a_fraction() -> None:
    assert parse_size("1.5GiB") == 3 * 2**29


@given(st.text())
@example("5 apples")
@example("-5GiB")
@example("1e3")
@example("5GiB of it")
@example("9" * 400)
def test_any_other_text_is_no_size_and_that_is_said(text: str) -> None:
    size = outcome(parse_size, text)
    assert '"5GiB"' in size if isinstance(size, str) else size >= 0


SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@given(st.integers(0, 10**4), st.sampled_from(sorted(SECONDS)), SPACE)
@example(30, "d", "")
def test_a_duration_is_its_number_times_its_unit(count: int, unit: str, space: str) -> None:
    assert parse_duration(f"{count}{space}{unit}") == count * SECONDS[unit]


@given(st.floats(0, 10**9))
def test_a_number_is_a_duration_in_seconds(count: float) -> None:
    assert parse_duration(count) == count


@given(st.text())
@example("30 days")
@example("-1h")
@example("9" * 400 + "d")
def test_any_other_text_is_no_duration_and_that_is_said(text: str) -> None:
    seconds = outcome(parse_duration, text)
    assert '"30d"' in seconds if isinstance(seconds, str) else 0 <= seconds < float("inf")
