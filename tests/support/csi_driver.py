"""The hostpath driver as a real process, to be killed, stopped and started again, with all of its mounts cleaned up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.linux.mounttable import unmount_beneath

NAME = "hostpath.test.nodeagent"
START_TIMEOUT = 20.0


class DriverProcess:
    """One driver in one directory: `kubelet` is where its sockets are, `data` holds its volumes."""

    def __init__(self, root: Path, name: str = NAME) -> None:
        self.name = name
        self.root = root
        self.kubelet = root / "k"
        self.data = root / "data"
        self.registry = self.kubelet / "plugins_registry"
        self.socket = self.kubelet / "plugins" / name / "csi.sock"
        self.registration_socket = self.registry / f"{name}-reg.sock"
        self.log = root / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        options = {
            "--name": self.name,
            "--endpoint": f"unix://{self.socket}",
            "--registration-dir": str(self.registry),
            "--data-dir": str(self.data),
            "--node-id": "node-1",
        }
        return [sys.executable, "-m", "csi.hostpath.main", *(word for pair in options.items() for word in pair)]

    def start(self, failpoints: str = "") -> None:
        """Start it and wait until it has registered; `failpoints` as in NODEAGENT_FAILPOINTS."""
        before = self._inode()
        environment = {**os.environ, "NODEAGENT_FAILPOINTS": failpoints}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self.command(), env=environment, stderr=log, stdout=log)
        deadline = time.monotonic() + START_TIMEOUT
        while self._inode() in (None, before):
            assert self._process.poll() is None, f"the driver did not start: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"the driver does not register: {self.log.read_text()}"
            time.sleep(0.02)

    def _inode(self) -> tuple[int, int] | None:
        try:
            status = self.registration_socket.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        """Its exit status, once it has ended by itself."""
        assert self._process is not None
        return self._process.wait(timeout)

    def kill(self) -> None:
        """kill -9, as the OOM killer would."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()


@contextmanager
def driver_process(root: Path, name: str = NAME) -> Iterator[DriverProcess]:
    """A started driver below `root`; afterwards no process and no mount below `root` is left."""
    driver = DriverProcess(root, name)
    try:
        driver.start()
        yield driver
    finally:
        driver.kill()
        unmount_beneath(root)
