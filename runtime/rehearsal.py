"""Rehearsing a shim's work in the zygote, just before it freezes its memory.

What CPython 3.11 keeps per process is written when code runs: a function's bytecode is rewritten in place after a few
calls (PEP 659), and the cache of type attributes remembers names and forgets others. Done here it is done once, in
pages that all shims share; what is not done here every shim does again, in copies of its own.

The actors are real, only the stage is not: nobody is forked, no file is opened, every socket ends in this process.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Final

import prctl

from runtime import arrival, exec, init, mounting, process, protections, rootfs, streams, tree
from runtime.gathering import classes_of, gather, gather_classes, gather_constants
from runtime.linux import caps, failpoints, mountapi, mountoptions, mounts, overlay, paths, syscalls
from runtime.linux.cgroups import Cgroup, Layout
from runtime.linux.channel import Channel
from runtime.linux.messages import encode, parse
from runtime.processplan import ProcessPlan
from runtime.shim import birth, main
from runtime.shim.loop import Loop
from runtime.shim.main import Shim
from runtime.specimen import process_of, tree_in
from runtime.status import Status

#: Where the code is that only a shim's children run: it lies together too.
_CHILDREN: Final = (
    init, exec, process, rootfs, tree, mounting, protections, streams, arrival,
    mounts, mountapi, mountoptions, overlay, paths, caps, syscalls,
)  # fmt: skip
ROUNDS: Final = 20  # more than a function needs to be specialized
# Stands in for a cgroup: a directory that is there and has no cgroup.kill.
_CGROUPS: Final = Layout({}, "/proc", frozenset())
_SPEC: Final = {"id": "rehearsal", "state_dir": "/proc/rehearsal", "pid": "container", "userns": None, "runtime": None}
_START: Final = {
    "op": "start",
    "container": "c",
    "cgroup": "/self",
    "log": "/dev/null",
    "tty": False,
    "stdin": False,
    "stdin_once": False,
    "pid_target": "",
    "pid_own": False,
    "traces": False,
}
# What cannot be played, because it changes the process that does it.
_ONCE: Final = (
    Shim.live, main._become_shim, main.settle_in, main._call_oneself, main.fork_builder,
    syscalls.clone3, syscalls.set_child_subreaper,
)  # fmt: skip


def rehearse() -> None:
    """Play a pod's life, from the builder's answer to a running container, often enough; leaves no fd open."""
    first = os.dup(0)
    failpoints.arm("")  # they are for the performance
    gc.collect()
    gc.freeze()  # the collections to come look only at what is made from here on
    with _stage():
        used = _used_by(_play)
    named = _named_in(used)
    gather_classes(used)
    gather(used)
    gather_constants(used)
    gather(named - used)
    gather(_codes_of(_CHILDREN) - used - named)
    sys._clear_type_cache()  # a full cache would forget, in every shim anew, what importing has left in it
    document = json.dumps({"process": process_of("/bin"), "tree": tree_in("/proc")}).encode()
    cgroup = Cgroup("/self", Layout(dict.fromkeys(("cpu", "memory"), "/proc"), "/proc", frozenset()))
    for _ in range(ROUNDS):
        _plan(document, cgroup)
    with _nothing_done():
        for _ in range(ROUNDS):
            _become_shim()
    for function in _ONCE:
        _know_names(function.__code__.co_names)
    with _stage():  # last: what the cache remembers of other things takes no place of what a shim looks up
        for _ in range(ROUNDS):
            _play()
    gc.collect()  # what still owns an fd must not close the number later, when it is another's
    syscalls.close_range(first)
    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))


def _used_by(play: Callable[[], None]) -> set[CodeType]:
    """What code ran, and that which runs in shims only."""
    used = {function.__code__ for function in _ONCE}

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            used.add(frame.f_code)

    sys.setprofile(note)
    try:
        play()
    finally:
        sys.setprofile(None)
    return used


def _named_in(used: set[CodeType]) -> set[CodeType]:
    """What the code that ran names, in its own modules: a method that is kept to be called later is touched too."""
    names = {name for code in used for name in code.co_names}
    files = {code.co_filename for code in used}
    modules = [module for name, module in sys.modules.items() if name.startswith("runtime.")]
    return {code for code in _codes_of(modules) if code.co_name in names and code.co_filename in files}


def _codes_of(modules: Iterable[ModuleType]) -> set[CodeType]:
    """The code of their functions and methods."""
    owners = [owner for module in modules for owner in (module, *classes_of(module))]
    values = [getattr(value, "__func__", value) for owner in owners for value in vars(owner).values()]
    return {value.__code__ for value in values if isinstance(value, FunctionType)}


@contextmanager
def _stage() -> Iterator[None]:
    """What would leave this process is played: forks succeed without a child, and what a child would say is there."""
    with ExitStack() as scenery:
        for module, name, prop in (
            (main, "fork_builder", _builder),
            (main, "settle_in", _settled_in),
            (birth, "clone3", _child),
        ):
            scenery.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, prop)
        yield


@contextmanager
def _nothing_done() -> Iterator[None]:
    """What a shim does to itself is not done, under the same names: where they lead is all that code remembers."""
    with ExitStack() as scenery:
        for module, names in (
            (os, ("setsid", "chdir", "open", "write", "close", "dup2")),
            (prctl, ("set_proctitle",)),
            (syscalls, ("_prctl", "_clone3")),
        ):
            for name in names:
                scenery.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, lambda *_: 1)
        yield


def _builder(ours: Channel, theirs: Channel) -> tuple[int, int]:
    theirs.send_payload(encode({"re": 0}), [os.dup(ours.fileno()), os.dup(ours.fileno())])
    os.dup(theirs.fileno())  # where what it is told goes
    return os.getpid(), os.pidfd_open(os.getpid())


def _settled_in(id: str, state_dir: str) -> None:
    """Nobody has to know where the rehearsal is."""


def _child(flags: int, *, cgroup: int) -> tuple[int, int]:
    """Say to its shim (Birth.begin) that all went well, and be no process that anybody could wait for."""
    Status(sys._getframe(1).f_locals["theirs"]).executing()
    return 0x7FFFFFFF, os.dup(cgroup)


def _become_shim() -> None:
    main._become_shim()
    main.settle_in("rehearsal", "/proc/rehearsal")
    main.fork_builder(*Channel.pair())
    syscalls.clone3(0, cgroup=0)


def _know_names(names: tuple[str, ...]) -> None:
    """Have the type cache know these attributes of modules and of a shim, for functions that run but once."""
    for name in names:
        for owner in (os, Shim, Loop):
            getattr(owner, name, None)


def _play() -> None:
    crid, ours = Channel.pair()
    signals, born = os.pipe()
    shim = Shim(signals)
    shim.home.layout = _CGROUPS
    shim.begin(ours)
    crid.send({"op": "create", "spec": _SPEC})
    shim.loop.turn()
    shim.loop.turn()
    os.write(born, bytes(128))
    shim.loop.turn()
    shim._builder_ended(0)
    _hear(crid)
    crid.send({"id": 1, **_START}, [0], b"{}")
    shim.loop.turn()
    shim.loop.turn()
    _hear(crid)
    shim.loop.stop()
    shim.loop.run()  # ends at once, as everything has been done turn by turn


def _plan(document: bytes, cgroup: Cgroup) -> None:
    """The part of a container's first process that changes nothing."""
    doc = parse(document)
    ProcessPlan._make(doc["process"])
    rootfs.plan(doc["tree"], cgroup)


def _hear(crid: Channel) -> None:
    """An answer; a rehearsal that fails would only show in the memory of each shim."""
    message = crid.recv()
    if message is None or "error" in message.doc:
        raise RuntimeError(f"the rehearsal of a pod's life failed: {message and message.doc['error']}")
