"""The builder: a child of the shim that makes the pod's sandbox, and then is gone with all its memory.

    shim --fork--> builder: waits
         -------->  the request from crid, as it came
                   leaves the node's namespaces, pins them, mounts, sets, listens
         <--------  listening socket, netlink socket, and the answer for crid
         setns(pidfd of the builder): now the shim lives in the new namespaces too

A page that a process of Python touches is a page of its own; what only happens once happens here, so that a shim that
waits for years is small.
"""

from __future__ import annotations

import os
import signal
from typing import Final, NoReturn

import prctl

from runtime import state
from runtime.errors import to_doc
from runtime.linux.channel import Channel, listen
from runtime.linux.messages import encode
from runtime.linux.namespaces import netlink_socket
from runtime.linux.pages import Pages
from runtime.linux.procs import Process
from runtime.shim.sandbox import Sandbox
from runtime.spec import FIRST_REQUEST, SandboxSpec

#: What a builder writes to between its fork and its end (`runtime.scouts`).
WRITTEN: Final = Pages()


def run_builder(channel: Channel) -> NoReturn:
    """Make the sandbox that the shim asks for, tell it, wait until it has entered, exit.

    Fds come with success, and only then.
    """
    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        WRITTEN.copy()
        build(channel)
        channel.recv_payload()  # end of file: the shim has what it needs
    except BaseException as error:  # noqa: BLE001 - this process must not return into the shim
        channel.send_payload(encode({"re": FIRST_REQUEST, "error": to_doc(error)}))
    finally:
        os._exit(0)


def build(channel: Channel) -> None:
    """Await a SandboxSpec, make it, and answer on the channel; when this raises, nothing is left."""
    message = channel.recv()
    if message is None:
        return
    spec = SandboxSpec.from_json(message.doc["spec"])
    shim = Process.of(os.getppid())
    sandbox = Sandbox(spec)
    sandbox.record(shim, Process.current())
    sandbox.create()
    try:
        fds = [listen(f"{spec.state_dir}/{state.SOCKET}")]
        if spec.net == "pod":
            fds.append(netlink_socket().detach())
        answer = {"re": FIRST_REQUEST, "shim": shim.to_json(), "netns": sandbox.netns_path}
        channel.send_payload(encode(answer), fds)
    except BaseException:
        sandbox.destroy()
        raise
