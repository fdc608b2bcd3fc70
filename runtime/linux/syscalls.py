"""Linux system calls that Python 3.11 has no name for, declared once and called as their man pages say.

This module stands at the very bottom: it imports nothing of ours, so that the zygote, the shims and a container's
first process can use it. Every call fails the same way: a plain `OSError` of the kernel's errno, with the call and
its arguments as a note. Constants keep the kernel's names and live beside the calls that take them.

Calls numbered 424 and above have one number on all architectures (`asm-generic/unistd.h`), so they are made through
`syscall(2)` and need no particular glibc; the older ones are glibc's own wrappers.
"""

from __future__ import annotations

import ctypes
import os
import struct
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_ulong, c_void_p
from typing import Any, Final

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000

CLONE_NEWTIME: Final = 0x00000080
CLONE_PIDFD: Final = 0x00001000
CLONE_PARENT: Final = 0x00008000
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
CLONE_INTO_CGROUP: Final = 0x200000000

MS_SLAVE: Final = 1 << 19
MS_PRIVATE: Final = 1 << 18
MS_REC: Final = 1 << 14
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

PIDFD_SELF: Final = -10000

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

SFD_CLOEXEC: Final = os.O_CLOEXEC
SFD_NONBLOCK: Final = os.O_NONBLOCK

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _check(result: int, function: Any, arguments: tuple[Any, ...]) -> int:
    """Shared errcheck: the kernel's errno becomes an OSError that remembers the call."""
    if result != -1:
        return result
    number = ctypes.get_errno()
    error = OSError(number, os.strerror(number))
    shown = [_show(*each) for each in zip(arguments, function.argtypes, strict=True)]
    error.add_note(f"{function.call_name}({', '.join(shown[1:] if function.numbered else shown)})")
    raise error


def _show(argument: Any, kind: Any) -> str:
    if (kind is c_void_p and argument) or (isinstance(argument, bytes) and b"\0" in argument):
        return "..."  # an address or a structure tells nobody anything, and NUL ends what gRPC shows of a message
    return os.fsdecode(argument) if isinstance(argument, bytes) else str(argument)


def wrapper(name: str, *argtypes: Any, restype: Any = c_int) -> Any:
    function: Any = _libc[name]
    function.argtypes, function.restype, function.errcheck = argtypes, restype, _check
    function.call_name, function.numbered = name, False
    return function


def numbered(name: str, *argtypes: Any) -> Any:
    function = wrapper("syscall", c_long, *argtypes, restype=c_long)
    function.call_name, function.numbered = name, True
    return function


# struct clone_args of clone3(2), version 2 (Linux 5.7): flags, pidfd, child_tid, parent_tid, exit_signal, stack,
# stack_size, tls, set_tid, set_tid_size, cgroup.
_CLONE_ARGS: Final = struct.Struct("=11Q")
_clone_pidfd: Final = c_int(-1)
_CLONE_PIDFD_AT: Final = ctypes.addressof(_clone_pidfd)


# struct open_how of openat2(2): flags, mode, resolve.
_OPEN_HOW: Final = struct.Struct("=3Q")
# struct statfs (statfs(2)), of which only the first field is read: f_type.
_STATFS: Final = ctypes.c_char * 256
_F_TYPE: Final = struct.Struct("l")


_unshare = wrapper("unshare", c_int)
_setns = wrapper("setns", c_int, c_int)
_pivot_root = wrapper("pivot_root", c_char_p, c_char_p)
_mount = wrapper("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = wrapper("umount2", c_char_p, c_int)
_syncfs = wrapper("syncfs", c_int)
_execve = wrapper("execve", c_char_p, c_void_p, c_void_p)
_fstatfs = wrapper("fstatfs", c_int, c_void_p)
_prctl = wrapper("prctl", c_int, c_ulong)
_signalfd = wrapper("signalfd", c_int, c_void_p, c_int)
_clone3 = numbered("clone3", c_void_p, c_size_t)
_close_range = numbered("close_range", c_uint, c_uint, c_uint)
_openat2 = numbered("openat2", c_int, c_char_p, c_void_p, c_size_t)
_rt_sigaction = numbered("rt_sigaction", c_int, c_void_p, c_void_p, c_size_t)
_rt_sigprocmask = numbered("rt_sigprocmask", c_int, c_void_p, c_void_p, c_size_t)
_clone = numbered("clone", c_ulong, c_void_p, c_void_p, c_void_p, c_ulong)
# No errcheck: what a caller of madvise_self() needs to know is whether it went well.
_process_madvise = ctypes.CDLL(None).syscall
_process_madvise.argtypes, _process_madvise.restype = (c_long, c_int, c_void_p, c_size_t, c_int, c_uint), c_long
# Older than the common numbers.
_PR_SET_CHILD_SUBREAPER: Final = 36
_RT_SIGACTION, _RT_SIGPROCMASK, _CLONE = (13, 14, 56) if os.uname().machine == "x86_64" else (134, 135, 220)
_SIG_SETMASK: Final = 2


def unshare(flags: int) -> None:
    """Leave the namespaces named by CLONE_NEW* flags for new ones (unshare(2))."""
    _unshare(flags)


def setns(fd: int, nstype: int) -> None:
    """Enter the namespace, or those of a pidfd's process that `nstype` selects (setns(2))."""
    _setns(fd, nstype)


def set_child_subreaper() -> None:
    """Become the parent of descendants whose own parent ends (PR_SET_CHILD_SUBREAPER(2const)).

    Here, because this one is a shim's, for whom python-prctl's way of wrapping costs a dozen pages of memory.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def default_action(signum: int) -> None:
    """SIG_DFL (rt_sigaction(2)), also for a signal that glibc keeps to itself (32, 33) and hence Python cannot name."""
    nothing = (ctypes.c_uint64 * 4)()  # struct sigaction of zeros: SIG_DFL, no flags, no restorer, an empty mask
    _rt_sigaction(_RT_SIGACTION, signum, ctypes.addressof(nothing), None, 8)


def unblock_signals() -> None:
    """Let every signal come (rt_sigprocmask(2))."""
    nothing = ctypes.c_uint64(0)
    _rt_sigprocmask(_RT_SIGPROCMASK, _SIG_SETMASK, ctypes.addressof(nothing), None, 8)


def clone3(flags: int, *, cgroup: int = -1, exit_signal: int = 17) -> tuple[int, int]:
    """fork(2) with clone3's flags: (pid, pidfd) in the parent, (0, -1) in the child.

    The child shares nothing (no CLONE_VM). Python's at-fork hooks do not run: the caller must be single-threaded.
    `cgroup` is the fd of a cgroup v2 directory, or -1; `exit_signal` defaults to SIGCHLD.
    """
    if cgroup >= 0:
        flags |= CLONE_INTO_CGROUP
    else:
        cgroup = 0
    arguments = _CLONE_ARGS.pack(flags | CLONE_PIDFD, _CLONE_PIDFD_AT, 0, 0, exit_signal, 0, 0, 0, 0, 0, cgroup)
    pid: int = _clone3(435, arguments, len(arguments))
    return pid, _clone_pidfd.value if pid else -1


def clone_sibling(exit_signal: int = 17) -> tuple[int, int]:
    """A copy of this process with the same parent as it, by clone(2): (pid, pidfd) here, (0, -1) in the copy.

    clone(2) and not clone3(2), which default seccomp filters hide: the caller may have one already.
    """
    pid: int = _clone(_CLONE, CLONE_PARENT | CLONE_PIDFD | exit_signal, None, _CLONE_PIDFD_AT, None, 0)
    return pid, _clone_pidfd.value if pid else -1


def execve(path: bytes, argv: ctypes.Array[c_char_p], envp: ctypes.Array[c_char_p]) -> None:
    """execve(2) with arrays from `string_array`, built beforehand so that a failing call costs nothing to repeat."""
    _execve(path, argv, envp)


def string_array(strings: list[bytes]) -> ctypes.Array[c_char_p]:
    """A NULL-terminated `char *const[]`."""
    return (c_char_p * (len(strings) + 1))(*strings, None)


def pivot_root(new_root: str, put_old: str) -> None:
    """Swap the root mount of this mount namespace (pivot_root(2))."""
    _pivot_root(os.fsencode(new_root), os.fsencode(put_old))


def mount(source: str | None, target: str, fstype: str | None, flags: int = 0, data: bytes | None = None) -> None:
    """mount(2); `data` holds at most one page."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, fstype)]
    _mount(*encoded, flags, data)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _umount2(os.fsencode(target), flags)


def syncfs(fd: int) -> None:
    """Write everything of the filesystem that holds `fd` to the disk, and wait for it (syncfs(2))."""
    _syncfs(fd)


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` beneath `dirfd` with RESOLVE_* restrictions (openat2(2)); the new fd is close-on-exec."""
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    fd: int = _openat2(437, dirfd, os.fsencode(path), how, len(how))
    return fd


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close all fds from `first` to `last` inclusive (close_range(2))."""
    _close_range(436, first, last, flags)


def madvise_self(ranges: int | None, count: int, advice: int) -> bool:
    """Give advice about ranges of this process's memory, `count` of struct iovec at an address (process_madvise(2)).

    False when the kernel does not take it, at least not for all of them; it is advice.
    """
    return bool(_process_madvise(440, PIDFD_SELF, ranges, count, advice, 0) >= 0)


def fstatfs_type(fd: int) -> int:
    """The magic number of the filesystem that `fd` lives on (statfs(2), f_type)."""
    buffer = _STATFS()
    _fstatfs(fd, ctypes.addressof(buffer))
    return int(_F_TYPE.unpack_from(buffer)[0])


def signalfd(signals: set[int], flags: int = SFD_CLOEXEC | SFD_NONBLOCK) -> int:
    """A new fd that becomes readable when one of `signals`, which the caller has blocked, is pending (signalfd(2))."""
    mask = (ctypes.c_uint64 * 16)(sum(1 << (signum - 1) for signum in signals))
    fd: int = _signalfd(-1, ctypes.addressof(mask), flags)
    return fd
