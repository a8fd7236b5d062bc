"""What the kernel must be able to do, seen before anything is begun."""

from __future__ import annotations

import os

from meshd.errors import Code, MeshError


def check() -> None:
    """Raises MeshError DENIED where no process can be held by a handle: a signal could then reach another program that
    has the pid by now.

    pidfd_open(2) is in Linux since 5.3. Asked for is 5.10, the oldest of those with long support that have it.
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except AttributeError:  # it was built on such a kernel
        raise _too_old(
            "this Python was built without pidfd_open, which meshd needs", "install a newer one"
        ) from None
    except PermissionError:
        raise _too_old(
            "a filter of system calls forbids pidfd_open, which meshd needs",
            "in a container: update its runtime (docker, podman), whose list of system calls is from before Linux 5.3",
        ) from None
    except OSError as exc:
        raise _too_old(
            f"this is Linux {os.uname().release}, and has no pidfd_open ({exc.strerror})",
            "meshd needs Linux 5.10 or newer: update the system (uname -r), or take another machine",
        ) from exc


def _too_old(cause: str, hint: str) -> MeshError:
    return MeshError(Code.DENIED, "cannot run on this system", cause, hint)
