"""The HTTP kernel: what a caller is answered when something goes wrong, before and after the answer began, and the bounds."""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from meshd.errors import Code, MeshError
from meshd.http.adapter import Api
from meshd.http.problem import Surface
from meshd.http.query import Query
from meshd.http.request import Request
from meshd.http.route import Answer, Bytes, Events, Route, Table, Text
from meshd.principal import Access, Principal
from meshd.serving import listener
from meshd.wire import ConfirmRequest, Emit, StepEvent
from tests.waiting import until

STILL_S = 20.0
FORESEEN = MeshError(Code.NO_MESH, "cannot do that", "there is no mesh", "meshctl init")
# What is raised, and what the caller is told of it: a status, a code, and whether it is news for the log.
FAULTS: dict[str, tuple[Exception, int, str, bool]] = {
    "foreseen": (FORESEEN, 409, "no-mesh", False),
    "a mistake": (RuntimeError("the inside"), 500, "internal", True),
    "an engine's answer of another shape": (ValueError("the inside"), 500, "internal", True),
    "a disk": (OSError(28, "the inside"), 500, "internal", True),
    "a socket to an engine": (ConnectionResetError(104, "the inside"), 500, "internal", True),
    "a time-out inside": (TimeoutError("the inside"), 500, "internal", True),
}
every_fault = pytest.mark.parametrize("fault", FAULTS)
Ask = Callable[..., Coroutine[Any, Any, bytes]]


class Room:
    """Answers as a test has it, and remembers the requests that came through."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Answer | Exception = Text("done\n")
        self.hangs = False

    async def handler(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.hangs:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Door:
    """Says who calls as a test has it."""

    def __init__(self) -> None:
        self.caller: Principal | MeshError = Principal(label="a reader", how="local", role="read")

    async def identify(self, _: web.BaseRequest, __: Access) -> Principal:
        if isinstance(self.caller, MeshError):
            raise self.caller
        return self.caller


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def door() -> Door:
    return Door()


def routes(room: Room) -> list[Route]:
    return [
        Route("GET", "/look", "read", room.handler, "text/plain", query=("count",)),
        Route("PUT", "/change", "admin", room.handler, "text/plain", ConfirmRequest),
        Route("PUT", "/tell", "read", room.handler, "text/plain", ConfirmRequest, body_most=100),
        Route("POST", "/bytes", "read", room.handler, "text/plain", "application/octet-stream"),
        Route("GET", "/slow", "read", room.handler, "text/plain", answer_s=0.05),
        Route("GET", "/named/{ref}", "read", room.handler, "text/plain"),
    ]


Serve = Callable[..., Awaitable[Ask]]


@pytest.fixture
async def serve(room: Room, door: Door) -> AsyncIterator[Serve]:
    """serve(surface): an asker, which sends one request as bytes and gives all that comes until the other side hangs up."""
    runners: list[web.ServerRunner] = []

    async def made(surface: Surface | None = None, more: Iterable[Route] = ()) -> Ask:
        api = Api(surface or Surface(part="test"), door.identify, [*routes(room), *more])
        runners.append(api.runner(shutdown_timeout=STILL_S, lingering_time=0.05))
        await runners[-1].setup()
        site = web.TCPSite(runners[-1], "127.0.0.1", 0)
        await site.start()
        host, port = runners[-1].addresses[0][:2]

        async def ask(
            line: str,
            body: bytes = b"",
            *,
            length: int | None = None,
            chunked: bool = False,
            expect: bool = False,
        ) -> bytes:
            reader, writer = await asyncio.open_connection(host, port)
            head = f"{line} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n"
            if chunked:
                head += "Transfer-Encoding: chunked\r\n"
            elif body or length:
                head += f"Content-Length: {len(body) if length is None else length}\r\n"
            if expect:
                head += "Expect: 100-continue\r\n"
            writer.write(head.encode("latin-1") + b"\r\n" + (b"" if expect else body))
            came = b""
            try:
                async with asyncio.timeout(STILL_S):
                    if expect and (came := await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 "):
                        writer.write(body)
                    while chunk := await reader.read(65536):
                        came += chunk
            except ConnectionResetError:
                pass  # it was cut; what came before counts
            finally:
                writer.transport.abort()
            return came

        return ask

    yield made
    for runner in runners:
        await until(functools.partial(_is_idle, runner))
        await runner.cleanup()


@pytest.fixture
async def ask(serve: Serve) -> Ask:
    return await serve()


def _is_idle(runner: web.ServerRunner) -> bool:
    return runner.server is None or not runner.server.connections


def problem(raw: bytes) -> dict[str, Any]:
    """The document of an answer, which must be a whole one."""
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head, raw
    document: dict[str, Any] = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % document["status"])
    return document


def lines(raw: bytes) -> list[dict[str, Any]]:
    """The events of an answer that was sent to its end, in chunks."""
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), raw
    assert body.endswith(b"0\r\n\r\n"), "the stream has an end"
    text = re.sub(rb"\r\n[0-9a-f]+\r\n|^[0-9a-f]+\r\n", b"", body)
    return [json.loads(line) for line in text.splitlines() if line.startswith(b"{")]


# -- faults --------------------------------------------------------------------------------------------------------


@every_fault
async def test_before_anything_was_sent_a_fault_is_a_problem_document(
    room: Room, ask: Ask, fault: str
) -> None:
    room.answer, status, code, news = FAULTS[fault]
    with capture_logs() as logs:
        raw = await ask("GET /look")
    told = problem(raw)
    assert (told["status"], told["code"], b"the inside" in raw) == (status, code, False)
    assert [log["event"] for log in logs] == (["a request failed"] if news else [])


async def _breaks(fault: Exception, begun: bytes) -> AsyncGenerator[bytes, None]:
    if begun:
        yield begun
    raise fault


@every_fault
@pytest.mark.parametrize("length", [1000, None], ids=["announced", "not announced"])
async def test_into_bytes_that_have_begun_no_error_is_written(
    room: Room, ask: Ask, fault: str, length: int | None
) -> None:
    raised, _, _, news = FAULTS[fault]
    room.answer = Bytes(_breaks(raised, b"the first bytes"), length=length)
    with capture_logs() as logs:
        raw = await ask("GET /look")
    head, _, body = raw.partition(b"\r\n\r\n")
    assert raw.count(b"HTTP/1.1 ") == head.count(b"HTTP/1.1 200 ") <= 1
    assert b"problem" not in raw
    assert b"the inside" not in raw
    assert not body.endswith(b"0\r\n\r\n"), "who reads must not take it for whole"
    assert [log["event"] for log in logs] == (["a request failed"] if news else ["an answer broke off"])


@every_fault
async def test_bytes_that_break_before_the_first_one_are_a_problem_document(
    room: Room, ask: Ask, fault: str
) -> None:
    raised, status, code, _ = FAULTS[fault]
    room.answer = Bytes(_breaks(raised, b""), length=1000)
    told = problem(await ask("GET /look"))
    assert (told["status"], told["code"]) == (status, code)


@pytest.mark.parametrize("count", [5, 15])
async def test_fewer_or_more_bytes_than_were_announced_are_no_whole_answer(
    room: Room, ask: Ask, count: int
) -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"x" * count

    room.answer = Bytes(chunks(), length=10)
    with capture_logs() as logs:
        raw = await ask("GET /look")
    assert raw.count(b"HTTP/1.1 ") <= 1
    assert [log["event"] for log in logs] == ["an answer broke off"]


async def test_what_is_whole_is_sent_with_its_length(room: Room, ask: Ask) -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"one"
        yield b"two"

    room.answer = Bytes(chunks(), length=6, headers={"Meshd-Name": "x"})
    raw = await ask("GET /look")
    assert raw.endswith(b"\r\n\r\nonetwo")
    assert b"Content-Length: 6\r\n" in raw
    assert b"Meshd-Name: x\r\n" in raw


@every_fault
async def test_in_a_stream_that_has_begun_a_fault_is_its_last_event(room: Room, ask: Ask, fault: str) -> None:
    raised, _, code, news = FAULTS[fault]

    async def work(emit: Emit) -> None:
        await emit(StepEvent(message="begun"))
        raise raised

    room.answer = Events(work)
    with capture_logs() as logs:
        raw = await ask("GET /look")
    begun, last = lines(raw)
    assert (begun["message"], last["event"], last["problem"]["code"]) == ("begun", "error", code)
    assert b"the inside" not in raw
    assert [log["event"] for log in logs] == (["a stream failed"] if news else [])


@every_fault
async def test_in_a_stream_that_has_not_begun_it_is_a_problem_document(
    room: Room, ask: Ask, fault: str
) -> None:
    raised, status, code, _ = FAULTS[fault]

    async def work(_: Emit) -> None:
        raise raised

    room.answer = Events(work)
    told = problem(await ask("GET /look"))
    assert (told["status"], told["code"]) == (status, code)


async def test_a_caller_who_goes_away_is_no_news(room: Room, serve: Serve) -> None:
    begun, gone = asyncio.Event(), asyncio.Event()
    raised: list[Exception] = []

    async def work(emit: Emit) -> None:
        await emit(StepEvent(message="begun"))
        begun.set()
        try:
            while True:
                await emit(StepEvent(message="more"))
                await asyncio.sleep(0)
        except ConnectionError as exc:
            raised.append(exc)
            raise
        finally:
            gone.set()

    room.answer = Events(work)
    ask = await serve()
    with capture_logs() as logs:
        asking = asyncio.create_task(ask("GET /look"))
        await begun.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(STILL_S):
            await gone.wait()
    assert raised
    assert logs == []


async def test_a_handler_that_takes_too_long_is_given_up(room: Room, ask: Ask) -> None:
    room.hangs = True
    with capture_logs() as logs:
        told = problem(await ask("GET /slow"))
    assert (told["code"], told["title"]) == ("not-ready", "cannot answer in time")
    assert [log["event"] for log in logs] == ["a request was not answered in time"]


# -- who may -------------------------------------------------------------------------------------------------------


async def test_nothing_is_read_and_nobody_asked_before_it_is_known_that_the_caller_may(
    room: Room, door: Door, ask: Ask
) -> None:
    """Its body, which never comes, is not waited for."""
    told = problem(await ask("PUT /change", b"{", length=50))
    assert (told["code"], told["detail"]) == ("denied", "your group may only look")
    assert room.requests == []
    door.caller = MeshError(Code.DENIED, "cannot answer", "a program that meshd supervises", "no")
    assert problem(await ask("GET /look"))["title"] == "cannot answer"
    assert room.requests == []


async def test_a_handler_is_told_who_calls(room: Room, door: Door, ask: Ask) -> None:
    door.caller = Principal(label="root", how="local", role="admin", uid=0)
    await ask("PUT /change", b'{"cids": ["a"]}')
    (request,) = room.requests
    assert request.principal is door.caller
    assert request.read(ConfirmRequest).cids == ["a"]


@pytest.mark.parametrize(
    ("hides", "code"), [(None, "not-found"), ("read", "not-found"), ("member", "denied")]
)
async def test_who_may_not_know_what_is_there_is_not_told_that_something_is_not(
    serve: Serve, hides: Access | None, code: str
) -> None:
    ask = await serve(Surface(part="test", hides=hides))
    assert problem(await ask("GET /nowhere"))["code"] == code


# -- bounds --------------------------------------------------------------------------------------------------------


async def test_a_body_is_as_long_as_the_route_says(room: Room, ask: Ask) -> None:
    def body(length: int) -> bytes:
        return b'{"cids": ["%b"]}' % (b"a" * (length - 14))

    assert len(body(100)) == 100
    assert b" 200 OK" in await ask("PUT /tell", body(100))
    assert "over 100 bytes" in problem(await ask("PUT /tell", body(101)))["detail"]
    assert len(room.requests) == 1


@pytest.mark.parametrize("expect", [False, True])
async def test_a_body_that_says_that_it_is_too_long_is_not_waited_for(ask: Ask, expect: bool) -> None:
    raw = await ask("PUT /tell", b"{", length=101, expect=expect)
    assert "over 100 bytes" in problem(raw)["detail"]


async def test_a_body_in_chunks_that_says_no_length_is_bounded_too(room: Room, ask: Ask) -> None:
    raw = await ask("PUT /tell", (b"50\r\n" + b"a" * 0x50 + b"\r\n") * 2, chunked=True)
    assert "over 100 bytes" in problem(raw)["detail"]
    assert room.requests == []


async def test_a_body_that_does_not_come_is_not_waited_for(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "BODY_S", 0.05)
    told = problem(await ask("PUT /tell", b"{", length=50))
    assert told["detail"].startswith("its body did not come within")


@pytest.mark.parametrize(
    ("line", "asked"),
    [("PUT /tell", True), ("POST /bytes", True), ("PUT /change", False), ("PUT /tell?more=1", False)],
)
async def test_who_waits_to_send_a_body_is_told_to_once_it_is_known_that_it_may(
    serve: Serve, line: str, asked: bool
) -> None:
    ask = await serve()
    raw = await ask(line, b'{"cids": []}', expect=True)
    assert raw.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n") == asked
    assert raw.count(b"HTTP/1.1 100 ") == asked


async def test_an_upload_reaches_its_handler_as_it_comes(room: Room, serve: Serve) -> None:
    taken: list[bytes] = []

    async def work(emit: Emit) -> None:
        request = room.requests[-1]
        taken.extend([chunk async for chunk in request.chunks])
        await emit(StepEvent(message=f"{request.length}"))

    room.answer = Events(work)
    ask = await serve()
    (event,) = lines(await ask("POST /bytes", b"abc" * 1000))
    assert (b"".join(taken), event["message"]) == (b"abc" * 1000, "3000")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "cids: Field required"),
        (b"{", "body: Invalid JSON"),
        (b'{"cids": 1}', "cids: Input should be a valid array"),
        (b'{"cids": [], "more": 1}', "more: Extra inputs are not permitted"),
    ],
)
async def test_a_document_of_another_shape_is_refused_by_name(
    room: Room, ask: Ask, body: bytes, what: str
) -> None:
    told = problem(await ask("PUT /tell", body))
    assert told["code"] == "bad-request"
    assert told["detail"].startswith(what)
    assert room.requests == []


async def test_of_a_document_that_is_wrong_throughout_the_first_members_are_told(
    serve: Serve, room: Room
) -> None:
    body = json.dumps({"cids": [1] * 1000}).encode()
    route = Route("PUT", "/long", "read", room.handler, "text/plain", ConfirmRequest)
    told = problem(await (await serve(more=[route]))("PUT /long", body))
    assert told["detail"].count("Input should be a valid string") == 5


@pytest.mark.parametrize(
    "target", ["/look?cuont=1", "/look?count=1&count=2", "/look?count=%ff", "/named/%ff"]
)
async def test_a_parameter_that_was_mistyped_is_not_passed_over(room: Room, ask: Ask, target: str) -> None:
    assert problem(await ask(f"GET {target}"))["code"] == "bad-request"
    assert room.requests == []


async def test_between_nodes_a_newer_one_may_say_more(room: Room, serve: Serve) -> None:
    ask = await serve(Surface(part="test", between_nodes=True, headers={"Server": "meshd"}))
    raw = await ask("GET /look?count=1&newer=1")
    assert b" 200 OK" in raw
    assert b"Server: meshd\r\n" in raw
    room.answer = MeshError(Code.FORGOTTEN, "cannot answer", by="f" * 64)
    assert problem(await ask("GET /look"))["by"] == "f" * 64


async def test_who_brought_an_error_about_is_told_between_nodes_only(room: Room, ask: Ask) -> None:
    room.answer = MeshError(Code.FORGOTTEN, "cannot answer", by="f" * 64)
    assert "by" not in problem(await ask("GET /look"))


# -- which route is meant ------------------------------------------------------------------------------------------


async def _nothing(_: Request) -> Answer:
    return Text("")


def _table(*named: str) -> Table:
    parts = [line.split(" ") for line in named]
    return Table(Route(method, path, "read", _nothing, "text/plain") for method, path in parts)


@pytest.mark.parametrize(
    ("path", "meant", "params"),
    [
        ("/v1/pins", "/v1/pins", {}),
        ("/v1/pins/a", "/v1/pins/{ref}", {"ref": "a"}),
        ("/v1/pins/a%2Fb%20c", "/v1/pins/{ref}", {"ref": "a/b c"}),
        ("/v1/pins/a{b}", "/v1/pins/{ref}", {"ref": "a{b}"}),
        ("/v1/pins/%C3%A4/files", "/v1/pins/{ref}/files", {"ref": "ä"}),
        ("/v1/pins/new", "/v1/pins/new", {}),
        ("/v1/p%69ns", "/v1/pins", {}),
        ("/v1/pins/", None, {}),
        ("/v1/pins/a/b", None, {}),
        ("/v1/pins%2Fa", None, {}),
        ("v1/pins", None, {}),
        ("*", None, {}),
        ("", None, {}),
    ],
)
def test_a_path_means_one_route(path: str, meant: str | None, params: dict[str, str]) -> None:
    table = _table("GET /v1/pins/{ref}", "GET /v1/pins", "GET /v1/pins/new", "GET /v1/pins/{ref}/files")
    found = table.find("GET", path)
    assert (found.route.path if found.route else None, found.params) == (meant, params)


def test_where_the_method_is_another_one_it_is_told_which_there_are() -> None:
    table = _table("GET /v1/pins/{ref}", "DELETE /v1/pins/{ref}", "PUT /v1/pins/{cid}")
    assert table.find("PUT", "/v1/pins/x").params == {"cid": "x"}
    found = table.find("POST", "/v1/pins/x")
    assert (found.route, found.methods) == (None, ["DELETE", "GET", "PUT"])


def test_two_routes_of_one_name_are_a_mistake_of_the_daemon() -> None:
    with pytest.raises(ValueError, match="GET /v1/pins already"):
        _table("GET /v1/pins", "GET /v1/pins")


def test_a_number_and_a_flag_are_read_strictly() -> None:
    query = Query({"a": "1", "b": "", "c": "-1", "d": "yes", "e": "true"})
    assert (query.number("a"), query.number("b"), query.number("z"), query.flag("e")) == (1, None, None, True)
    for wrong in ("c", "d"):
        with pytest.raises(MeshError, match="no whole number from 0 up"):
            query.number(wrong)
    with pytest.raises(MeshError, match="no whole number from 2 up"):
        query.number("a", least=2)
    with pytest.raises(MeshError, match="neither 0 nor 1"):
        query.flag("d")
