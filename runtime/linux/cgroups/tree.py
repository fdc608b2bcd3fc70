"""Cgroup directories: made with what a new one needs to be usable, removed with what was made inside.

Below Cgroup, because undoing an entry of the ledger needs no more than the directories that it names.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable

from runtime.linux.cgroups import files
from runtime.linux.cgroups.layout import Layout

REMOVE_SECONDS = 2.0
RETRY_SECONDS = 0.002


def make(directory: str) -> bool:
    """mkdir -p for one cgroup; whether it was made now."""
    try:
        os.mkdir(directory)
    except FileExistsError:
        return False
    except FileNotFoundError:
        make(os.path.dirname(directory))
        return make(directory)
    return True


def make_cpuset(base: str, directory: str) -> None:
    """mkdir -p in the cpuset hierarchy, where a new cgroup takes no process until it has cpus and mems.

    cgroup.clone_children on the ones we made lets the kernel fill their children in (cgroup-v1/cgroups.rst, 1.5), so
    only the topmost is filled in from here.
    """
    if directory == base:
        return
    try:
        os.mkdir(directory)
    except FileExistsError:
        pass
    except FileNotFoundError:
        make_cpuset(base, os.path.dirname(directory))
        os.mkdir(directory)
    for name in ("cpuset.cpus", "cpuset.mems"):
        if files.read(f"{directory}/{name}") == "\n":
            files.write(f"{directory}/cgroup.clone_children", "1")
            files.write(f"{directory}/{name}", files.read(f"{os.path.dirname(directory)}/{name}").strip())


def enable_controllers(layout: Layout, path: str) -> None:
    """Hand every controller down to the parent of `path`; the kernel returns at once where that is so already."""
    words = [f"+{controller}" for controller in sorted(layout.v2_controllers)]
    directory = layout.v2
    for name in path.split("/")[1:]:
        try:
            files.write(f"{directory}/cgroup.subtree_control", " ".join(words))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                _enable_what_works(directory, words)
            elif error.errno == errno.EBUSY:
                error.add_note(
                    f"processes live in {directory}; a cgroup with processes cannot give controllers to its "
                    "children: start the daemon in a leaf of its own (systemd: Delegate=yes, DelegateSubgroup=)"
                )
                raise
            else:
                raise
        directory = f"{directory}/{name}"


def _enable_what_works(directory: str, words: Iterable[str]) -> None:
    """One by one: `cpu` is refused while real-time processes exist on some kernels (cgroup-v2.rst, "CPU").

    What is refused has no files below, so a limit that needs it is a MissingController then; further down it cannot be
    handed on (ENOENT). Raises FileNotFoundError when the directory is gone.
    """
    here = files.read(f"{directory}/cgroup.controllers").split()
    for word in words:
        if word[1:] not in here:
            continue
        try:
            files.write(f"{directory}/cgroup.subtree_control", word)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise


def remove_directories(directories: Iterable[str], seconds: float = REMOVE_SECONDS) -> None:
    """Remove cgroup directories with all below them, waiting `seconds` in all for their last processes to be reaped.

    For a caller that only has the ledger's entry. Without any time all is tried once. No error for those that are gone;
    OSError (EBUSY) for the first that cannot be removed, after all were tried.
    """
    deadline = time.monotonic() + seconds
    failed: OSError | None = None
    for directory in directories:
        try:
            _remove_tree(directory, deadline)
        except OSError as error:
            failed = failed or error
    if failed:
        raise failed


def _remove_tree(directory: str, deadline: float) -> None:
    late = False
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            if late:
                error.add_note(f"processes in it: {pids(directory)[:10]}")
                raise
            late = time.monotonic() > deadline
            if not _remove_children(directory, deadline) and not late:
                time.sleep(RETRY_SECONDS)
        else:
            return


def _remove_children(directory: str, deadline: float) -> bool:
    """Remove the cgroups below; whether there were any. A container with a writable cgroup file system makes some."""
    try:
        children = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return False
    for child in children:
        _remove_tree(child, deadline)
    return bool(children)


def pids(directory: str) -> list[int]:
    """The processes of one cgroup directory, not of those below; none when it is gone."""
    try:
        return [int(pid) for pid in files.read(f"{directory}/cgroup.procs").split()]
    except FileNotFoundError:
        return []
    except OSError as error:
        # ENODEV: removed since the open. EOPNOTSUPP: a threaded cgroup, whose processes its domain lists.
        if error.errno in (errno.ENODEV, errno.EOPNOTSUPP):
            return []
        raise
