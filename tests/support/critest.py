"""Kubernetes' own conformance suite for CRI runtimes, and the images that it wants, from a registry of our own.

critest pulls from registry.k8s.io and gcr.io. Here those names are mirrors (hosts.toml) of a local docker-registry that
holds stand-ins with the same behaviour, built from busybox, so that the suite runs without a network.

    serve_images(crid, registry)
    result = critest(crid.socket, "-websocket-exec", "-parallel=4")
"""

from __future__ import annotations

import json
import os
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
PINNED_DIGEST = b"sha256:9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf"

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


def serve_images(crid: Crid, registry: Registry) -> str:
    """Push all images, and make the registry the mirror of the names that critest pulls from.

    Returns the digest of test-image-digest, for `pinning`.
    """
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
    return push_image(
        registry, f"{STAGING}/test-image-digest:latest", [base], {"Cmd": ["sh"], "Env": ["DIGEST=1"]}
    ).digest


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
class Spec:
    """One spec of the suite and how it ended: passed, failed, skipped (`why` in the suite's own words) or panicked."""

    name: str
    state: str
    why: str

    @property
    def selected(self) -> bool:
        """A spec that the command line left out is skipped without a word."""
        return self.state != "skipped" or bool(self.why)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run of critest came to: the specs that were selected, and the seconds that they took together."""

    specs: tuple[Spec, ...]
    seconds: float
    output: str

    @property
    def passed(self) -> tuple[Spec, ...]:
        return tuple(spec for spec in self.specs if spec.state == "passed")

    @property
    def others(self) -> tuple[Spec, ...]:
        return tuple(spec for spec in self.specs if spec.state != "passed")


def critest(socket: Path, *arguments: str, program: Path | None = None) -> Result:
    """Run the suite; skips the test where it cannot be built. With `-parallel=N`, N specs run at a time.

    Its specs of AppArmor load their profiles with sudo, which a machine of root's may not have and root does not need.
    """
    program = program or peers.require("critest")
    parallel_runner = peers.require("ginkgo").parent
    with tempfile.TemporaryDirectory(prefix="na-critest-") as scratch:
        report, sudo = Path(scratch, "report.json"), Path(scratch, "sudo")
        sudo.write_text('#!/bin/sh\nexec "$@"\n')
        sudo.chmod(0o755)
        command = [str(program), f"--runtime-endpoint=unix://{socket}", "--ginkgo.no-color", "--ginkgo.seed=1"]
        done = subprocess.run(
            [*command, f"--ginkgo.json-report={report}", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            cwd=scratch,
            env={**os.environ, "PATH": f"{scratch}:{parallel_runner}:{os.environ['PATH']}", "TMPDIR": scratch},
            check=False,
        )
        output = done.stdout + done.stderr
        assert report.exists(), output[-4000:]
        [suite] = json.loads(report.read_text())
    specs = tuple(_spec(each) for each in suite["SpecReports"] if each["LeafNodeType"] == "It")
    return Result(tuple(spec for spec in specs if spec.selected), suite["RunTime"] / 1e9, output)


def _spec(report: dict[str, Any]) -> Spec:
    name = " ".join([*(report["ContainerHierarchyTexts"] or []), report["LeafNodeText"]])
    return Spec(name, report["State"], report.get("Failure", {}).get("Message", ""))


def pinning(digest: str, program: Path, scratch: Path) -> Path:
    """A copy of critest whose spec of a pull by digest names an image that exists here.

    The one that it pins lies in a registry of its authors and cannot be built again.
    """
    code = program.read_bytes()
    assert code.count(PINNED_DIGEST) == 1
    copy = scratch / "critest"
    copy.write_bytes(code.replace(PINNED_DIGEST, digest.encode()))
    copy.chmod(0o755)
    return copy
