"""Throw-away network namespaces: one that plays the host, and as many pods and neighbours as a test wants.

A test's own thread enters the host's namespace and leaves it again, so whatever it makes there (bridges, rules,
settings) disappears with it and the machine is not touched. Other namespaces are entered by threads that live for one
call, which setns(2) allows for this kind; what they open there (sockets) stays there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from runtime.linux.namespaces import loopback_up, netlink_socket
from runtime.linux.syscalls import CLONE_NEWNET, setns, unshare

T = TypeVar("T")
SECONDS = 10


@contextlib.contextmanager
def fresh_host() -> Iterator[None]:
    """Put the calling thread into a new network namespace, with lo up, and bring it back afterwards."""
    own = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        loopback_up()
        yield
    finally:
        setns(own, CLONE_NEWNET)
        os.close(own)


def inside(path: str, work: Callable[[], T]) -> T:
    """Call something in the namespace at `path`, in a thread of its own."""

    def enter_and_work() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, CLONE_NEWNET)
        finally:
            os.close(fd)
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter_and_work).result()


class Netns:
    """A network namespace that lives as long as its process; close() ends it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo ready; exec sleep 600"], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self.path = f"/proc/{self._process.pid}/ns/net"

    def close(self) -> None:
        """End the process, and with it the namespace."""
        self._process.kill()
        self._process.wait(SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def do(self, work: Callable[[], T]) -> T:
        """Call something inside; an exception comes out as it was raised."""
        return inside(self.path, work)

    def run(self, *argv: str) -> str:
        """Run a command inside and return what it printed."""
        return self.do(lambda: output(*argv))

    async def netlink(self) -> socket.socket:
        """What a runtime's shim does for cni: a netlink socket of the namespace."""
        return self.do(netlink_socket)


def output(*argv: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout


def listen(address: str, port: int) -> socket.socket:
    """A TCP server socket in the calling thread's namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    server.listen()
    server.settimeout(SECONDS)
    return server


def connect(address: str, port: int, *, timeout: float = SECONDS) -> socket.socket:
    """A TCP connection from the calling thread's namespace."""
    return socket.create_connection((address, port), timeout=timeout)


def reaches(address: str, port: int, server: socket.socket, *, timeout: float = 1.0) -> str:
    """The address that `server` sees when the calling thread's namespace connects, or "" when nothing arrives there.

    The connection must have arrived at `server` and not at somebody else's socket: a line is passed through it.
    """
    try:
        client = connect(address, port, timeout=timeout)
    except OSError:
        return ""
    server.settimeout(timeout)
    try:
        with client:
            accepted, peer = server.accept()
            with accepted:
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"
                return str(peer[0])
    except TimeoutError:
        return ""


class Uplink:
    """A machine outside, on the other end of the host's eth0: 192.0.2.1 here, 192.0.2.2 there, and IPv6 likewise."""

    HOST, OUTSIDE = "192.0.2.1", "192.0.2.2"
    HOST6, OUTSIDE6 = "2001:db8::1", "2001:db8::2"

    def __init__(self, outside: Netns) -> None:
        self.outside = outside
        pid = outside.path.split("/")[2]
        # With the same index on both sides the kernel takes it for no pair, and is a second late with the carrier.
        output("ip", "link", "add", "eth0", "index", "100", "type", "veth", "peer", "name", "eth0", "netns", pid)
        no_waiting = "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad"
        for run, address, address6 in ((output, self.HOST, self.HOST6), (outside.run, self.OUTSIDE, self.OUTSIDE6)):
            run("sh", "-c", no_waiting)
            run("ip", "address", "add", f"{address}/24", "dev", "eth0")
            run("ip", "address", "add", f"{address6}/64", "dev", "eth0", "nodad")
            run("ip", "link", "set", "eth0", "up")
        outside.run("ip", "route", "add", "default", "via", self.HOST)
        outside.run("ip", "-6", "route", "add", "default", "via", self.HOST6)
