"""What a refused system call says: a client of crid reads it, so it is text from end to end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.linux import mountapi, syscalls

#: Bits whose bytes are no text: 0x80 and above are no UTF-8, 0 ends a string in C.
REFUSED: dict[str, Callable[[int], object]] = {
    "openat2": lambda fd: syscalls.openat2(fd, "none", os.O_CREAT | os.O_EXCL | os.O_DIRECTORY, resolve=0x80),
    "mount_setattr": lambda fd: mountapi.mount_setattr(fd, set_=mountapi.MOUNT_ATTR_NODIRATIME, userns_fd=0xFF),
    "clone3": lambda fd: syscalls.clone3(syscalls.CLONE_NEWNS | 0x200),  # CLONE_FS: not with a mount namespace
}


@pytest.mark.parametrize("call", REFUSED)
def test_the_note_of_a_refused_call_is_text(tmp_path: Path, call: str) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    try:
        with pytest.raises(OSError, match="Errno") as caught:
            REFUSED[call](fd)
    finally:
        os.close(fd)
    [note] = caught.value.__notes__
    assert note.startswith(f"{call}(")
    assert note.isprintable()
    assert note.encode()
