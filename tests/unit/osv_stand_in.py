"""A stand-in for OSV's API on a real socket: it answers from a table, in pages of one, and can fail in each way that it may."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


class StandIn:
    """`affected` says which (name, version) which ids are about; `records` has the advisories by id."""

    def __init__(self) -> None:
        self.affected: dict[tuple[str, str], list[str]] = {}
        self.records: dict[str, Json] = {}
        self.asked: list[str] = []  # the path of each request
        self.fault: str | None = None  # "500", "html", "short", "silent", or "drip"
        self.url = ""
        self.ends = threading.Event()  # what is silent ends with the server

    def answer(self, path: str, body: Json) -> Json:
        match path:
            case "/v1/querybatch":
                results = [self._page(self._ids(query), query) for query in body["queries"]]
                return {"results": results[:-1] if self.fault == "short" else results}
            case "/v1/query":
                name = body["package"]["name"]
                about = [
                    i
                    for i, r in self.records.items()
                    if any(a["package"]["name"] == name for a in r["affected"])
                ]
                page = self._page(about, body)
                return page | {"vulns": [self.records[vuln["id"]] for vuln in page["vulns"]]}
            case _:
                return self.records[path.removeprefix("/v1/vulns/")]

    def _ids(self, query: Json) -> list[str]:
        assert query["package"]["ecosystem"] == "PyPI"
        return self.affected.get((query["package"]["name"], query["version"]), [])

    @staticmethod
    def _page(ids: list[str], query: Json) -> Json:
        at = int(query.get("page_token", "0"))
        page: Json = {"vulns": [{"id": i, "modified": "2026-01-01T00:00:00Z"} for i in ids[at : at + 1]]}
        return page | ({"next_page_token": str(at + 1)} if at + 1 < len(ids) else {})


@contextmanager
def serving() -> Iterator[StandIn]:
    osv = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: Json) -> None:
            osv.asked.append(self.path)
            if osv.fault == "silent":
                osv.ends.wait()
                return
            said = json.dumps(osv.answer(self.path, body)).encode()
            if osv.fault == "html":
                said = b"<html>log in first</html>"
            self.send_response(500 if osv.fault == "500" else 200)
            self.send_header("Content-Length", str(1 << 30 if osv.fault == "drip" else len(said)))
            self.end_headers()
            with suppress(ConnectionError):  # who asked has gone
                while osv.fault == "drip" and not osv.ends.wait(
                    0.05
                ):  # never silent for long, and never done
                    self.wfile.write(b" ")
                self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        osv.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield osv
        finally:
            osv.ends.set()
            server.shutdown()
            thread.join()
