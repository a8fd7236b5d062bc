"""Real nodes on fake ZeroTier: each in the network namespace of one Place, configured as a person would configure it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.mesh.nodes import BIN, ENGINES, Answer, Node, environment
from tests.mesh.pairing import until
from tests.zerotier.world import Place

SERVICE_PORT = 9993


class ZeroTierNode(Node):
    """place: the machine. kind: of [overlay]. service: of [overlay.zerotier], on top of `home`. networks: the sections
    below it. user: a uid and gid to run as; None for root."""

    def __init__(
        self,
        place: Place,
        name: str,
        *,
        kind: str = "auto",
        service: dict[str, Any] | None = None,
        networks: list[dict[str, Any]] | None = None,
        user: int | None = None,
    ) -> None:
        super().__init__(name, "", namespace=place.namespace, metrics="127.0.0.1")
        self.place = place
        if user is not None:
            os.chown(self.folder, user, user)
            self._within += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
        self.configure(kind=kind, service=service, networks=networks)

    def __repr__(self) -> str:
        return f"{self.name} ({self.place.address})"

    def configure(
        self,
        *,
        kind: str = "auto",
        service: dict[str, Any] | None = None,
        networks: list[dict[str, Any]] | None = None,
    ) -> None:
        """Write its configuration file, which it reads when it starts."""
        overlay = {"home": str(self.place.home), **(service or {})}
        text = (
            f'[node]\nname = "{self.name}"\n'
            f'[paths]\nstate = "{self.state}"\nrun = "{self.run_folder}"\nengines = "{ENGINES}"\n'
            f'[overlay]\nkind = "{kind}"\n[overlay.zerotier]\n{_toml(overlay)}'
            + "".join(f"[[overlay.zerotier.networks]]\n{_toml(one)}" for one in networks or [])
            + '[storage]\nreserve = "1MiB"\n[metrics]\nlisten = ""\n[log]\nformat = "json"\n'
        )
        self.config.write_text(text)

    # -- typing; what was typed and printed is shown where a test fails --------------------------------------------------

    def meshctl(self, *words: str | Path, stdin: bytes | None = None, timeout: float = 90.0) -> Answer:
        answer = super().meshctl(*words, stdin=stdin, timeout=timeout)
        if "--json" not in words:
            _show(self.name, words, answer.err + answer.out)
        return answer

    def type(self, *words: str) -> Typing:
        """Type it and go on."""
        return Typing(self, words)

    # -- looking -------------------------------------------------------------------------------------------------------

    def listens(self) -> set[str]:
        """Addresses and ports in its namespace on which anybody listens or that anybody bound, but for ZeroTier's own."""
        found = subprocess.run(
            ["ip", "netns", "exec", self.place.namespace, "ss", "-Hlntu"],
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
        )
        every = {line.split()[4] for line in found.stdout.splitlines()}
        return every - {f"127.0.0.1:{SERVICE_PORT}"}

    def holds(self, code: str, seconds: float = 20.0) -> dict[str, Any]:
        """Wait until that condition holds; the condition."""
        found = until(lambda: self.conditions().get(code), f"{self} says {code}", seconds)
        assert found is not None
        return found

    def reaches(self, *names: str, seconds: float = 40.0) -> None:
        """Wait until it is ready and reaches those members, and sees that they are ready."""

        def so() -> bool:
            if not self.ready():
                return False
            peers = self.peers()
            return all(n in peers and peers[n]["reachable"] and peers[n]["ready"] for n in names)

        until(so, f"{self} reaches {', '.join(names)}", seconds)

    def requests(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/v1/requests")["requests"]
        return found

    def asked_by(self, other: ZeroTierNode, stage: str = "mesh", seconds: float = 30.0) -> dict[str, Any]:
        """Wait until that node's request is shown here; the request."""

        def found() -> dict[str, Any] | None:
            asking = [r for r in self.requests() if r["stage"] == stage and r["node"] == other.place.address]
            return asking[0] if asking else None

        answer = until(found, f"{self} is asked by {other}", seconds)
        assert answer is not None
        return answer


class Typing:
    """A meshctl on its way, on a terminal of its own: both see what a person sees there."""

    def __init__(self, node: ZeroTierNode, words: tuple[str, ...]) -> None:
        self._node, self._words = node, words
        self._person, device = pty.openpty()
        os.set_blocking(self._person, False)
        self.seen = ""
        self._at = 0
        self.process = subprocess.Popen(
            [BIN / "meshctl", *words],
            stdin=device,
            stdout=device,
            stderr=device,
            env=environment(MESHD_SOCKET=str(node.socket)),
            start_new_session=True,
        )
        os.close(device)

    def _read(self) -> str:
        with contextlib.suppress(OSError):  # nothing yet, or the terminal is closed
            while piece := os.read(self._person, 1 << 16):
                self.seen += piece.decode(errors="replace").replace("\r\n", "\n")
        return self.seen

    def shows(self, pattern: str, seconds: float = 40.0) -> re.Match[str]:
        """Wait until the terminal shows it, after what was waited for before."""
        compiled = re.compile(pattern)
        try:
            found = until(
                lambda: compiled.search(self._read(), self._at), f"it shows {pattern!r}", seconds, every=0.02
            )
            assert found is not None
        except AssertionError:
            _show(self._node.name, self._words, self.seen)
            raise
        self._at = found.end()
        return found

    def answer(self, text: str) -> None:
        os.write(self._person, f"{text}\n".encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self, seconds: float = 60.0) -> Answer:
        """Wait until it ends by itself; all that the terminal showed is `out`."""
        until(lambda: self._read() is None or self.process.poll() is not None, f"{self._words} ends", seconds)
        select.select([self._person], [], [], 1.0)
        self._read()
        _show(self._node.name, self._words, self.seen)
        return Answer(self.process.wait(5), self.seen, "")

    def close(self) -> None:
        """Whatever has become of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self._person)


def _toml(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _show(name: str, words: tuple[str | Path, ...], text: str) -> None:
    sys.stdout.write(f"{name}$ meshctl {' '.join(map(str, words))}\n{text}\n")
