"""Becomes a child of the daemon: `python -I -S launch.py PARENT -- PROGRAM ARG...`. Standard library only.

Three things must hold before the program's first instruction, and a fork from a process with threads is no place
to arrange them, so this small program does and then execs:

- it dies with the daemon (PR_SET_PDEATHSIG), so that kill -9 of meshd leaves no orphan;
- it can gain no privileges;
- it can open no Internet socket but TCP. ipfs-cluster's NAT mapping is hard-coded: without this filter it searches
  the LAN for routers by UDP for the first seconds of each start (measured on 1.1.6).
"""

import ctypes
import os
import platform
import signal
import struct
import sys

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 38, 22
SECCOMP_MODE_FILTER = 2
ALLOW, DENY, ABSENT = 0x7FFF0000, 0x00050000 | 13, 0x00050000 | 38  # EACCES, ENOSYS
LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
# machine -> (AUDIT_ARCH, number of socket(2)); io_uring_setup is 425 everywhere. From linux/audit.h and unistd.h.
ARCHITECTURES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
IO_URING_SETUP = 425
AF_INET, AF_INET6, AF_PACKET, SOCK_STREAM, IPPROTO_TCP = 2, 10, 17, 1, 6


def tcp_only(machine: str) -> bytes:
    """The BPF program: an Internet socket that is not a TCP stream is EACCES. Raises KeyError on another machine."""
    arch, socket_call = ARCHITECTURES[machine]
    to = {"family": 7, "type": 11, "protocol": 14, "deny": 17, "allow": 18, "absent": 19}  # where jumps land
    program: list[tuple[int, int, str, str]] = [
        (LOAD, 4, "", ""),  # 0: seccomp_data.arch
        (EQUAL, arch, "+1", ""),
        (RETURN, DENY, "", ""),  # another ABI has other numbers: nothing goes through it
        (LOAD, 0, "", ""),  # 3: seccomp_data.nr
        (AT_LEAST, 0x40000000, "deny", ""),  # x32
        (EQUAL, IO_URING_SETUP, "absent", ""),  # it opens sockets without socket(2); Go does without it
        (EQUAL, socket_call, "family", "allow"),
        (LOAD, 16, "", ""),  # 7, family: the first argument
        (EQUAL, AF_PACKET, "deny", ""),
        (EQUAL, AF_INET, "type", ""),
        (EQUAL, AF_INET6, "type", "allow"),
        (
            LOAD,
            24,
            "",
            "",
        ),  # 11, type: the second, with SOCK_NONBLOCK and SOCK_CLOEXEC above its low four bits
        (AND, 0xF, "", ""),
        (EQUAL, SOCK_STREAM, "protocol", "deny"),
        (
            LOAD,
            32,
            "",
            "",
        ),  # 14, protocol: the third. MPTCP would open paths over other addresses; Go does without
        (EQUAL, 0, "allow", ""),
        (EQUAL, IPPROTO_TCP, "allow", "deny"),
        (RETURN, DENY, "", ""),  # 17
        (RETURN, ALLOW, "", ""),  # 18
        (RETURN, ABSENT, "", ""),  # 19
    ]

    def jump(line: int, label: str) -> int:
        return int(label or 0) if label in ("", "+1") else to[label] - line - 1

    instructions = [
        struct.pack("=HBBI", code, jump(line, yes), jump(line, no), value)
        for line, (code, value, yes, no) in enumerate(program)
    ]
    return b"".join(instructions)


def confine(libc: ctypes.CDLL) -> None:
    """Apply the filter to this process and all that it execs. Raises OSError."""
    code = tcp_only(platform.machine())
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    prctl(libc, PR_SET_NO_NEW_PRIVS, 1)
    prctl(libc, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header))


def prctl(libc: ctypes.CDLL, option: int, first: int, second: int = 0) -> None:
    """prctl(2). Raises OSError."""
    arguments = [ctypes.c_ulong(value) for value in (first, second, 0, 0)]
    if libc.prctl(option, *arguments) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), f"prctl {option}")


def main(arguments: list[str]) -> int:
    """Confine this process and exec the program. Returns only on failure, with the reason on standard error."""
    parent, _, *command = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        prctl(libc, PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):
            return 1  # the daemon died between the fork and the line above
        confine(libc)
        os.execv(command[0], command)  # noqa: S606 - becoming the program is the purpose
    except KeyError as exc:
        sys.stderr.write(f"cannot confine {command[0]}: no socket filter for the machine {exc}\n")
    except OSError as exc:
        sys.stderr.write(f"cannot start {command[0]}: {exc}\n")
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
