"""What an error of the kernel says of the call."""

from __future__ import annotations

import errno

import pytest

from runtime.linux import mountapi


def test_a_failed_call_is_shown_without_the_bytes_of_its_structures() -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as failed:
        mountapi.mount_setattr(-1, set_=mountapi.MOUNT_ATTR_RDONLY)
    assert failed.value.errno == errno.EBADF
    assert failed.value.__notes__ == ["mount_setattr(-1, , 4096, ..., 32)"]
