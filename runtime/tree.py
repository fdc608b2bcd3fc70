"""A container's filesystem tree while it is being built, and what all steps that build it have in common.

A step is data with describe() and execute(). `runtime.rootfs` plans the list of them; they stand in `runtime.mounting`,
`runtime.devices` and `runtime.protections`, and run in the child of clone3, in a mount namespace that is a copy of the
host's. Every target is an fd that the kernel resolved inside the new root; every source is a detached mount. When one
fails, its describe() goes into the error as a note: it says what was being done, in words that need no source code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from runtime.linux import mountapi, paths

# Image content must not decide where these are: CVE-2019-16884, CVE-2023-28642, CVE-2026-41579.
NO_LINKS: Final = frozenset({"/proc", "/sys", "/dev"})


@dataclass(slots=True)
class Tree:
    """The root being built: its fd, where it is attached until pivot_root, and mounts that were opened early.

    `userns` is an fd of the user namespace that the tree is for, -1 for the node's own.
    """

    staging: str
    root: int = -1
    userns: int = -1
    sources: dict[tuple[str, bool], list[int]] = field(default_factory=dict)
    null: int = -1
    empty: int = -1


class Step(Protocol):
    """One small thing to do to the tree, planned as data."""

    def describe(self) -> str:
        """What it does, for errors and logs."""

    def execute(self, tree: Tree) -> None:
        """Do it; raises OSError."""


def perform(steps: list[Step], tree: Tree) -> None:
    """Execute them in order; the failing one is named in a note of its error."""
    for step in steps:
        try:
            step.execute(tree)
        except OSError as error:
            error.add_note(step.describe())
            raise


def attach(tree: Tree, mount_fd: int, target: str, *, directory: bool) -> None:
    """Attach a detached mount inside the tree and close its fd."""
    try:
        place = open_target(tree, target, directory=directory)
        try:
            mountapi.move_mount(mount_fd, place)
        finally:
            os.close(place)
    finally:
        os.close(mount_fd)


def open_target(tree: Tree, target: str, *, directory: bool) -> int:
    """The place for a mount, made when missing: links stay inside the root, and /proc, /sys, /dev must not be any."""
    if target in NO_LINKS:
        try:
            return paths.open_inside(tree.root, target, os.O_PATH | os.O_DIRECTORY, follow=False)
        except FileNotFoundError:
            return paths.make_directory(tree.root, target)
        except OSError as error:
            error.add_note(f"the image's {target} is not a plain directory")
            raise
    make: Callable[[int, str], int] = paths.make_directory if directory else paths.make_file
    return make(tree.root, target)
