"""The word to the service manager: sd_notify(3) without libsystemd."""

from __future__ import annotations

import os
import socket

VARIABLE = "NOTIFY_SOCKET"


def notify(state: str) -> bool:
    """Send lines such as READY=1, STOPPING=1 or STATUS=...; whether there is a service manager to tell.

    A supervisor that does not listen any more is no reason for a daemon to fail, so a broken socket counts as none.
    """
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.send(state.encode())
    except OSError:
        return False
    return True
