"""The pod's network namespace, for a plugin that runs as a program: single-threaded, so that it may enter it.

It is entered for a moment only, to open a socket there; the socket stays there while the process works on the host.
crid never does this. It gets such a socket from the pod's shim.
"""

from __future__ import annotations

import os
from typing import Final

from cni.errors import InvalidNetns
from cni.rtnl.socket import Netlink
from runtime.linux.namespaces import set_sysctls
from runtime.linux.syscalls import CLONE_NEWNET, setns

_NO_ADVERTISEMENTS: Final = {"net.ipv6.conf.default.accept_ra": "0"}


def pod_sysctls() -> dict[str, str]:
    """What a runtime sets in a network namespace that it makes, before there is an interface to inherit it.

    A pod's neighbours do not tell it where the world is (CVE-2020-10749). Empty on a kernel without IPv6.
    """
    return dict(_NO_ADVERTISEMENTS) if os.path.exists("/proc/sys/net/ipv6") else {}


def open_pod_netlink(path: str) -> Netlink:
    """A socket in the namespace at `path`; raises InvalidNetns when there is none, or when it is our own."""
    try:
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidNetns(f"network namespace {path!r} cannot be opened: {error.strerror}") from error
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        refuse_own(path)
        setns(target, CLONE_NEWNET)
        try:
            set_sysctls(pod_sysctls().items())
            return Netlink.open()
        finally:
            setns(own, CLONE_NEWNET)
    finally:
        os.close(target)
        os.close(own)


def refuse_own(path: str) -> None:
    """Raise InvalidNetns when `path` is the namespace of the host: a pod's addresses and routes would become ours."""
    try:
        same = os.path.samestat(os.stat(path), os.stat("/proc/self/ns/net"))
    except OSError as error:
        raise InvalidNetns(f"network namespace {path!r}: {error.strerror}") from error
    if same:
        raise InvalidNetns(f"network namespace {path!r} is the one that the plugin runs in", "it must be the pod's")
