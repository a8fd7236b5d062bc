"""The C halves of `signal` and `socket`: what the start of every verb needs of them.

Their Python halves import enum and selectors for the sake of constants with names, which takes as long as Python's own
start. These modules are CPython's; where an interpreter has none of that name, the public ones serve as well.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
else:
    try:
        import _signal as signal
        import _socket as socket
    except ImportError:
        import signal
        import socket

__all__ = ["signal", "socket"]
