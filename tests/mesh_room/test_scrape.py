"""A Prometheus on another machine of the overlay reads the metrics with a token, over real TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from meshd.http.request import Request
from meshd.http.route import Route, Text
from meshd.mesh import tls
from tests.mesh_room.nodes import Node

TOKEN = "0123456789abcdef"


async def metrics(_: Request) -> Text:
    return Text("meshd_ready 1.0\n")


@pytest.fixture
async def attic(make_node: Callable[..., Node], tmp_path: Path) -> Node:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    node = make_node("attic")
    route = Route("GET", "/metrics", "scraper", metrics, "text/plain")
    node.make_server(token_file=tmp_path / "token", more=[route])
    await node.start()
    await node.found()
    return node


async def ask(node: Node, authorization: str | None, method: str = "GET") -> tuple[int, str]:
    """As a program that is no meshd: status and body."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    headers = {} if authorization is None else {"Authorization": authorization}
    url = f"https://{node.listen}:{node.port}/metrics"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers=headers, ssl=context) as response,
    ):
        return response.status, await response.text()


@pytest.mark.parametrize("spelled", ["Bearer", "bearer"])
async def test_who_has_the_token_reads_the_metrics(attic: Node, spelled: str) -> None:
    assert await ask(attic, f"{spelled} {TOKEN}") == (200, "meshd_ready 1.0\n")


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}0",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer ä",
    ],
)
async def test_nobody_else_does(attic: Node, authorization: str | None) -> None:
    status, answer = await ask(attic, authorization)
    assert status == 403
    assert "denied" in answer
    assert "meshd_ready" not in answer


@pytest.mark.parametrize(
    "value", [b"Bearer \xff\xfe" + b"0" * 16, b"\xff", b"Bearer \xc3", b"Bearer \xed\xa0\x80"]
)
async def test_bytes_that_are_no_text_are_a_wrong_token_and_no_news(attic: Node, value: bytes) -> None:
    with capture_logs() as logs:
        reader, writer = await asyncio.open_connection(attic.listen, attic.port, ssl=tls.stranger_context())
        writer.write(
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: %b\r\n\r\n" % value
        )
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"meshd_ready" not in answer
    assert logs == []


async def test_the_token_opens_nothing_else(attic: Node) -> None:
    assert (await ask(attic, f"Bearer {TOKEN}", "POST"))[0] == 403


async def test_a_new_token_is_taken_at_once_and_the_old_one_no_more(attic: Node, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("another token of the owner")
    assert (await ask(attic, f"Bearer {TOKEN}"))[0] == 403
    assert (await ask(attic, "Bearer another token of the owner"))[0] == 200


@pytest.mark.parametrize("content", ["", "short", None])
async def test_a_file_without_a_good_token_lets_nobody_in_and_the_log_says_why(
    attic: Node, tmp_path: Path, content: str | None
) -> None:
    (tmp_path / "token").unlink()
    if content is not None:
        (tmp_path / "token").write_text(content)
    with capture_logs() as logs:
        assert (await ask(attic, f"Bearer {content or ''}"))[0] == 403
    assert [log["file"] for log in logs if log["log_level"] == "error"] == [str(tmp_path / "token")]


async def test_without_a_token_file_there_is_no_such_thing(make_node: Callable[..., Node]) -> None:
    node = make_node("attic")
    await node.start()
    await node.found()
    assert (await ask(node, f"Bearer {TOKEN}"))[0] == 403
