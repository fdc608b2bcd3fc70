"""User namespaces: made with their id mappings, and entered by new processes (user_namespaces(7)).

A process in a pod's user namespace has no power outside of it and can never come back. So whatever needs the node's
power is done by somebody else, before or beside it:

    holder           first process of the namespace and of those that it owns; lives until they are pinned
    clone_inside()   a child of the caller that has never been anything but a process of the namespace
    act_as()         makes files for the namespace's root while still being the node's

Id mappings are lists of [inside, outside, length], as /proc/<pid>/uid_map has them, by "uid" and "gid".
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from ctypes import c_uint
from typing import Final

import prctl

from runtime.linux.channel import Channel
from runtime.linux.paths import open_procfs, write_proc
from runtime.linux.syscalls import CLONE_NEWUSER, CLONE_PARENT, clone3, setns, wrapper

Lines = Sequence[Sequence[int]]
Maps = Mapping[str, Lines]

_SECBIT_NO_SETUID_FIXUP: Final = 1 << 2
_MAPPED: Final = b"+"

_setfsuid = wrapper("setfsuid", c_uint)
_setfsgid = wrapper("setfsgid", c_uint)


def host_id(lines: Lines, inside: int) -> int:
    """The id outside; raises ValueError for one that is not mapped."""
    for first, outside, length in lines:
        if first <= inside < first + length:
            return outside + inside - first
    raise ValueError(f"id {inside} is not mapped in the user namespace")


@contextlib.contextmanager
def holder(maps: Maps, flags: int, inside: Callable[[], None]) -> Iterator[tuple[int, int]]:
    """(pid, pidfd) of a process in a new user namespace, and in new ones of CLONE_NEW* `flags` that are owned by it.

    It has run `inside` as the namespace's root, and is gone after the block: by then they are pinned.
    Raises OSError, and ValueError where `inside` does.
    """
    near, far = Channel.pair()
    try:
        pid, pidfd = clone3(CLONE_NEWUSER | flags)
    except OSError as error:
        error.add_note("making a user namespace; sysctl user.max_user_namespaces is the limit of their number")
        raise
    if not pid:
        near.close()
        _hold(far, inside)
    far.close()
    try:
        _write_maps(pid, maps)
        near.send_payload(_MAPPED)
        _await_success(near)
        yield pid, pidfd
    finally:
        near.close()
        os.waitpid(pid, 0)
        os.close(pidfd)


def _hold(channel: Channel, inside: Callable[[], None]) -> None:
    """The process of the block; never returns."""
    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        if channel.recv_payload() is not None:
            become_root()
            inside()
            channel.send_payload(_MAPPED)
            channel.recv_payload()  # end of file: nobody needs it any more
    except (OSError, ValueError) as error:
        channel.send_payload(_explained(error))
    finally:
        os._exit(0)


def become_root() -> None:
    """Be the root of the user namespace that was entered."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _write_maps(pid: int, maps: Maps) -> None:
    proc = open_procfs()
    try:
        for kind in ("gid", "uid"):
            text = "".join(f"{inside} {outside} {length}\n" for inside, outside, length in maps[kind])
            write_proc(proc, f"{pid}/{kind}_map", text)
    except OSError as error:
        error.add_note(f"mapping ids {dict(maps)} into a user namespace")
        raise
    finally:
        os.close(proc)


def clone_inside(userns: int, before: Callable[[], None], flags: int, *, cgroup: int = -1) -> tuple[int, int]:
    """clone3() of a child that is born in the user namespace behind the fd, so that what `flags` make is owned by it.

    As clone3(): (pid, pidfd) in the caller, whose child it is, and (0, -1) in the child. A helper has entered the
    namespace to bear it, after running `before` with the caller's own power; what that changed (cgroups,
    oom_score_adj) the child inherits. Raises OSError.
    """
    near, far = Channel.pair()
    helper, pidfd = clone3(0, cgroup=cgroup)
    if not helper:
        near.close()
        if _bear(far, userns, before, flags):
            return 0, -1
    far.close()
    os.close(pidfd)
    try:
        child, fds = _await_success(near)
    finally:
        near.close()
        os.waitpid(helper, 0)
    return int(child), fds[0]


def _bear(channel: Channel, userns: int, before: Callable[[], None], flags: int) -> bool:
    """In the helper; only the child returns."""
    pid = -1
    try:
        before()
        setns(userns, CLONE_NEWUSER)
        pid, pidfd = clone3(flags | CLONE_PARENT, exit_signal=0)  # inherited from the helper, as clone(2) has it
        if pid:
            channel.send_payload(b"%d" % pid, [pidfd])
    except Exception as error:  # noqa: BLE001 - a copy of the caller, which must not go on as one
        channel.send_payload(_explained(error))
    finally:
        if pid:
            os._exit(0)
    channel.close()
    return True


def _explained(error: Exception) -> bytes:
    """An errno, 0 for what has none, and the words."""
    number, text = (error.errno or errno.EIO, error.strerror) if isinstance(error, OSError) else (0, None)
    words = "; ".join([text or str(error), *getattr(error, "__notes__", ())])
    return b"-%d %s" % (number, words.encode()[:4096])


def _await_success(channel: Channel) -> tuple[bytes, list[int]]:
    """What the other process sent; raises its OSError or ValueError, or ECHILD when it was killed."""
    received = channel.recv_payload()
    if received is None:
        raise OSError(errno.ECHILD, "the helper that enters the user namespace was killed")
    payload, fds = received
    if payload[:1] == b"-":
        number, _, words = payload[1:].partition(b" ")
        text = words.decode(errors="replace")
        raise OSError(int(number), text) if int(number) else ValueError(text)
    return payload, fds


def act_as(uid: int, gid: int) -> None:
    """Own what is made from here on, by ids of the node, and keep every capability all the same (capabilities(7)).

    Entering a user namespace (setns(2)) undoes it.
    """
    prctl.set_securebits(prctl.get_securebits() | _SECBIT_NO_SETUID_FIXUP)
    _setfsgid(gid)
    _setfsuid(uid)
