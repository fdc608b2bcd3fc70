"""The end of a sandbox: used by StopPodSandbox, by the undo of a failed RunPodSandbox, and by recovery.

Each step is idempotent and strikes out its ledger entries once it is done, so whatever is interrupted is done again by
the next caller and nothing is done by halves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from typing import Any

from cri.server.daemon import Daemon
from cri.server.exits import strike_kernel_state
from cri.server.pod_network import attachment_of
from cri.server.pods import Sandbox
from runtime.client import Pod
from runtime.linux.failpoints import failpoint
from runtime.linux.files import boot_id

log = logging.getLogger("crid")

FAILPOINTS = ("crid.end_sandbox.after_network", "crid.end_sandbox.after_pod")


async def end_sandbox(daemon: Daemon, sandbox: Sandbox) -> None:
    """Release the network, kill what runs, undo namespaces and cgroups. Raises what could not be undone.

    The network first (CNI SPEC, DEL: the namespace should still exist), and the pod even when that fails: a plugin
    that hangs must not keep containers running.
    """
    try:
        if not sandbox.host_network:
            await daemon.cni.delete(attachment_of(sandbox))
            failpoint("crid.end_sandbox.after_network")
    finally:
        await _end_pod(daemon, sandbox)


async def take_back(daemon: Daemon, sandbox: Sandbox) -> None:
    """Leave nothing of a sandbox that has no record; raises what could not be undone."""
    await end_sandbox(daemon, sandbox)
    await remove_directory(daemon, sandbox.id)


async def _end_pod(daemon: Daemon, sandbox: Sandbox) -> None:
    # Taken away first: from here on the end of the shim is no loss.
    pod, sandbox.pod = sandbox.pod, None
    emptied = not daemon.runtime.has_state(sandbox.id)
    if pod is None or not await _stopped(pod, sandbox) or emptied:
        for event in await daemon.runtime.destroy_lost(sandbox.id, _remembered(sandbox)):
            daemon.exits.happened(event)
    failpoint("crid.end_sandbox.after_pod")
    strike_kernel_state(daemon.ledger, sandbox.id)


def _remembered(sandbox: Sandbox) -> dict[str, Any] | None:
    """What the shim has written of itself, from our own records: somebody may have emptied the state directory."""
    if sandbox.shim is None or sandbox.boot != boot_id():
        return None
    cgroups = [f"{sandbox.cgroup}/{sandbox.id}", *(container.cgroup for container in sandbox.containers.values())]
    return {
        "shim": sandbox.shim,
        "builder": sandbox.shim,
        "layout": sandbox.layout.to_json(),
        "cgroup_parent": sandbox.cgroup,
        "own": [{"cgroup": path} for path in cgroups],
    }


async def _stopped(pod: Pod, sandbox: Sandbox) -> bool:
    """Whether the shim has ended its pod; one that hangs is left to destroy_lost(), which kills it."""
    try:
        await pod.stop()
    except TimeoutError as error:
        log.error("sandbox %s (pod %s): %s; it is killed", sandbox.id[:13], sandbox.name, error)
        pod.disconnect()
        return False
    return True


async def remove_directory(daemon: Daemon, sandbox_id: str) -> None:
    """Remove the sandbox's directory under the state directory."""
    directory = daemon.sandbox_directory(sandbox_id)
    # Only our own files are in it. A mount that is left there after all refuses to be unlinked: no look at the mount
    # table is needed, which grows with every pod of the node.
    with contextlib.suppress(FileNotFoundError):
        await asyncio.to_thread(shutil.rmtree, directory)
    daemon.ledger.strike(("dir", str(directory)))
