"""Each way in which ZeroTier One cannot be used: what it is called, what is said, and what to type."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from meshd.overlay import zerotier
from meshd.overlay.zerotier import ZeroTier, ZeroTierError
from tests.waiting import until
from tests.zerotier.conftest import AsZeroTier
from tests.zerotier.fake import FakeService
from tests.zerotier.namespaces import listen
from tests.zerotier.planet import NODE, Planet

NOBODY = 65534


async def refused(client: ZeroTier) -> ZeroTierError:
    with pytest.raises(ZeroTierError) as raised:
        await client.status()
    assert raised.value.title.startswith("cannot ")
    return raised.value


def free_port() -> int:
    with listen("") as one:
        return int(one.getsockname()[1])


# -- it can be used -----------------------------------------------------------------------------------------------------


async def test_token_and_port_are_found_in_its_folder(service: FakeService, make_client: AsZeroTier) -> None:
    assert (await make_client().status()).address == NODE


async def test_a_configured_token_and_api_are_taken(
    service: FakeService, make_client: AsZeroTier, tmp_path: Path
) -> None:
    (service.home / "authtoken.secret").rename(tmp_path / "copy")
    port = (service.home / "zerotier-one.port").read_text()
    (service.home / "zerotier-one.port").write_text("1")
    client = make_client(token_file=tmp_path / "copy", api=f"http://127.0.0.1:{port}")
    assert (await client.status()).address == NODE


async def test_a_token_that_systemd_hands_over_is_taken(
    service: FakeService, make_client: AsZeroTier, tmp_path: Path
) -> None:
    (service.home / "authtoken.secret").rename(tmp_path / "zerotier.token")
    assert (await make_client({"CREDENTIALS_DIRECTORY": str(tmp_path)}).status()).address == NODE


async def test_an_empty_token_that_systemd_hands_over_stands_for_none(
    service: FakeService, make_client: AsZeroTier, tmp_path: Path
) -> None:
    """The unit hands one over on every machine; here ZeroTier is installed and its token can be read all the same."""
    (tmp_path / "zerotier.token").write_text("\n")
    assert (await make_client({"CREDENTIALS_DIRECTORY": str(tmp_path)}).status()).address == NODE


async def test_zerotier_that_is_installed_after_meshd_was_started_takes_a_restart(
    service: FakeService, make_client: AsZeroTier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zerotier.token").write_text("\n")
    token = service.home / "authtoken.secret"

    def read_bytes(path: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> bytes:
        if path == token:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)  # as for the user meshd; root may read everything
    error = await refused(make_client({"CREDENTIALS_DIRECTORY": str(tmp_path)}))
    assert error.hint == "sudo systemctl restart meshd (it is handed over then)"


async def test_a_users_own_copy_of_the_token_is_taken(
    service: FakeService, make_client: AsZeroTier, tmp_path: Path
) -> None:
    """Where ZeroTier's own command line looks for it too."""
    (service.home / "authtoken.secret").rename(tmp_path / ".zeroTierOneAuthToken")
    assert (await make_client().status()).address == NODE


async def test_a_service_that_was_set_up_anew_is_found_again(
    service: FakeService, make_client: AsZeroTier
) -> None:
    """Another token, another port."""
    client = make_client()
    await client.status()
    await service.stop()
    assert (await refused(client)).kind == "zerotier-not-running"
    (service.home / "authtoken.secret").unlink()
    await service.start(0)
    assert (await client.status()).address == NODE


# -- it is not there ----------------------------------------------------------------------------------------------------


async def test_it_is_not_installed(make_client: AsZeroTier, tmp_path: Path) -> None:
    error = await refused(make_client())
    assert error.kind == "zerotier-not-installed"
    assert error.title == "cannot use ZeroTier: it is not installed"
    assert error.detail == f"there is no {tmp_path / 'zt'}"
    assert error.hint.startswith("install ZeroTier One as https://www.zerotier.com/download says")


@pytest.mark.parametrize("left", [True, False], ids=["the port of before", "no port"])
async def test_it_is_not_running(
    service: FakeService, make_client: AsZeroTier, left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int((service.home / "zerotier-one.port").read_text())
    await service.stop()
    if not left:
        port = free_port()
        monkeypatch.setattr(zerotier, "DEFAULT_PORT", port)
        (service.home / "zerotier-one.port").unlink()
    error = await refused(make_client())
    assert error.kind == "zerotier-not-running"
    assert error.title == "cannot ask ZeroTier One"
    assert error.detail == f"its service does not answer at http://127.0.0.1:{port}: Connection refused"
    assert error.hint == "sudo systemctl enable --now zerotier-one"


@pytest.mark.parametrize("garbage", [b"", b"no port", b"-1", b"0", b"70000", b"\xff\xfe", "²".encode()])
async def test_a_port_file_with_garbage_means_the_usual_port(
    make_client: AsZeroTier, tmp_path: Path, garbage: bytes
) -> None:
    (tmp_path / "zt").mkdir()
    (tmp_path / "zt/zerotier-one.port").write_bytes(garbage)
    assert make_client().base_url() == "http://127.0.0.1:9993"


# -- its token ----------------------------------------------------------------------------------------------------------


async def test_its_token_is_missing(service: FakeService, make_client: AsZeroTier) -> None:
    token = service.home / "authtoken.secret"
    token.unlink()
    error = await refused(make_client())
    assert error.kind == "zerotier-token"
    assert error.title == f"cannot read ZeroTier's token {token}"
    assert error.detail == "there is no such file"
    assert error.hint == "sudo systemctl restart zerotier-one"


async def test_a_service_that_was_never_started_is_to_be_started(
    make_client: AsZeroTier, tmp_path: Path
) -> None:
    """Its package makes the folder; token and identity are there after the first start."""
    (tmp_path / "zt").mkdir()
    error = await refused(make_client())
    assert error.kind == "zerotier-token"
    assert error.detail == "there is no such file: ZeroTier One was never started here"
    assert error.hint == "sudo systemctl enable --now zerotier-one"


async def test_a_configured_token_file_is_missing(make_client: AsZeroTier, tmp_path: Path) -> None:
    """Which is a mistake in the configuration, whether ZeroTier is installed or not."""
    error = await refused(make_client(token_file=tmp_path / "none"))
    assert (error.kind, error.detail) == ("zerotier-token", "there is no such file")
    assert error.hint.endswith(f"{tmp_path}/zt/authtoken.secret {tmp_path / 'none'}")


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"two\nlines"])
async def test_its_token_file_holds_no_token(
    service: FakeService, make_client: AsZeroTier, content: bytes
) -> None:
    (service.home / "authtoken.secret").write_bytes(content)
    error = await refused(make_client())
    assert (error.kind, error.detail) == ("zerotier-token", "no token stands in it")
    assert error.hint == "sudo systemctl restart zerotier-one"


async def test_its_token_file_is_a_folder(service: FakeService, make_client: AsZeroTier) -> None:
    token = service.home / "authtoken.secret"
    token.unlink()
    token.mkdir()
    error = await refused(make_client())
    assert (error.kind, error.detail) == ("zerotier-token", "Is a directory")


_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
_AS_NOBODY = """
import asyncio, sys
from pathlib import Path
from meshd.config.zerotier import ZeroTier as Config
from meshd.overlay.zerotier import ZeroTier, ZeroTierError
try:
    asyncio.run(ZeroTier(Config(home=Path(sys.argv[1])), {}.get).status())
except ZeroTierError as exc:
    print(exc.kind, exc.title, exc.detail, exc.hint, sep="\\n")
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["only the file is closed", "the folder is closed"])
def test_its_token_may_not_be_read(mode: int) -> None:
    with tempfile.TemporaryDirectory(prefix="zt", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder, "zerotier-one")
        home.mkdir(mode)
        (home / "authtoken.secret").touch(0o600)
        done = subprocess.run(
            [*_NOBODY, sys.executable, "-c", _AS_NOBODY, str(home)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    token = home / "authtoken.secret"
    assert done.stdout.splitlines() == [
        "zerotier-token",
        f"cannot read ZeroTier's token {token}",
        "user nobody may not read it",
        f"give it a copy: sudo install -D -m 0400 -o nobody {token} /etc/meshd/zerotier.token; then in"
        ' /etc/meshd/meshd.toml: [overlay.zerotier] token_file = "/etc/meshd/zerotier.token"; and: sudo systemctl'
        " restart meshd",
    ], done.stderr


async def test_its_token_was_changed(service: FakeService, make_client: AsZeroTier) -> None:
    token = service.home / "authtoken.secret"
    token.write_text("another")
    error = await refused(make_client())
    assert (error.kind, error.title) == ("zerotier-token", "cannot ask ZeroTier One")
    assert error.detail == f"it does not take the token in {token}"
    assert error.hint == "sudo systemctl restart zerotier-one"


async def test_a_configured_copy_of_the_token_is_old(
    service: FakeService, make_client: AsZeroTier, tmp_path: Path
) -> None:
    (tmp_path / "copy").write_text("of last year")
    error = await refused(make_client(token_file=tmp_path / "copy"))
    assert error.kind == "zerotier-token"
    assert error.hint == (
        f"copy it anew: sudo install -m 0400 -o {getpass.getuser()} {service.home}/authtoken.secret {tmp_path / 'copy'}"
    )


async def test_the_token_that_systemd_handed_over_is_old(
    service: FakeService, make_client: AsZeroTier, tmp_path: Path
) -> None:
    (tmp_path / "zerotier.token").write_text("of before the restart")
    error = await refused(make_client({"CREDENTIALS_DIRECTORY": str(tmp_path)}))
    assert error.kind == "zerotier-token"
    assert error.hint == "sudo systemctl restart meshd (the token was handed over when it was started)"


# -- its answers --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def answering(home: Path, answer: bytes | None) -> AsyncIterator[None]:
    """Something on the service's port that always answers so; None for not at all."""
    over = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await over.wait()
        else:
            writer.write(answer)
        writer.close()

    home.mkdir()
    (home / "authtoken.secret").write_text("token")
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    (home / "zerotier-one.port").write_text(str(server.sockets[0].getsockname()[1]))
    try:
        yield
    finally:
        over.set()
        server.close()
        await server.wait_closed()


def http(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (http(b"<html>"), "its answer is not JSON"),
        (http(b"{}"), "in its answer address: Field required"),
        (http(b"[]"), "in its answer it: Input should be a valid dictionary or instance of Status"),
        (http(b'{"address": "me"}'), "in its answer address: String should match pattern '^[0-9a-f]{10}$'"),
        (http(b"{}", b"500 Oh"), "to GET /status it answered 500"),
        (http(b"", b"302 Found\r\nLocation: http://192.0.2.1/"), "to GET /status it answered 302"),
    ],
    ids=["html", "nothing", "a list", "a strange address", "an error", "a way elsewhere"],
)
async def test_it_answers_nonsense(
    make_client: AsZeroTier, tmp_path: Path, answer: bytes, detail: str
) -> None:
    async with answering(tmp_path / "zt", answer):
        error = await refused(make_client())
    assert (error.kind, error.title) == ("zerotier-strange", "cannot understand ZeroTier One")
    assert error.detail == detail
    assert error.hint == "see that it is ZeroTier One 1.10 or newer: zerotier-cli info"


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
)
async def test_something_else_is_on_its_port(make_client: AsZeroTier, tmp_path: Path, answer: bytes) -> None:
    async with answering(tmp_path / "zt", answer):
        error = await refused(make_client())
    assert error.kind == "zerotier-not-running"
    assert error.detail.startswith("its service does not answer at http://127.0.0.1:")


@pytest.mark.parametrize("lists", ["networks", "peers"])
async def test_a_list_that_is_none_is_nonsense(make_client: AsZeroTier, tmp_path: Path, lists: str) -> None:
    """An object in its place is not an empty list: meshd would take each network for left."""
    async with answering(tmp_path / "zt", http(b'{"error": "busy"}')):
        with pytest.raises(ZeroTierError) as raised:
            await getattr(make_client(), lists)()
    assert raised.value.kind == "zerotier-strange"
    assert raised.value.detail.endswith("is no list")


async def test_it_hangs(make_client: AsZeroTier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zerotier, "_TIMEOUT_S", 0.2)
    async with answering(tmp_path / "zt", None):
        client = make_client()
        error = await refused(client)
        assert error.kind == "zerotier-not-running"
        assert error.detail == f"its service at {client.base_url()} did not answer within 0 s"
        assert error.hint == "sudo systemctl restart zerotier-one"


# -- what a network says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status", ["PORT_ERROR", "CLIENT_TOO_OLD", "AUTHENTICATION_REQUIRED", "", "A_NEW_ONE"]
)
async def test_what_a_network_says_is_passed_on(
    planet: Planet, service: FakeService, make_client: AsZeroTier, status: str
) -> None:
    """Also a status that is not known yet."""
    url = "https://sso.example/login" if status == "AUTHENTICATION_REQUIRED" else ""
    network = planet.make_network(NODE, {})["id"]
    planet.force(network, NODE, status, url)
    client = make_client()
    await client.join(network)

    async def says() -> bool:
        found = await client.network(network)
        return found is not None and (found.status, found.login_url) == (status, url)

    await until(says)
    assert [one.status for one in await client.networks()] == [status]
