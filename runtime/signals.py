"""Signal state of our single-threaded processes, and how a container's process gets a clean one.

execve keeps a signal mask and ignored signals, so whatever the daemon's parent ignored (nohup, a supervisor) and what
Python ignores would reach every container. The zygote starts from defaults; only the few named here need undoing.
"""

from __future__ import annotations

import signal
from typing import Final

from runtime.linux.syscalls import default_action, unblock_signals

# SIGCANCEL and SIGSETXID: a parent that is no glibc program can have them ignored, and execve keeps that.
_GLIBCS_OWN: Final = (32, 33)
# Ignored by Python itself, or by us.
_IGNORED: Final = (int(signal.SIGPIPE), int(signal.SIGXFSZ))


def start_from_defaults() -> None:
    """In the zygote: nothing blocked, nothing ignored but SIGPIPE, which must be an error and no death."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_DFL)
    for number in _GLIBCS_OWN:
        default_action(number)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def reset_signals() -> None:
    """In a child about to execve: defaults for what our processes ignore, and an empty mask.

    Python's own functions answer with enums of what was before, which is more work than all the rest here.
    """
    for number in _IGNORED:
        default_action(number)
    unblock_signals()
