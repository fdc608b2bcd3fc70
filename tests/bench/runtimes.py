"""A runtime under measurement: a socket, its processes, and a way to start it anew.

`External` is one that runs already. crid.py and containerd.py start one in temporary directories, beside whatever else
runs on the machine, and take everything away with it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from cri.client import CriClientSync
from tests.bench import machine
from tests.bench.pods import Pods, is_up, marker

START_TIMEOUT = 60.0  # seconds until a started daemon has to answer
STOP_TIMEOUT = 20.0  # seconds for it to end by SIGTERM


class Runtime(ABC):
    """`name` heads the columns; `registry` is the host of the images."""

    name: str
    address: str
    cgroup_parent = ""
    can_restart = True

    def __init__(self, registry: str) -> None:
        self.registry = registry
        self.mark = marker()
        self._client: CriClientSync | None = None

    @property
    def client(self) -> CriClientSync:
        assert self._client is not None, "not connected"
        return self._client

    def __enter__(self) -> Self:
        try:
            self.start()
            self.connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @abstractmethod
    def start(self) -> None:
        """Brings the daemon up; it may take a while to answer."""

    @abstractmethod
    def restart(self) -> float:
        """Ends the daemon and starts it anew; pods go on. Returns when the new one was begun (time.monotonic)."""

    def connect(self) -> None:
        """Returns when the daemon answers. Raises TimeoutError."""
        self._client = CriClientSync(self.address)
        deadline = time.monotonic() + START_TIMEOUT
        while not is_up(self._client):
            if time.monotonic() > deadline or self.ended():
                raise TimeoutError(f"{self.name} does not answer at {self.address}{self.last_words()}")
            time.sleep(0.02)

    def ended(self) -> bool:
        """Whether the daemon has given up, where that can be seen."""
        return False

    def last_words(self) -> str:
        """The end of the daemon's log, for the message about its failure."""
        return ""

    def image(self, name: str) -> str:
        return f"{self.registry}/{name}"

    def pods(self, image: str) -> Pods:
        return Pods(self.client, self.image(image), self.cgroup_parent, self.mark)

    def daemon_pid(self) -> int:
        return machine.daemon_pid(self.address.removeprefix("unix://"))

    def version(self) -> str:
        answer = self.client.Version(timeout=10.0)
        return f"{answer.runtime_name} {answer.runtime_version}"


class External(Runtime):
    """A daemon that somebody else runs. `restart_command` is a shell command that ends and starts it."""

    def __init__(self, registry: str, address: str, restart_command: str | None = None) -> None:
        super().__init__(registry)
        self.address = address
        self.name = Path(address.removeprefix("unix://")).stem
        self.can_restart = restart_command is not None
        self._restart_command = restart_command

    def start(self) -> None:
        return

    def restart(self) -> float:
        assert self._restart_command is not None
        begun = time.monotonic()
        subprocess.run(self._restart_command, shell=True, check=True, timeout=START_TIMEOUT)
        return begun


class Daemon:
    """A child process with a log file; killed when it does not end by itself."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
            )

    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT)

    def last_words(self) -> str:
        return "; its last words:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def free_subnet() -> ipaddress.IPv4Network:
    """A /16 of the private range that no interface of this machine is in."""
    shown = subprocess.run(["ip", "-j", "-4", "address"], capture_output=True, check=True, timeout=20).stdout
    used = [
        ipaddress.ip_network(f"{address['local']}/{address['prefixlen']}", strict=False)
        for link in json.loads(shown)
        for address in link.get("addr_info", [])
    ]
    while True:
        subnet = ipaddress.IPv4Network(f"10.{128 + secrets.randbelow(127)}.0.0/16")
        if not any(subnet.overlaps(other) for other in used):
            return subnet


def remove_link(name: str) -> None:
    """The bridge that a network leaves behind; none is none."""
    subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False, timeout=20)


def own_cgroup() -> str:
    """Where this process may make cgroups: on v2 the root, on v1 hosts its own place in the memory hierarchy."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return path.rstrip("/")
    return ""


def remove_cgroups(path: str) -> None:
    """The empty cgroups below `path`, in every hierarchy, and `path` itself."""
    for hierarchy in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]:
        top = hierarchy / path.lstrip("/")
        if path.strip("/") and top.is_dir():
            for directory, _, _ in os.walk(top, topdown=False):
                try:
                    Path(directory).rmdir()
                except OSError as error:
                    print(f"bench: cgroup {directory} stays: {error}")
