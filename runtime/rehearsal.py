"""Rehearsing a shim's work in the zygote, just before it freezes its memory.

What CPython 3.11 keeps per process is written when code runs: a function's bytecode is rewritten in place after a few
calls (PEP 659), and the cache of type attributes remembers names and forgets others. Done here it is done once, in
pages that all shims share; what is not done here every shim does again, in copies of its own.

The actors are real, only the stage is not: no child is cloned, no file is opened, every socket ends in this process.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Final

from runtime.linux import failpoints
from runtime.linux.cgroups import Layout
from runtime.linux.channel import Channel
from runtime.linux.fds import Fd
from runtime.linux.messages import encode
from runtime.linux.syscalls import close_range
from runtime.shim.birth import Birth
from runtime.shim.home import Home
from runtime.shim.main import Shim
from runtime.spec import SandboxSpec
from runtime.status import Status

_POOL: Final = 16 * 1024
_BYTES_HEADER: Final = sys.getsizeof(b"")
ROUNDS: Final = 20  # more than a function needs to be specialized
# Stands in for a cgroup: a directory that is there and has no cgroup.kill.
_CGROUPS: Final = Layout({}, "/proc", frozenset())
_SPEC: Final = {"id": "rehearsal", "state_dir": "/proc/self", "hostname": "h", "cgroup_parent": "/self"}
_START: Final = {
    "op": "start",
    "container": "c",
    "cgroup": "/self",
    "log": "",
    "tty": False,
    "stdin": False,
    "stdin_once": False,
    "pid_target": "",
}


class _Stage(Home):
    """A home where births succeed without a child."""

    def bear(self, birth: Birth, body: object, flags: int, cgroup: int, target: Fd | None = None) -> None:
        near, far = Channel.pair()
        Status(far).executing()
        far.close()
        birth.watch(near, 0, os.dup(cgroup))


def rehearse() -> list[bytes]:
    """Play a pod's life, from the builder's answer to a running container, often enough; leaves no fd open.

    What it returns must be kept: it fills the gaps that importing has left in the heap, so that what a shim allocates
    lies together, in pages that hold nothing else.
    """
    sys._clear_type_cache()  # a full cache would forget, in every shim anew, what importing has left in it
    gc.collect()
    filling = _fill_gaps()
    first = os.dup(0)
    failpoints.arm("")  # they are for the performance
    for _ in range(ROUNDS):
        _play()
    gc.collect()  # what still owns an fd must not close the number later, when it is another's
    close_range(first)
    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
    return filling


def _fill_gaps() -> list[bytes]:
    """A pool's worth of every size class of obmalloc.c, and some chunks of what malloc serves."""
    small = [bytes(size - _BYTES_HEADER) for size in range(48, 513, 16) for _ in range(_POOL // size)]
    large = [bytes(size - _BYTES_HEADER) for size in range(528, 8192, 64) for _ in range(2)]
    return small + large


def _play() -> None:
    crid, ours = Channel.pair()
    shim = Shim(SandboxSpec.from_json(_SPEC), ours, os.dup(crid.fileno()))
    shim.home = _Stage(shim.home.spec, shim.loop)
    shim.home.layout = _CGROUPS
    shim._ready(encode({"re": 0}), [os.dup(crid.fileno()), os.dup(crid.fileno())])
    crid.recv()
    crid.send({"id": 1, **_START}, blob=b"{}")
    shim.loop.turn()
    shim.loop.turn()
    crid.recv()
