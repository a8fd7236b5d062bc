"""The form that is sent and the archive that comes back are those of the real kubo."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.meshctl.conftest import ROOT, TIMEOUT_S, Meshctl, Writer
from tests.meshctl.fake_meshd import FakeMeshd, pinned, reads_itself, send, stream

ADD = "/api/v0/add?cid-version=1&raw-leaves=true&wrap-with-directory=false&progress=false&quieter=true"


class Kubo:
    """A real kubo that talks to nobody."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self.socket = folder / "kubo.sock"
        self._env = {"IPFS_PATH": str(folder / "repo"), "PATH": os.environ.get("PATH", "")}

    async def run(self, *args: str | Path) -> str:
        process = await asyncio.create_subprocess_exec(
            self._program, *args, env=self._env, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(TIMEOUT_S):
            out, _ = await process.communicate()
        assert process.returncode == 0, args
        return out.decode().strip()

    async def start(self) -> asyncio.subprocess.Process:
        await self.run("init", "--empty-repo", "--profile", "test")
        await self.run("config", "Addresses.API", f"/unix{self.socket}")
        await self.run("config", "--json", "Addresses.Gateway", "[]")
        daemon = await asyncio.create_subprocess_exec(
            self._program, "daemon", "--offline", env=self._env, stdout=asyncio.subprocess.PIPE
        )
        assert daemon.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            while b"Daemon is ready" not in (line := await daemon.stdout.readline()):
                assert line, "kubo ended"
        return daemon


@pytest.fixture
async def kubo(short_folder: Path) -> AsyncIterator[Kubo]:
    program = shutil.which("ipfs", path=f"{ROOT}/.parts/bin{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        pytest.skip("kubo (ipfs) is not here; `make setup` brings it")
    made = Kubo(program, short_folder)
    daemon = await made.start()
    yield made
    daemon.terminate()
    await daemon.communicate()


@pytest.fixture
async def passing_on(meshd: FakeMeshd, kubo: Kubo) -> AsyncIterator[list[str]]:
    """A meshd that hands body and content through; the roots that kubo answered."""
    roots: list[str] = []
    async with aiohttp.ClientSession(
        "http://kubo", connector=aiohttp.UnixConnector(str(kubo.socket))
    ) as session:

        @reads_itself
        async def add(request: web.Request) -> web.StreamResponse:
            response = await stream(request)
            headers = {"Content-Type": request.headers["Content-Type"]}
            async with session.post(ADD, data=request.content, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                added = [json.loads(line) for line in (await answer.text()).splitlines()]
            roots.append(added[-1]["Hash"])
            for event in pinned():
                await send(response, event)
            return response

        async def content(request: web.Request) -> web.StreamResponse:
            cid = request.path.split("/")[3]
            response = web.StreamResponse(headers={"Meshd-Kind": "directory", "Meshd-Name": "back"})
            await response.prepare(request)
            async with session.post(f"/api/v0/get?arg={cid}&archive=true") as answer:
                async for data in answer.content.iter_any():
                    await response.write(data)
            return response

        meshd.does("POST", "/v1/pins", add)
        meshd.otherwise = content
        yield roots


async def test_what_kubo_keeps_is_what_it_would_have_added_itself_and_it_comes_back_the_same(
    meshctl: Meshctl, write: Writer, kubo: Kubo, passing_on: list[str]
) -> None:
    write('club/a/100% + “ü”; "quoted" \\ & =.txt', b"x" * 3_000_000)
    write("club/a b/c", b"")
    write("club/a.txt", b"\r\n--meshctl-\r\n")
    (meshctl.cwd / "club" / "hollow").mkdir()
    (meshctl.cwd / "club" / "link").symlink_to("a b/c")
    assert (await meshctl("pin", "club")).code == 0
    assert passing_on == [await kubo.run("add", "-rQ", "--cid-version=1", meshctl.cwd / "club")]
    result = await meshctl("get", passing_on[0], "-o", "back")
    assert result.code == 0, result.err
    assert await kubo.run("add", "-rQ", "--cid-version=1", meshctl.cwd / "back") == passing_on[0]
    assert (meshctl.cwd / "back" / "link").readlink() == Path("a b/c")


async def test_files_and_empty_things_are_what_kubo_would_have_made_of_them(
    meshctl: Meshctl, write: Writer, kubo: Kubo, passing_on: list[str]
) -> None:
    write("file", os.urandom(2_500_000))
    write("empty", b"")
    (meshctl.cwd / "hollow").mkdir()
    assert (await meshctl("pin", "file", "empty", "hollow")).code == 0
    content = (meshctl.cwd / "file").read_bytes()
    assert (await meshctl("pin", "-", "--name", "piped", stdin=content)).code == 0
    expected = [
        await kubo.run("add", "-rQ", "--cid-version=1", meshctl.cwd / n) for n in ("file", "empty", "hollow")
    ]
    assert passing_on == [*expected, expected[0]]
