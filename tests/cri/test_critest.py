"""Kubernetes' own conformance suite, against crid: over SPDY, over WebSocket, and several specs at a time.

EXCEPTIONS is the whole list of specs that do not pass here, each with its reason; what is not in it has to pass.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from runtime.linux.lsm import apparmor_enabled, selinux_enabled
from tests.support import peers
from tests.support.crid import Crid, running_crid
from tests.support.critest import Result, critest, pinning, serve_images
from tests.support.registry import Registry

pytestmark = pytest.mark.timeout(900)

EXCEPTIONS = {
    r"public image with digest should be pulled": "pins an image of its authors' registry that nobody can build again; "
    "the same spec with the digest of an image that exists is a test below",
    r"^\[k8s.io\] SELinux .* mount label should have ": "looks into the mounts of pid 1; of pods that share their PID "
    "namespace that is an init with an empty root, which stays the node's, so that no container can look into it",
    **({} if apparmor_enabled() else {r"^\[k8s.io\] AppArmor ": "this kernel runs without AppArmor"}),
}

RUNNABLE = 107
FLAGS = ("-websocket-exec", "-websocket-attach", "-websocket-portforward")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(registry: Registry) -> AsyncIterator[tuple[Crid, str]]:
    """A crid of the suite's own, which pulls and removes images as it likes; and the digest for `pinning`."""
    async with running_crid() as crid:
        yield crid, serve_images(crid, registry)


def surprises(result: Result) -> list[str]:
    """What did not pass and is not in the list."""
    return [
        f"{spec.state}: {spec.name}: {spec.why}"
        for spec in result.others
        if not any(re.search(known, spec.name) for known in EXCEPTIONS)
    ]


async def test_every_spec_that_this_host_can_run_passes(
    served: tuple[Crid, str], record_property: Callable[[str, object], None]
) -> None:
    crid, _ = served
    result = await asyncio.to_thread(critest, crid.socket)
    assert not surprises(result), result.output[-20000:]
    assert len(result.passed) >= RUNNABLE
    record_property("seconds", result.seconds)  # containerd 2.3.4 with runc 1.4.3 takes 97 on two cores


async def test_the_streaming_specs_pass_over_websocket_too(served: tuple[Crid, str]) -> None:
    crid, _ = served
    result = await asyncio.to_thread(critest, crid.socket, *FLAGS, "--ginkgo.focus=Streaming")
    assert not surprises(result), result.output[-20000:]
    assert len(result.passed) == 5


@pytest.mark.parametrize(
    ("module", "enabled", "number"), [("AppArmor", apparmor_enabled, 9), ("SELinux", selinux_enabled, 13)]
)
async def test_the_specs_of_a_security_module_pass(
    served: tuple[Crid, str], module: str, enabled: Callable[[], bool], number: int
) -> None:
    """Alone as well, since the machines of tests.vm that run these modules are too slow for the whole suite."""
    if not enabled():
        pytest.skip(f"this kernel runs without {module}; tests.vm boots one with it")
    crid, _ = served
    result = await asyncio.to_thread(critest, crid.socket, f"--ginkgo.focus={module}")
    assert not surprises(result), result.output[-20000:]
    assert len(result.passed) == number


async def test_every_spec_passes_beside_others(served: tuple[Crid, str]) -> None:
    crid, _ = served
    result = await asyncio.to_thread(critest, crid.socket, *FLAGS, "-parallel=4")
    assert not surprises(result), result.output[-20000:]
    assert len(result.passed) >= RUNNABLE


async def test_the_spec_of_a_pull_by_digest_passes_with_a_digest_that_exists(
    served: tuple[Crid, str], tmp_path: Path
) -> None:
    crid, digest = served
    program = pinning(digest, peers.require("critest"), tmp_path)
    result = await asyncio.to_thread(critest, crid.socket, "--ginkgo.focus=public image with digest", program=program)
    assert [spec.state for spec in result.specs] == ["passed"], result.output[-8000:]
