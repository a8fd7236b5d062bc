"""Becomes a child of the daemon: `python -I -S launch.py PARENT [GROUP] -- PROGRAM ARG...`. Standard library only.

PARENT is the daemon's pid; GROUP the folder of a cgroup. Four things must hold before the program's first instruction.
A process with threads cannot arrange them safely between fork and exec, so this small program does, and then execs:

- it dies with the daemon (PR_SET_PDEATHSIG), so that kill -9 of meshd leaves no orphan;
- where it has a cgroup, it and its descendants are in that, and cannot move themselves to another one;
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
# From linux/landlock.h. The system call numbers are the same on every machine.
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
WRITE_FILE, REMOVE_DIRECTORY, MAKE_DIRECTORY, REFER = 1 << 1, 1 << 4, 1 << 7, 1 << 13
LANDLOCK_WITH_REFER = 2  # ABI version 2; version 1 forbids a rename into another folder, which kubo does
AF_INET, AF_INET6, AF_PACKET, SOCK_STREAM, IPPROTO_TCP = 2, 10, 17, 1, 6


def tcp_only(machine: str) -> bytes:
    """The seccomp filter as a BPF program: EACCES for every Internet socket but a TCP stream.

    Raises KeyError for a machine that it does not know.
    """
    arch, socket_call = ARCHITECTURES[machine]
    to = {"family": 7, "type": 11, "protocol": 14, "deny": 17, "allow": 18, "absent": 19}  # jump targets
    program: list[tuple[int, int, str, str]] = [
        (LOAD, 4, "", ""),  # 0: seccomp_data.arch
        (EQUAL, arch, "+1", ""),
        (RETURN, DENY, "", ""),  # another ABI has other numbers: deny all of it
        (LOAD, 0, "", ""),  # 3: seccomp_data.nr
        (AT_LEAST, 0x40000000, "deny", ""),  # x32
        (EQUAL, IO_URING_SETUP, "absent", ""),  # it opens sockets without socket(2); Go does not need it
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
        ),  # 14, protocol: the third. MPTCP would open paths over other addresses; Go does not need it
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
    """Apply the seccomp filter to this process and all that it execs. Raises OSError."""
    code = tcp_only(platform.machine())
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    prctl(libc, PR_SET_NO_NEW_PRIVS, 1)
    prctl(libc, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header))


def enter(folder: str) -> None:
    """Move this process into a cgroup, see cgroups(7). Raises OSError."""
    with open(os.path.join(folder, "cgroup.procs"), "w") as members:  # noqa: PTH118, PTH123 - pathlib is slow to import
        members.write("0")


def stay(libc: ctypes.CDLL, folder: str) -> None:
    """Deny writes below the top-level folder of the cgroups (/sys), by Landlock, to this process and all that it execs.

    Its own user owns the cgroup, so it could move to another one otherwise. Does nothing where the kernel has no
    Landlock, or a system call filter hides it. Raises OSError.
    """
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    if version < LANDLOCK_WITH_REFER:
        return
    rights = WRITE_FILE | REMOVE_DIRECTORY | MAKE_DIRECTORY | REFER
    handled = struct.pack("=Q", rights)
    rules = called(libc, LANDLOCK_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), ctypes.c_uint(0))
    closed = folder.split("/")[1]
    for entry in os.scandir("/"):
        if entry.name == closed or not entry.is_dir(follow_symlinks=False):
            continue
        try:
            below = os.open(entry.path, os.O_PATH)
        except OSError:
            continue  # a folder that cannot be opened (its mode, or a dead server) cannot be written either
        called(libc, LANDLOCK_ADD_RULE, rules, 1, struct.pack("=Qi", rights, below), 0)
        os.close(below)
    prctl(libc, PR_SET_NO_NEW_PRIVS, 1)
    called(libc, LANDLOCK_RESTRICT_SELF, rules, 0)
    os.close(rules)


def called(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    """syscall(2). Raises OSError."""
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), f"system call {number}")
    return result


def prctl(libc: ctypes.CDLL, option: int, first: int, second: int = 0) -> None:
    """prctl(2). Raises OSError."""
    arguments = [ctypes.c_ulong(value) for value in (first, second, 0, 0)]
    if libc.prctl(option, *arguments) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), f"prctl {option}")


def main(arguments: list[str]) -> int:
    """Confine this process and exec the program. Returns only on failure, with the reason on standard error."""
    end = arguments.index("--")
    (parent, *group), command = arguments[:end], arguments[end + 1 :]
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        prctl(libc, PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):
            return 1  # the daemon died between the fork and the line above
        for folder in group:
            enter(folder)
            stay(libc, folder)
        confine(libc)
        os.execv(command[0], command)  # noqa: S606 - becoming the program is the purpose
    except KeyError as exc:
        sys.stderr.write(f"cannot confine {command[0]}: no socket filter for the machine {exc}\n")
    except OSError as exc:
        sys.stderr.write(f"cannot start {command[0]}: {exc}\n")
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
