"""The cgroup of a pod, above its containers: made when nobody else did, and removed by whoever needs it last.

A kubelet makes the pods' cgroups itself; a plain CRI client only names one. Those that we made carry a mark, an
extended attribute on the cgroup v2 directory, so that the last sandbox beneath takes them away and a kubelet's stay.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from runtime.linux.cgroups import Cgroup, Layout

MARK: Final = "trusted.nodeagent"


def make(path: str, resources: Mapping[str, Any], layout: Layout, owner: str) -> None:
    """Create the pod's cgroup with its ancestors, mark what was missing, and apply OCI `resources`. Raises OSError.

    To one that is not ours nothing is applied: a kubelet's limits hold the pod's overhead, and change with its pod.
    The mark says whose it is: `owner` is the directory of the sandboxes, as two daemons can live on one host.
    """
    missing = [cgroup for cgroup in _ancestry(path, layout) if not os.path.isdir(cgroup.v2)]
    pod = Cgroup(path, layout)
    if missing:
        pod.create()
    for cgroup in missing:
        os.setxattr(cgroup.v2, MARK, os.fsencode(owner))
    if resources and _is_marked(pod.v2):
        pod.apply(resources)


def remove_unused(path: str, layout: Layout) -> None:
    """Remove the pod's cgroup and its ancestors as far as we made them and nobody uses them any more."""
    for cgroup in _ancestry(path, layout):
        if not _is_marked(cgroup.v2):
            return
        for directory in cgroup.directories:  # v2 is the last: without it the mark is gone
            with contextlib.suppress(FileNotFoundError):
                try:
                    os.rmdir(directory)
                except OSError:  # EBUSY, ENOTEMPTY: a sibling needs it
                    return


def _ancestry(path: str, layout: Layout) -> Iterator[Cgroup]:
    """The cgroup itself, its parent, and so on up to the first level."""
    while path != "/":
        yield Cgroup(path, layout)
        path = os.path.dirname(path)


def _is_marked(directory: str) -> bool:
    try:
        return bool(os.getxattr(directory, MARK))
    except OSError:  # ENODATA: a kubelet's; ENOENT: gone
        return False
