"""Session keyrings (keyctl(2)): a container must not see, or fill, the one that its daemon was started with."""

from __future__ import annotations

import errno
import os
from ctypes import c_char_p, c_int
from typing import Final

from runtime.linux.syscalls import numbered

_NUMBER: Final = {"x86_64": 250, "aarch64": 219, "riscv64": 219}.get(os.uname().machine)
_JOIN_SESSION_KEYRING: Final = 1

_keyctl = numbered("keyctl", c_int, c_char_p)


def join_session_keyring(name: str) -> None:
    """Leave the inherited session keyring for a new one; a kernel built without keys has nothing to leave."""
    if _NUMBER is None:
        return
    try:
        _keyctl(_NUMBER, _JOIN_SESSION_KEYRING, os.fsencode(name))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
