"""The directory around a CSI target or staging path: prepared before the driver is called, cleared after it.

The path itself is the driver's. What is left there after the driver said that it is done is looked at and never
deleted: a mount would be somebody's storage, and a file below it was written by somebody.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nodeagent.volumes.layout import make_private
from runtime.linux.files import write_atomic
from runtime.linux.mounttable import is_mount_point

VOL_DATA = "vol_data.json"


class NotEmpty(Exception):
    """Something is at a path that the driver has given back; the message says what to do with it."""


def prepare(directory: Path, about: Mapping[str, Any], inner: str = "") -> None:
    """Make the directory, the one called `inner` in it, and the file that says whose volume it is. Raises OSError."""
    make_private(directory / inner)
    write_atomic(directory / VOL_DATA, json.dumps(dict(about)).encode())


def clear(path: Path) -> None:
    """Remove the empty directory `path`, the file about it, and the directory around both. Raises NotEmpty, OSError."""
    try:
        if is_mount_point(path):
            raise NotEmpty(f"{path} is still mounted although its driver has given it back: see the driver's log")
        path.rmdir()
    except FileNotFoundError:
        pass  # the driver's duty for a target, done
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        words = f"{path} holds files although nothing is mounted there; it is left as it is"
        raise NotEmpty(f"{words}: save what you need of them and remove them") from error
    # The second pattern: what a kill in the middle of writing the file leaves.
    for ours in (path.parent / VOL_DATA, *path.parent.glob(f".{VOL_DATA}.*")):
        ours.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.parent.rmdir()
