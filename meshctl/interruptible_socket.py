"""A socket with interruptible reads: a signal always wakes the reader.

Python notes a signal and runs its handler before the next instruction. One that comes between that check and the
blocking system call is handled only when data comes: Ctrl-C is lost, once in some hundred tries on a busy machine. So
the reader polls the socket and a self-pipe, to which Python writes a byte for each signal.
"""

from __future__ import annotations

import os
import select

from meshctl.interpreter import signal, socket

_pipe: tuple[int, int] | None = None


class InterruptibleSocket(socket.socket):
    """Only `recv` is interruptible. interruptible: whether it is; only the main thread hears of signals."""

    interruptible = True

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """See socket.recv. Raises TimeoutError after the socket's time-out, as that does."""
        if self.interruptible:
            wait_readable(self.fileno(), self.gettimeout())
        return super().recv(bufsize, flags)


def wait_readable(descriptor: int, timeout_s: float | None) -> None:
    """Wait, in the main thread, until there is something to read. Raises TimeoutError, and what a signal's handler does."""
    waker = _waker()
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    waiting.register(waker, select.POLLIN)
    while True:
        ready = waiting.poll(None if timeout_s is None else timeout_s * 1000)
        if not ready:
            raise TimeoutError("timed out")
        if any(number != waker for number, _ in ready):
            return
        os.read(waker, 4096)  # a signal whose handler raised nothing, such as a new terminal size


def _waker() -> int:
    """The read end of the self-pipe, made at the first call."""
    global _pipe  # signals belong to the process, and so does the pipe
    if _pipe is None:
        _pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    return _pipe[0]
