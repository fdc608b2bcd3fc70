"""The zygote: a warm interpreter that forks shims, and that is all.

It is started by `runtime.launcher` as a fresh process with one thread, imports everything a shim or a container's first
process will need, and freezes it: after gc.freeze() no collection writes into the shared pages, so that a forked shim
costs little memory and a fork little time. It keeps no state; when it dies another one is started. Its end is the end
of file on its channel, that is: crid's end.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal

import prctl

from runtime.errors import to_doc
from runtime.gathering import fill_gaps
from runtime.linux.caps import bounding_mask, every_mask
from runtime.linux.cgroups import detect
from runtime.linux.channel import Channel
from runtime.linux.messages import Message
from runtime.linux.namespaces import in_chroot
from runtime.linux.overlay import appends_layers
from runtime.linux.syscalls import clone3, close_range, signalfd
from runtime.rehearsal import rehearse
from runtime.scouts import send_scouts
from runtime.shim.main import Shim
from runtime.signals import start_from_defaults
from runtime.spec import FIRST_REQUEST
from runtime.trial import run_trial

CHANNEL_FD = 3


def main(channel_fd: int) -> None:
    """Serve until crid's end of the channel closes."""
    channel = _take_channel(channel_fd)
    start_from_defaults()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # shims inherit this, and the fd that tells of it
    signals = signalfd({signal.SIGCHLD})
    prctl.set_name("zygote")
    prctl.set_proctitle("zygote")
    prctl.set_dumpable(0)  # inherited until execve: no container looks into our copies through /proc
    if in_chroot():
        return channel.send({"ready": False})
    detect()
    with contextlib.suppress(OSError):  # a kernel without overlayfs says so where a root filesystem is mounted
        appends_layers()
    bounding_mask()
    every_mask()
    rehearse()
    fill_gaps()
    shim = Shim(signals)
    fill_gaps()
    gc.freeze()
    send_scouts()
    channel.send({"ready": True})
    _serve(channel, shim, signals)


def _serve(channel: Channel, shim: Shim, signals: int) -> None:
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    poll.register(signals, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == signals:
                _reap(signals)
                continue
            message = channel.recv()
            if message is None:
                return
            _fork(shim, message)


def _reap(signals: int) -> None:
    """Shims that have ended; nobody here asks how."""
    os.read(signals, 128)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _take_channel(fd: int) -> Channel:
    channel = Channel.adopt(fd)
    channel.move_to(CHANNEL_FD)
    close_range(CHANNEL_FD + 1)  # among others the fd that the interpreter was executed from
    return channel


def _fork(shim: Shim, message: Message) -> None:
    """One request: `shim` lives in a process of its own, or user namespaces are tried there.

    It answers on the fd sent with the request.
    """
    connection = Channel.adopt(message.fds[0])
    doc, trial = message.doc, message.doc["op"] == "try"
    try:
        pid, pidfd = clone3(0)  # os.fork() prepares for threads, and what that writes each shim has copies of
        if not pid:
            os.close(CHANNEL_FD)  # not through its object, which is the zygote's to write to
            if trial:
                run_trial(doc["directory"], connection)
            shim.live(connection)
        os.close(pidfd)
    except OSError as error:
        with contextlib.suppress(OSError):
            connection.send({"re": FIRST_REQUEST, "error": to_doc(error)})
    finally:
        connection.close()
