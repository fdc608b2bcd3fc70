"""`nodeagent up` and `down` as an operator runs them: a demo that leaves nothing, a node whose pods outlive it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nodeagent.api.client import AgentUnreachable, get
from nodeagent.up.demo import token_of
from tests.support import leftovers
from tests.support.pods import container, manifest

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0
KINDS = ("mount", "link", "nft table", "cgroup")


class Command:
    """A nodeagent verb in a process of its own; its output is read as it comes."""

    def __init__(self, *words: str) -> None:
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "nodeagent.main", *words],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    def says(self, pattern: str) -> str:
        """Waits until its output matches; the first group, or all of the match."""
        return self._until(lambda: re.search(pattern, self.output))

    def ends(self) -> int:
        self._until(lambda: self.process.poll() is not None)
        self._read()
        return self.process.returncode

    def _until(self, right: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while True:
            ended = self.process.poll() is not None
            self._read()
            if found := right():
                return found[found.re.groups and 1] if isinstance(found, re.Match) else found
            assert not ended, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.output += (self.process.stdout.read() or b"").decode()

    def descendants(self, word: str) -> list[psutil.Process]:
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [each for each in family if any(word in part for part in each.cmdline())]


@pytest.fixture
def base() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(dir="/tmp", prefix="na-"))
    yield place
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(place)


@contextlib.contextmanager
def running(*words: str) -> Iterator[Command]:
    command = Command(*words)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.send_signal(signal.SIGTERM)
            command.process.wait(PATIENCE)


def fetch(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return str(opener.open(url, timeout=5).read().decode())


def marks() -> dict[str, set[str]]:
    return {kind: set(leftovers.KINDS[kind]()) for kind in KINDS}


def left(before: dict[str, set[str]], *words: str) -> list[str]:
    """What is new and has one of these words in it: other tests may run at the same time."""
    return [
        each for kind, found in marks().items() for each in found - before[kind] if any(word in each for word in words)
    ]


def test_a_demo_that_is_interrupted_on_its_way_up_leaves_nothing_either(base: Path) -> None:
    before = marks()
    with running("up", "--demo", "--demo-dir", str(base / "demo")) as command:
        command.says("container runtime")
        command.process.send_signal(signal.SIGINT)
        assert command.ends() == 0, command.output
    assert list(base.iterdir()) == []
    assert left(before, str(base), token_of(base / "demo")[:8]) == []


def test_daemons_that_die_come_back_and_the_pod_does_not_notice(base: Path) -> None:
    with running("up", "--demo", "--demo-dir", str(base / "demo")) as command:
        url = command.says(r"at (http://[0-9.]+/)")
        for name, module in (("crid", "cri.server.main"), ("nodeagent", "nodeagent.daemon")):
            (daemon,) = command.descendants(module)
            daemon.kill()
            command.says(f"{name} ended with SIGKILL; pods go on")
            assert "Hello from pod demo" in fetch(url)
            command.says(f"{name} is back")
        pod = running_pod(base / "demo" / "run")
        assert [each["restartCount"] for each in pod["status"]["containerStatuses"]] == [0, 0]
        zombies = [each for each in psutil.Process(command.process.pid).children() if each.status() == "zombie"]
        assert zombies == []
        command.process.send_signal(signal.SIGTERM)
        assert command.ends() == 0, command.output
    assert list(base.iterdir()) == []


def test_a_second_demo_does_not_end_the_first(base: Path) -> None:
    with running("up", "--demo", "--demo-dir", str(base / "demo")) as command:
        url = command.says(r"at (http://[0-9.]+/)")
        second = Command("up", "--demo", "--demo-dir", str(base / "demo"))
        assert second.ends() == 1
        assert "another demo uses" in second.output
        assert "Hello from pod demo" in fetch(url)
        command.process.send_signal(signal.SIGTERM)
        assert command.ends() == 0, command.output
    assert list(base.iterdir()) == []


def test_a_node_that_is_there_already_is_named(base: Path) -> None:
    flags = node_flags(base)
    with running("up", *flags) as first:
        first.says("The node runs")
        second = Command("up", *flags)
        assert second.ends() == 1
        assert "another crid uses" in second.output
    down = Command("down", *flags, "--purge")
    assert down.ends() == 0, down.output


def node_flags(base: Path) -> list[str]:
    (base / "net.d").mkdir()
    token = base.name.removeprefix("na-")[:6]
    number = sum(map(ord, token))
    (base / "crid.toml").write_text(
        f'[network]\nconf_dir = "{base}/net.d"\ncache_dir = "{base}/root/cni"\n'
        f'bridge = "nau{token}"\nsubnet = "10.{64 + number % 64}.{number % 251}.0/24"\n'
    )
    flags = {"root": "root", "state": "run", "manifests": "manifests", "kubelet-root": "kubelet", "log-root": "pods"}
    own = [f"--{name}={base / place}" for name, place in flags.items()]
    return [*own, f"--config={base}/crid.toml", f"--cgroup-root=/nau{token}"]


def test_pods_outlive_the_node_until_it_is_taken_down(base: Path) -> None:
    before = marks()
    flags = node_flags(base)
    crid = [sys.executable, "-m", "cri.server.main", "import", "--busybox", "localhost/busybox:1"]
    subprocess.run([*crid, "--root", str(base / "root")], cwd=ROOT, check=True, timeout=60, stdout=subprocess.DEVNULL)
    (base / "manifests").mkdir()
    pod = manifest("web", container(command=["httpd", "-f", "-p", "80", "-h", "/etc"]), terminationGracePeriodSeconds=1)
    (base / "manifests" / "web.yaml").write_text(json.dumps(pod))
    with running("up", *flags) as command:
        command.says("The node runs")
        ip = pod_ip(base)
        command.process.send_signal(signal.SIGINT)
        assert command.ends() == 0, command.output
        assert "Pods go on" in command.output
    assert "root:x:0:0" in fetch(f"http://{ip}/passwd")
    with running("up", *flags) as command:
        command.says("The node runs")
        assert pod_ip(base) == ip
        command.process.send_signal(signal.SIGTERM)
        assert command.ends() == 0
    down = Command("down", *flags, "--purge")
    assert down.ends() == 0, down.output
    assert not (base / "root").exists()
    assert left(before, str(base), f"nau{base.name.removeprefix('na-')[:6]}") == []


def pod_ip(base: Path) -> str:
    return str(running_pod(base / "run")["status"]["podIP"])


def running_pod(state: Path) -> dict[str, Any]:
    """The node's only pod, once its agent says that it runs."""
    deadline = time.monotonic() + PATIENCE
    pods: list[dict[str, Any]] = []
    while time.monotonic() < deadline:
        with contextlib.suppress(AgentUnreachable):
            pods = get(state / "agent.sock", "/pods")["items"]
        if pods and pods[0]["status"]["phase"] == "Running":
            return pods[0]
        time.sleep(0.05)
    raise AssertionError(pods)


def test_usage() -> None:
    for words, status in ((["--help"], 0), (["--version"], 0), ([], 2), (["nonsense"], 2)):
        assert Command(*words).ends() == status
