"""Scouts: forks of the zygote that go through what a shim's children go through, and tell which pages they wrote.

    zygote --fork--> stage        a mount namespace of its own, and in it all that a pod would have, on a tmpfs
                     stage --clone--> scout: the builder of a sandbox     each real, up to the last step before execve;
                     stage --clone--> scout: a container's init           then it looks at its own memory and exits
                     stage --clone--> scout: an exec
    zygote <--ranges-- scouts     `runtime.linux.pages`

Nothing of it is left but the knowledge. Where it fails, pods start as well, a little later.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Final, NoReturn

from runtime import exec, init, process
from runtime.errors import explain
from runtime.linux import failpoints, syscalls
from runtime.linux.cgroups import Cgroup, Layout
from runtime.linux.channel import Channel
from runtime.linux.pages import Areas, Pages, can_copy, private_areas, written
from runtime.shim import builder
from runtime.spec import SandboxSpec
from runtime.specimen import process_of, tree_in
from runtime.status import Status

#: Any directory that every host has: the stage's own mount covers it, and nobody else sees that.
PLACE: Final = "/run"
CONTROLLERS: Final = ("cpu", "cpuset", "memory", "pids", "devices", "blkio")
_DIRECTORIES: Final = ("lower/bin", "upper", "work", "pod", "shm", "etc", "v2/c")

#: Prepares on the stage what a shim's child finds prepared; what it returns is that child's work.
Role = Callable[[], Callable[[], None]]


def send_scouts() -> None:
    """Learn the pages of every role; blocks for some 20 ms."""
    if not can_copy():
        return
    areas = private_areas()
    roles: list[tuple[Pages, Role]] = [(builder.WRITTEN, _builder), (init.WRITTEN, _init), (exec.WRITTEN, _exec)]
    pipes = [os.pipe() for _ in roles]
    pid = os.fork()
    if not pid:
        _run_stage([(role, end) for (_, role), (_, end) in zip(roles, pipes, strict=True)], areas)
    os.waitpid(pid, 0)
    for (pages, _), (start, end) in zip(roles, pipes, strict=True):
        os.close(end)
        pages.learn(start)
        os.close(start)


def _run_stage(scouts: list[tuple[Role, int]], areas: Areas) -> NoReturn:
    try:
        failpoints.arm("")
        _set_stage()
        for role, pipe in scouts:
            work = role()
            pid, pidfd = syscalls.clone3(syscalls.CLONE_NEWNS)
            if not pid:
                _scout(work, pipe, areas)
            os.waitpid(pid, 0)
            os.close(pidfd)
    except BaseException as error:  # noqa: BLE001 - this process must not return into the zygote
        _complain(error)
    finally:
        os._exit(0)


def _scout(work: Callable[[], None], pipe: int, areas: Areas) -> NoReturn:
    """Do the work; the pipe gets what was written, also when it ends in execve and does not return."""
    try:
        pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        # What is open here is needed to the end, and the end is not another program.
        vars(process).update(close_range=lambda first: None, execve=lambda *_: _report(pagemap, pipe, areas))
        work()
        _report(pagemap, pipe, areas)
    except BaseException as error:  # noqa: BLE001 - as above
        _complain(error)
    finally:
        os._exit(1)


def _report(pagemap: int, pipe: int, areas: Areas) -> NoReturn:
    os.write(pipe, written(pagemap, areas))
    os._exit(0)


def _complain(error: BaseException) -> None:
    print(f"zygote: which pages are written was not found out: {explain(error)}", file=sys.stderr, flush=True)


def _set_stage() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("tmpfs", PLACE, "tmpfs")
    for name in (*_DIRECTORIES, *(f"v1/{controller}/c" for controller in CONTROLLERS)):
        os.makedirs(f"{PLACE}/{name}")
    files = [f"v1/{controller}/c/tasks" for controller in CONTROLLERS]
    for name in ("lower/bin/true", "etc/hosts", "etc/hostname", "etc/resolv.conf", *files):
        os.close(os.open(f"{PLACE}/{name}", os.O_WRONLY | os.O_CREAT, 0o755))


def _cgroup() -> Cgroup:
    """A container's on a host with v1 controllers; on others there is less to write."""
    v1 = {controller: f"{PLACE}/v1/{controller}" for controller in CONTROLLERS}
    return Cgroup("/c", Layout(v1, f"{PLACE}/v2", frozenset()))


def _builder() -> Callable[[], None]:
    spec = SandboxSpec("scout", f"{PLACE}/pod", "scout", sysctls={"net.ipv4.ping_group_range": "0 0"})
    ours, theirs = Channel.pair()
    ours.send({"spec": spec.to_json()})

    def work() -> None:
        builder.build(theirs)
        ours.close()

    return work


def _init() -> Callable[[], None]:
    document = json.dumps({"process": process_of("/usr/bin:/bin"), "tree": tree_in(PLACE)}).encode()
    plan = init.InitPlan(f"{PLACE}/pod", document, _cgroup(), (-1, *os.pipe()))
    return _child(functools.partial(init.run_init, plan))


def _exec() -> Callable[[], None]:
    document = json.dumps(process_of(f"{PLACE}/lower/bin")).encode()
    plan = exec.ExecPlan(os.pidfd_open(os.getpid()), document, _cgroup(), (-1, *os.pipe()), late=False)
    return _child(functools.partial(exec.run_exec, plan))


def _child(body: Callable[[Status], None]) -> Callable[[], None]:
    shim, theirs = Channel.pair()

    def work() -> None:
        body(Status(theirs))
        shim.close()  # it hears of nothing, but has to be there

    return work
