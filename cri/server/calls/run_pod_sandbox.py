"""RunPodSandbox: a pod's namespaces and network.

What is made, in order, and what takes it back:

    ledger entries     struck out when all below is undone
    directory, /etc    removed
    shim, namespaces   Pod.stop()
    network            CNI DEL
    record             from here on it is READY

A crash in between leaves entries in the ledger whose holder has no record: recovery takes those back the same way.
"""

from __future__ import annotations

import secrets
import time

from cri.proto import api_pb2 as api
from cri.server.daemon import Daemon
from cri.server.errors import AlreadyExists, Unavailable, words_of
from cri.server.pod_network import attachment_of
from cri.server.pods import Sandbox
from cri.server.sandbox_end import take_back
from cri.server.specs.etc_files import write_etc_files
from cri.server.specs.sandbox import check_config, pod_cgroup, sandbox_spec
from cri.server.store import sandbox_key
from runtime.client import ShimLost
from runtime.linux.failpoints import failpoint
from runtime.linux.ledger import Effect

FAILPOINTS = ("crid.run_sandbox.after_ledger", "crid.run_sandbox.after_shim", "crid.run_sandbox.after_network")


async def run_pod_sandbox(daemon: Daemon, request: api.RunPodSandboxRequest) -> api.RunPodSandboxResponse:
    """A new READY sandbox, or the outcome of the same request that is still under way or already done."""
    if daemon.stopping.is_set():
        raise Unavailable("crid is stopping")
    check_config(request.config)
    daemon.handlers.find(request.runtime_handler)
    key, asked = sandbox_key(request.config.metadata), request.SerializeToString(deterministic=True)
    if existing := daemon.store.named_sandbox(key):
        return api.RunPodSandboxResponse(pod_sandbox_id=_same(existing, request).id)
    id = await daemon.sandboxes_under_way.run(key, asked, lambda: _make(daemon, request))
    return api.RunPodSandboxResponse(pod_sandbox_id=id)


def _same(existing: Sandbox, request: api.RunPodSandboxRequest) -> Sandbox:
    """A repeated request for a sandbox that is READY is answered by it: its first answer may have been lost."""
    if existing.ready and (existing.config, existing.runtime_handler) == (request.config, request.runtime_handler):
        return existing
    what = "has another configuration" if existing.ready else "is stopped"
    raise AlreadyExists(
        f"sandbox {existing.id[:13]} of pod {existing.name}, attempt {existing.config.metadata.attempt}, {what}; "
        "remove it, or ask for the next attempt"
    )


async def _make(daemon: Daemon, request: api.RunPodSandboxRequest) -> str:
    await daemon.tidied.wait()
    sandbox = Sandbox(
        id=secrets.token_hex(32),
        config=request.config,
        runtime_handler=request.runtime_handler,
        cgroup=pod_cgroup(daemon, request.config),
        created_at=time.time_ns(),
        runtime=await daemon.handlers.runtime_of(request.runtime_handler),
    )
    spec = sandbox_spec(daemon, sandbox)
    if spec.userns is not None:
        await daemon.userns.check(sandbox.runtime["name"] if sandbox.runtime else "")
    directory = daemon.sandbox_directory(sandbox.id)
    daemon.ledger.record(*_effects(sandbox, str(directory)))
    try:
        failpoint("crid.run_sandbox.after_ledger")
        directory.mkdir(mode=0o700, parents=True)
        write_etc_files(directory / "etc", sandbox.config, spec.hostname, sandbox.userns)
        sandbox.pod = await daemon.runtime.create_sandbox(spec)
        sandbox.netns, sandbox.shim = sandbox.pod.netns_path, sandbox.pod.shim.to_json()
        failpoint("crid.run_sandbox.after_shim")
        if not sandbox.host_network:
            result = await daemon.cni.add(attachment_of(sandbox))
            sandbox.ips = tuple(str(ip.address.ip) for ip in result.ips)
            failpoint("crid.run_sandbox.after_network")
        await daemon.nri.run_pod(sandbox)
        if not sandbox.pod.open:  # until it is in the store, nobody hears of its loss
            raise ShimLost(f"the shim of sandbox {sandbox.id[:13]} died while the pod was being made")
        sandbox.ready_at = time.time_ns()
        daemon.store.save_sandbox(sandbox)
    except BaseException as error:
        await daemon.nri.undo_pod(sandbox)
        await _take_back(daemon, sandbox, error)
        raise
    daemon.events.publish(api.CONTAINER_CREATED_EVENT, sandbox.id, sandbox)
    daemon.events.publish(api.CONTAINER_STARTED_EVENT, sandbox.id, sandbox)
    return sandbox.id


async def _take_back(daemon: Daemon, sandbox: Sandbox, reason: BaseException) -> None:
    """Undo a half-made sandbox. What cannot be undone now keeps its ledger entry and is tried again later."""
    reason.add_note(f"while running pod {sandbox.name}")
    try:
        await take_back(daemon, sandbox)
    except Exception as error:  # noqa: BLE001 - the first error is the one to report
        reason.add_note(f"taking it back failed as well, and is tried again: {words_of(error)}")
        daemon.janitor.take(sandbox, lambda: take_back(daemon, sandbox))


def _effects(sandbox: Sandbox, directory: str) -> list[Effect]:
    """All that making the sandbox puts into the kernel and the file system, but for what CNI records itself."""
    effects = [
        Effect("dir", directory, sandbox.id),
        Effect("mount", f"{directory}/etc", sandbox.id),
        Effect("cgroup", sandbox.cgroup, sandbox.id),
    ]
    if sandbox.options.ipc == api.POD:
        effects.append(Effect("mount", f"{directory}/shm", sandbox.id))
    if not sandbox.host_network:
        effects.append(Effect("netns", f"{directory}/ns/net", sandbox.id))
    if sandbox.userns is not None:
        effects.append(Effect("mount", f"{directory}/ns/user", sandbox.id))
    return effects
