"""The kernel features that supervision needs, checked before anything starts."""

from __future__ import annotations

import os

from meshd.errors import Code, MeshError


def check() -> None:
    """Check that pidfds work. Raises MeshError DENIED where they do not.

    Without one, a signal could reach another program that has got the pid since. Linux has pidfd_open(2) since 5.3; the
    message asks for 5.10, the oldest kernel with long-term support that has it.
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except AttributeError:  # this Python was built on an older kernel
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
