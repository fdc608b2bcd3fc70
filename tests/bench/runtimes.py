"""A runtime under measurement: a socket, its processes, and a way to start it anew.

`External` is one that runs already; started.py, crid.py and containerd.py start one.
"""

from __future__ import annotations

import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from cri.client import CriClientSync
from tests.bench import machine
from tests.bench.pods import Pods, is_up, marker

START_TIMEOUT = 60.0  # seconds until a started daemon has to answer


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

    def cpu_seconds(self) -> float | None:
        """CPU seconds of all processes of the runtime so far; None where it does not run in a cgroup of ours."""
        return None

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
