"""Installing a compiled seccomp filter (seccomp(2)).

The filter is built elsewhere, by libseccomp, as plain BPF in a file: the child of clone3 can then install it with one
system call, and needs no library.
"""

from __future__ import annotations

import ctypes
from typing import Final

from runtime.linux.files import read_limited
from runtime.linux.syscalls import wrapper

INSTRUCTION_SIZE: Final = 8
INSTRUCTIONS_MAX: Final = 4096  # BPF_MAXINSNS
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2


class _SockFprog(ctypes.Structure):
    """`struct sock_fprog` of seccomp(2)."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


_prctl = wrapper("prctl", ctypes.c_int, *[ctypes.c_ulong] * 4)


def load(path: str) -> bytes:
    """The BPF program in a file; raises ValueError when it can not be one, OSError."""
    program = read_limited(path, INSTRUCTION_SIZE * INSTRUCTIONS_MAX)
    if not program or len(program) % INSTRUCTION_SIZE:
        raise ValueError(f"{path} is no seccomp filter: {len(program)} bytes are not a number of BPF instructions")
    return program


def install(program: bytes) -> None:
    """Filter this process and all its descendants from now on; needs no_new_privs or CAP_SYS_ADMIN."""
    description = _SockFprog(len(program) // INSTRUCTION_SIZE, program)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(description), 0, 0)
