"""What can be wrong with a request for a cgroup, apart from what the kernel says (which stays OSError)."""

from __future__ import annotations


class CgroupError(RuntimeError):
    """A cgroup cannot be had as asked for."""


class MissingController(CgroupError):
    """A limit that nothing on this host can enforce; never passed over in silence."""

    def __init__(self, controller: str, field: str) -> None:
        super().__init__(
            f"linux.resources.{field} cannot be enforced: this host has no cgroup controller {controller!r} for it; "
            "see /proc/cgroups and cgroup.controllers, enable it on the kernel command line, or drop the limit"
        )
        self.controller = controller
        self.field = field


class InvalidResources(CgroupError, ValueError):
    """Resources that contradict themselves; the message names the field."""
