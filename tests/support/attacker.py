"""A hostile image: busybox and attacker.c, which tries what shell scripts cannot; and short words for hostile requests.

The program refuses to work anywhere but in an image made here: run on the host by root, it would do what it says.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cri.proto import api_pb2 as api
from images.build import LayerFile, regular
from tests.support.crid import Crid, Sandbox
from tests.support.images import busybox_rootfs

SOURCE = Path(__file__).with_name("attacker.c")
MARK = "this-is-a-test-image"  # attacker.c looks for it
COMPILE_SECONDS = 60
SPEAK_SECONDS = 10

DEFAULT_SECCOMP = api.SecurityProfile(profile_type=api.SecurityProfile.RuntimeDefault)


@functools.cache
def program() -> bytes:
    """The static executable; skips the test without a C compiler."""
    if shutil.which("cc") is None:
        pytest.skip("the attacking program needs a C compiler (Debian: gcc)")
    with tempfile.TemporaryDirectory(prefix="na-") as directory:
        output = Path(directory, "attacker")
        command = ["cc", "-static", "-Os", "-s", "-o", str(output), str(SOURCE)]
        subprocess.run(command, check=True, timeout=COMPILE_SECONDS)
        return output.read_bytes()


def hostile_rootfs(*more: LayerFile) -> Sequence[LayerFile]:
    """Busybox, the program as /bin/attacker, and `more`."""
    return [*busybox_rootfs(), regular("bin/attacker", program(), 0o755), regular(MARK, b""), *more]


def security(**context: Any) -> api.LinuxContainerConfig:
    """`linux` of a container with this security context."""
    return api.LinuxContainerConfig(security_context=api.LinuxContainerSecurityContext(**context))


def capabilities(*names: str, **context: Any) -> api.LinuxContainerConfig:
    """The same, with capabilities added to the default ones."""
    return security(capabilities=api.Capability(add_capabilities=names), **context)


def namespaces(**modes: Any) -> api.LinuxPodSandboxConfig:
    """`linux` of a sandbox with these namespace modes."""
    options = api.NamespaceOption(**modes)
    return api.LinuxPodSandboxConfig(security_context=api.LinuxSandboxSecurityContext(namespace_options=options))


async def said(crid: Crid, pod: Sandbox, text: str, name: str = "main") -> str:
    """Wait until a container's log holds a text: the log."""
    async with asyncio.timeout(SPEAK_SECONDS):
        while text not in (log := crid.log_of(pod[1], name)):  # noqa: ASYNC110 - a file tells it
            await asyncio.sleep(0.01)
    return log
