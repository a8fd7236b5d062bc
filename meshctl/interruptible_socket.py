"""A socket whose reader a signal always wakes.

Python notes a signal and acts on it before the next instruction. One that comes between that look and the system call
that waits for data is acted on only when data comes: Ctrl-C is lost, which happens once in some hundred tries on a busy
machine. So the reader waits for the socket and for a pipe, to which Python writes a byte for each signal.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from typing import Any

_pipe: tuple[int, int] | None = None


class InterruptibleSocket(socket.socket):
    """Only reading through `makefile` is wakeful, which is how http.client reads; only the main thread may."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """As socket.recv_into. Raises TimeoutError after the socket's time-out, as that does."""
        self._wait()
        return super().recv_into(*args, **kwargs)

    def _wait(self) -> None:
        waker = _waker()
        waiting = select.poll()
        waiting.register(self, select.POLLIN)
        waiting.register(waker, select.POLLIN)
        timeout_s = self.gettimeout()
        while True:
            ready = waiting.poll(None if timeout_s is None else timeout_s * 1000)
            if not ready:
                raise TimeoutError("timed out")
            if any(number != waker for number, _ in ready):
                return
            os.read(waker, 4096)  # a signal whose handler ran and raised nothing, such as a new terminal size


def _waker() -> int:
    """The pipe's reading end, made at the first call."""
    global _pipe  # signals are the process's, and so is this
    if _pipe is None:
        _pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    return _pipe[0]
