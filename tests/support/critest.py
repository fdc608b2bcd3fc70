"""Kubernetes' own conformance suite for CRI runtimes, and the images that it wants, from a registry of our own.

critest pulls from registry.k8s.io and gcr.io. Here those names are mirrors (hosts.toml) of a local docker-registry that
holds stand-ins with the same behaviour, built from busybox, so that the suite runs without a network.

    serve_images(crid, registry)
    result = critest(crid.socket, "-websocket-exec")
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from images.build import LayerFile, directory, regular
from tests.support import peers
from tests.support.crid import Crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry

SECONDS = 900.0
HOSTS = ("registry.k8s.io", "k8s.gcr.io", "gcr.io")
STAGING = "k8s-staging-cri-tools"

ACCOUNTS = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\ndefault-user:x:1000:1000::/home/default-user:/bin/sh\n",
    "etc/group": b"root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n",
}

NNP = """
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("Effective uid: %d\\n", geteuid()); return 0; }
"""
WELCOME = "<h1>Welcome to nginx!</h1>"

# What Debian's busybox leaves out of the image that the suite expects.
PGREP = """#!/bin/sh
ps -o pid,comm | while read pid name; do [ "$name" = "$1" ] && echo "$pid"; done
true
"""
IPCS = """#!/bin/sh
exec cat /proc/sysvipc/shm
"""


def _base() -> list[LayerFile]:
    """Busybox with pgrep and ipcs, and with a shell that starts /bin/ls instead of being ls itself.

    A mask over /bin/ls must be seen by `sh -c ls`, but Debian's busybox has FEATURE_SH_STANDALONE. So the shell is a
    copy that does not know an applet of that name (the altered one keeps the table's order).
    """
    shell = Path("/bin/busybox").read_bytes().replace(b"\0ls\0", b"\0lr\0")
    tree = [file for file in busybox_rootfs() if file.path not in ("bin/sh", "bin/ash")]
    extra = {"bin/sh": shell, "bin/pgrep": PGREP.encode(), "bin/ipcs": IPCS.encode()}
    return [*tree, *(regular(path, data, 0o755) for path, data in extra.items())]


def serve_images(crid: Crid, registry: Registry) -> None:
    """Push all images, and make the registry the mirror of the names that critest pulls from."""
    for host in HOSTS:
        folder = crid.registries / host
        folder.mkdir(exist_ok=True)
        (folder / "hosts.toml").write_text(
            f'server = "https://{host}"\n[host."http://{registry.host}"]\ncapabilities = ["pull", "resolve"]\n'
        )
    base = _base()

    def push(name: str, extra: Iterable[LayerFile] = (), **config: Any) -> None:
        push_image(registry, name, [base, [*extra]] if extra else [base], config or {"Cmd": ["sh"]})

    server = _compiled(Path(__file__).with_name("webserver.c").read_text())
    nginx, httpd = [directory("var/run"), regular("nginx", server, 0o755)], [regular("httpd", server, 0o755)]
    title = ["nginx: master process nginx -g daemon off;", "/var/run/nginx.pid"]
    push("e2e-test-images/busybox:1.29-2")
    push("e2e-test-images/nginx:1.14-2", nginx, Cmd=["/nginx", "80", WELCOME, *title], StopSignal="SIGQUIT")
    push(f"{STAGING}/hostnet-nginx-amd64:latest", nginx, Cmd=["/nginx", "12003", WELCOME, *title])
    push("e2e-test-images/httpd:2.4.39-4", httpd, Cmd=["/httpd", "80", "It works!"])
    push("e2e-test-images/nonewprivs:1.3", [regular("nnp", _compiled(NNP), 0o4755)], Cmd=["/nnp"])
    push("pause:3.9", Entrypoint=["sleep", "1000000"], Labels={"is": "pause"})
    for number, tagged in enumerate(("latest:latest", "tag:test", "tag:all", "1:latest", "2:latest", "3:latest")):
        push(f"{STAGING}/test-image-{tagged}", Cmd=["sh"], Env=[f"NUMBER={number}"])
    for tag in "123":
        push(f"{STAGING}/test-image-tags:{tag}", Cmd=["sh"], Env=["TAGS=1"])
    users = {"uid": "1002", "username": "www-data", "uid-group": "1003:users", "username-group": "www-data:100"}
    for name, user in users.items():
        push(f"{STAGING}/test-image-user-{name}:latest", Cmd=["sh"], User=user)
    accounts = [regular(path, data) for path, data in ACCOUNTS.items()]
    push(f"{STAGING}/test-image-predefined-group:latest", accounts, Cmd=["sh"], User="1000")


def _compiled(source: str) -> bytes:
    """A static program of some lines of C; skips the test without a compiler."""
    if shutil.which("cc") is None:
        pytest.skip("critest's images need a C compiler (Debian: gcc)")
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "program")
        command = ["cc", "-static", "-Os", "-s", "-x", "c", "-", "-o", str(program)]
        subprocess.run(command, input=source.encode(), check=True, timeout=60)
        return program.read_bytes()


@dataclass(frozen=True, slots=True)
class Result:
    """What a run of critest came to."""

    passed: int
    failed: tuple[str, ...]
    skipped: int
    seconds: float
    output: str


def critest(socket: Path, *arguments: str) -> Result:
    """Run the suite; skips the test where it cannot be built."""
    program = peers.require("critest")
    command = [str(program), f"--runtime-endpoint=unix://{socket}", "--ginkgo.no-color", "--ginkgo.seed=1", *arguments]
    with tempfile.TemporaryDirectory(prefix="na-critest-") as scratch:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=scratch, check=False)
    output = done.stdout + done.stderr
    counts = re.search(r"(\d+) Passed \| (\d+) Failed \| \d+ Pending \| (\d+) Skipped", output)
    seconds = re.search(r"Ran \d+ of \d+ Specs in ([\d.]+) seconds", output)
    assert counts and seconds, output[-4000:]
    failed = tuple(dict.fromkeys(re.findall(r"^\s*\[(?:FAIL|PANICKED|TIMEDOUT)\] (.*)$", output, re.MULTILINE)))
    return Result(int(counts[1]), failed, int(counts[3]), float(seconds[1]), output)
