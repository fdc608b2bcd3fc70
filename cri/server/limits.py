"""New limits for a container that exists: in the kernel, all of them or none, and in what is written down of it.

UpdateContainerResources comes here, and so do NRI's plugins; the caller holds the container's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.errors import WrongState
from cri.server.former_limits import former_limits
from cri.server.pods import Container, cgroup_of
from cri.server.specs.resources import merged, oci_resources, without_swap
from cri.server.store import Store
from runtime.linux.cgroups import Cgroup, CgroupError

Resources = dict[str, Any]

#: One file of cgroup v2 holds both, or one is counted from the other: neither is written alone.
_PAIRS = {"cpu": ("quota", "period"), "memory": ("limit", "swap")}


def check_has_limits(container: Container) -> None:
    """Raises WrongState for a container that has exited, whose limits are gone with its cgroup."""
    if container.finished_at:
        raise _exited(container)


def _exited(container: Container) -> WrongState:
    return WrongState(f"container {container.id[:13]} ({container.name}) has exited; it has no limits any more")


async def change_limits(store: Store, container: Container, change: Resources) -> None:
    """`change` is an OCI linux.resources document; what it leaves out stays as it is.

    Raises WrongState, InvalidRequest, MissingController, OSError.
    """
    check_has_limits(container)
    wanted = merged(container.resources, in_cri_words(change))
    change = completed(change, without_swap(oci_resources(wanted)))
    if container.running:
        before = await asyncio.to_thread(_apply, container, change)
        await _tell_runtime(container, change, before)
    container.resources = wanted
    linux = container.spec.oci["linux"]
    linux["resources"] = overlaid(linux["resources"], change)
    store.save_spec(container)
    store.save_state(container)


async def change_oom_score(store: Store, container: Container, asked: int, score: int) -> None:
    """Give a container another oom_score_adj: a kubelet works it out from the memory request, which a resize changes.

    `score` is what this host allows of what was `asked`.
    """
    if container.running:
        await asyncio.to_thread(_write_oom_scores, cgroup_of(container), score)
    container.resources.oom_score_adj = asked
    container.spec.oci["process"]["oomScoreAdj"] = score
    store.save_spec(container)
    store.save_state(container)


def _write_oom_scores(cgroup: Cgroup, score: int) -> None:
    """Blocks; a second look finds whom the first one's processes were just giving birth to."""
    for _ in range(2):
        for pid in cgroup.procs():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                Path(f"/proc/{pid}/oom_score_adj").write_text(str(score))


def completed(change: Resources, wanted: Resources) -> Resources:
    """A change with the other half of each pair of which it has one, as it is `wanted` in the end."""
    result = dict(change)
    for group, pair in _PAIRS.items():
        values = change.get(group) or {}
        if not values.keys().isdisjoint(pair):
            known = {"swap": -1} if values.get("limit", 0) < 0 else wanted.get(group) or {}
            result[group] = {**{key: known[key] for key in pair if key in known}, **values}
    return result


async def _tell_runtime(container: Container, change: Resources, before: Resources) -> None:
    """An external runtime keeps account of limits as well; when it refuses them, the cgroup gets the old ones back."""
    sandbox = container.sandbox
    if sandbox.runtime is None or sandbox.pod is None:
        return
    known = {group: values for group, values in change.items() if group != "unified" or not sandbox.layout.v1}
    try:
        await sandbox.pod.update_container(container.id, known)
    except BaseException:
        await asyncio.shield(asyncio.to_thread(cgroup_of(container).apply, before))
        raise


def _apply(container: Container, change: Resources) -> Resources:
    """Put the change in force, and return what takes it back. Blocks."""
    cgroup = cgroup_of(container)
    before = former_limits(cgroup, container.spec.oci["linux"]["resources"], change)
    try:
        cgroup.apply(change)
    except (OSError, CgroupError) as error:
        if not cgroup.exists():
            raise _exited(container) from error  # just now: that nobody has told us yet
        # The kernel took some of the values: the old ones go back, so that the answer "refused" is the truth.
        try:
            cgroup.apply(before)
        except (OSError, CgroupError) as second:
            error.add_note(f"and the former limits could not all be put back: {second}")
        raise
    return before


def in_cri_words(resources: Mapping[str, Any]) -> api.LinuxContainerResources:
    """What of an OCI linux.resources document the CRI has words for, as a status reports it."""
    cpu, memory = resources.get("cpu") or {}, resources.get("memory") or {}
    message = api.LinuxContainerResources(
        cpu_shares=cpu.get("shares") or 0,
        cpu_quota=cpu.get("quota") or 0,
        cpu_period=cpu.get("period") or 0,
        cpuset_cpus=cpu.get("cpus") or "",
        cpuset_mems=cpu.get("mems") or "",
        memory_limit_in_bytes=max(0, memory.get("limit") or 0),
        memory_swap_limit_in_bytes=memory.get("swap") or 0,
        unified=resources.get("unified") or {},
    )
    for each in resources.get("hugepageLimits") or ():
        message.hugepage_limits.add(page_size=each["pageSize"], limit=each["limit"])
    return message


def overlaid(resources: Mapping[str, Any], change: Mapping[str, Any]) -> Resources:
    """linux.resources after a change: what the change leaves out stays as it is, and device rules are added."""
    result = dict(resources)
    for group, values in change.items():
        if isinstance(values, dict):
            result[group] = {**(result.get(group) or {}), **values}
        elif group == "devices":
            result[group] = [*(result.get(group) or ()), *values]
        else:
            sizes = {each["pageSize"] for each in values}
            result[group] = [*(each for each in result.get(group) or () if each["pageSize"] not in sizes), *values]
    return result
