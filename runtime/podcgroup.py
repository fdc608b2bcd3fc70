"""The cgroup of a pod, above its containers: made when nobody else did, and removed by whoever needs it last.

A kubelet makes the pods' cgroups itself; a plain CRI client only names one. Those that we made carry a mark, an
extended attribute on the cgroup v2 directory, so that the last sandbox beneath takes them away and a kubelet's stay.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from runtime.linux.cgroups import Cgroup, Layout

MARK: Final = "trusted.nodeagent"
#: Beside the mark where only the v2 directory is ours: on a hybrid host a kubelet makes its cgroups in v1 alone.
HALF: Final = "trusted.nodeagent.half"
LOCK_SECONDS: Final = 5.0


def make(path: str, resources: Mapping[str, Any], layout: Layout, owner: str) -> None:
    """Create the pod's cgroup with its ancestors, mark what was missing, and apply OCI `resources`. Raises OSError.

    To one that is not ours nothing is applied: a kubelet's limits hold the pod's overhead, and change with its pod.
    The mark says whose it is: `owner` is the directory of the sandboxes, as two daemons can live on one host.
    """
    pod = Cgroup(path, layout)
    if os.path.isdir(os.path.dirname(pod.v2)):
        _complete(pod, owner)
    else:
        with _alone(owner):
            _complete(pod, owner)
    if resources and _has(pod.v2, MARK) and not _has(pod.v2, HALF):
        pod.apply(resources)


def _complete(pod: Cgroup, owner: str) -> None:
    missing = [cgroup for cgroup in _ancestry(pod.path, pod.layout) if not os.path.isdir(cgroup.v2)]
    begun = {cgroup.v2 for cgroup in missing if cgroup.exists()}
    if missing:
        pod.create()
    for cgroup in missing:
        if cgroup.v2 in begun:
            os.setxattr(cgroup.v2, HALF, b"1")
        os.setxattr(cgroup.v2, MARK, os.fsencode(owner))


@contextlib.contextmanager
def _alone(owner: str) -> Iterator[None]:
    """Held while cgroups are made that pods share: half of what another shim makes would pass for a kubelet's.

    Raises TimeoutError when somebody else holds it for longer than making them takes.
    """
    directory = os.open(owner, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > deadline:
                why = f"the lock for making pods' cgroups is held by another process for {LOCK_SECONDS:g} s"
                raise TimeoutError(errno.ETIMEDOUT, why, owner)
            time.sleep(0.001)
        yield
    finally:
        os.close(directory)


def remove_unused(path: str, layout: Layout) -> None:
    """Remove the pod's cgroup and its ancestors as far as we made them and nobody uses them any more."""
    for cgroup in _ancestry(path, layout):
        if not _has(cgroup.v2, MARK):
            return
        ours = (cgroup.v2,) if _has(cgroup.v2, HALF) else cgroup.directories
        for directory in ours:  # v2 is the last: without it the mark is gone
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue  # the end of a sibling came as far as here
            except OSError:  # EBUSY, ENOTEMPTY: a sibling needs it
                return


def _ancestry(path: str, layout: Layout) -> Iterator[Cgroup]:
    """The cgroup itself, its parent, and so on up to the first level."""
    while path != "/":
        yield Cgroup(path, layout)
        path = os.path.dirname(path)


def _has(directory: str, mark: str) -> bool:
    try:
        return bool(os.getxattr(directory, mark))
    except OSError:  # ENODATA: not marked so; ENOENT: gone
        return False
