"""Compiles a resolved filter to BPF with libseccomp, and puts in front what libseccomp does not know.

libseccomp resolves names, and a distribution's is older than the kernel: Debian 12's knows the calls of Linux 5.17.
Newer ones that the profile allows are therefore allowed here, by number (from 424 on they have one number on all
architectures, include/uapi/asm-generic/unistd.h). Calls newer than the profile itself fail with ENOSYS: a C library
that probes for a new call falls back to the old one only then, and takes EPERM for the answer.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from typing import TYPE_CHECKING

from cri.server.errors import InvalidRequest
from cri.server.seccomp.rules import ACTIONS, Filter, Rule

if TYPE_CHECKING:
    from pyseccomp import SyscallFilter

#: Calls since Linux 5.17, by number from the first on.
FIRST_NEW_CALL = 450
NEW_NAMES = """
    set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount
    lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat
    open_tree_attr file_getattr file_setattr"""
NEW_CALLS = {name: number for number, name in enumerate(NEW_NAMES.split(), FIRST_NEW_CALL)}
ALLOW = ACTIONS["SCMP_ACT_ALLOW"]
NO_SUCH_CALL = ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS
X32_BIT = 0x40000000
UNKNOWN = -1
BINARY_TREE = 2
INSTRUCTIONS_MAX = 4096

LOAD, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, RETURN = 0x20, 0x15, 0x25, 0x35, 0x06
NUMBER_OFFSET, ARCH_OFFSET = 0, 4  # struct seccomp_data


def compile_filter(resolved: Filter) -> bytes:
    """The program for seccomp(SECCOMP_SET_MODE_FILTER): struct sock_filter after struct sock_filter."""
    import pyseccomp  # finds its library by running ldconfig, so only when there is something to compile

    scmp = pyseccomp.SyscallFilter(resolved.default_action)
    native = pyseccomp.system_arch()
    tokens = [native]
    for name in resolved.architectures:
        token = getattr(pyseccomp.Arch, name, None)
        if token is None:
            raise InvalidRequest(f"seccomp profile: architecture SCMP_ARCH_{name[:40]} is not known")
        if token not in tokens:
            scmp.add_arch(token)
            tokens.append(token)
    scmp.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, BINARY_TREE)
    allowed: set[int] = set()
    newest = 0
    for rule in resolved.rules:
        for name in rule.names:
            number = pyseccomp.resolve_syscall(native, name)
            newest = max(newest, number, NEW_CALLS.get(name, 0))
            if number != UNKNOWN:
                _add(scmp, rule, number, resolved.default_action)
            elif name in NEW_CALLS and rule.action == ALLOW and not rule.conditions:
                allowed.add(NEW_CALLS[name])
    program = _export(scmp)
    if resolved.default_action not in (ALLOW, ACTIONS["SCMP_ACT_LOG"]):
        program = _newer_calls([token for token in tokens if token != pyseccomp.Arch.X32], allowed, newest) + program
    if len(program) // 8 > INSTRUCTIONS_MAX:
        raise InvalidRequest(f"seccomp profile: {len(program) // 8} instructions; the kernel takes {INSTRUCTIONS_MAX}")
    return program


def _add(scmp: SyscallFilter, rule: Rule, number: int, default_action: int) -> None:
    if rule.action == default_action:
        return  # libseccomp refuses it, and it says nothing
    import pyseccomp

    arguments = [pyseccomp.Arg(*condition) for condition in rule.conditions]
    try:
        scmp.add_rule(rule.action, number, *arguments)
    except OSError as error:
        if error.errno == errno.EEXIST:  # said twice
            return
        raise InvalidRequest(f"seccomp profile: rule for {', '.join(rule.names)[:200]}: {error.strerror}") from error


def _export(scmp: SyscallFilter) -> bytes:
    with tempfile.TemporaryFile() as file:
        scmp.export_bpf(file)
        return os.pread(file.fileno(), INSTRUCTIONS_MAX * 8 + 1, 0)


def _newer_calls(tokens: list[int], allowed: set[int], newest: int) -> bytes:
    """Instructions that decide on calls libseccomp has no name for, and fall through to its program for all others."""
    numbers = sorted(allowed)
    allow_at = 1 + len(tokens) + 1 + len(numbers) + 2
    end = allow_at + 2
    code = [(LOAD, 0, 0, ARCH_OFFSET)]
    for position, token in enumerate(tokens, 1):
        last = position == len(tokens)
        code.append((JUMP_EQUAL, len(tokens) - position, end - position - 1 if last else 0, token))
    code.append((LOAD, 0, 0, NUMBER_OFFSET))
    code += [(JUMP_EQUAL, allow_at - len(code) - at - 1, 0, number) for at, number in enumerate(numbers)]
    code.append((JUMP_GREATER_EQUAL, end - len(code) - 1, 0, X32_BIT))
    code.append((JUMP_GREATER, 1, end - len(code) - 1, newest))
    code += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, NO_SUCH_CALL)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
