"""Limits in three languages: NRI's LinuxResources, the OCI document's linux.resources, the CRI's own message.

NRI says what is set by the presence of a field, so a plugin can set one limit and leave the others to others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from cri.proto import api_pb2 as cri
from cri.proto import nri_pb2 as nri
from cri.server.specs.resources import oci_resources

#: (NRI field, OCI field, the owners' field)
MEMORY: Final = (
    ("limit", "limit", nri.MemLimit),
    ("reservation", "reservation", nri.MemReservation),
    ("swap", "swap", nri.MemSwapLimit),
    ("kernel", "kernel", nri.MemKernelLimit),
    ("kernel_tcp", "kernelTCP", nri.MemTCPLimit),
    ("swappiness", "swappiness", nri.MemSwappiness),
    ("disable_oom_killer", "disableOOMKiller", nri.MemDisableOomKiller),
    ("use_hierarchy", "useHierarchy", nri.MemUseHierarchy),
)
CPU: Final = (
    ("shares", "shares", nri.CPUShares),
    ("quota", "quota", nri.CPUQuota),
    ("period", "period", nri.CPUPeriod),
    ("realtime_runtime", "realtimeRuntime", nri.CPURealtimeRuntime),
    ("realtime_period", "realtimePeriod", nri.CPURealtimePeriod),
)
CPUSET: Final = (("cpus", nri.CPUSetCPUs), ("mems", nri.CPUSetMems))
CLASSES: Final = (("blockio_class", nri.BlockioClass), ("rdt_class", nri.RdtClass))

Claim = Callable[[int, str | None], None]


def copy_set_fields(source: nri.LinuxResources, target: nri.LinuxResources, claim: Claim) -> None:
    """Everything that `source` sets, each field claimed before; raises what `claim` raises."""
    for group, fields in (("memory", MEMORY), ("cpu", CPU)):
        theirs = getattr(source, group)
        for name, _, field in fields:
            if theirs.HasField(name):
                claim(field, None)
                getattr(getattr(target, group), name).CopyFrom(getattr(theirs, name))
    for name, field in CPUSET:
        if value := getattr(source.cpu, name):
            claim(field, None)
            setattr(target.cpu, name, value)
    for name, field in CLASSES:
        if source.HasField(name):
            claim(field, None)
            getattr(target, name).CopyFrom(getattr(source, name))
    if source.HasField("pids"):
        claim(nri.PidsLimit, None)
        target.pids.CopyFrom(source.pids)
    for limit in source.hugepage_limits:
        claim(nri.HugepageLimits, limit.page_size)
        kept = [each for each in target.hugepage_limits if each.page_size != limit.page_size]
        del target.hugepage_limits[:]
        target.hugepage_limits.extend([*kept, limit])
    for key, text in source.unified.items():
        claim(nri.CgroupsUnified, key)
        target.unified[key] = text
    target.devices.extend(source.devices)


def to_oci(resources: nri.LinuxResources) -> dict[str, Any]:
    """linux.resources of what is set; device rules too, classes not (they are no limits)."""
    document: dict[str, Any] = {}
    for group, fields in (("memory", MEMORY), ("cpu", CPU)):
        message = getattr(resources, group)
        values = {theirs: getattr(message, ours).value for ours, theirs, _ in fields if message.HasField(ours)}
        if values:
            document[group] = values
    if cpuset := {name: getattr(resources.cpu, name) for name, _ in CPUSET if getattr(resources.cpu, name)}:
        document.setdefault("cpu", {}).update(cpuset)
    if resources.HasField("pids"):
        document["pids"] = {"limit": resources.pids.limit}
    if resources.hugepage_limits:
        limits = [{"pageSize": each.page_size, "limit": each.limit} for each in resources.hugepage_limits]
        document["hugepageLimits"] = limits
    if resources.unified:
        document["unified"] = dict(resources.unified)
    if resources.devices:
        document["devices"] = [_rule_to_oci(rule) for rule in resources.devices]
    return document


def _rule_to_oci(rule: nri.LinuxDeviceCgroup) -> dict[str, Any]:
    document: dict[str, Any] = {"allow": rule.allow, "access": rule.access or "rwm"}
    if rule.type:
        document["type"] = rule.type
    for name in ("major", "minor"):
        if rule.HasField(name):
            document[name] = getattr(rule, name).value
    return document


def from_oci(document: Mapping[str, Any]) -> nri.LinuxResources:
    """The message of an OCI linux.resources document."""
    message = nri.LinuxResources()
    for group, fields in (("memory", MEMORY), ("cpu", CPU)):
        section = document.get(group) or {}
        for ours, theirs, _ in fields:
            if section.get(theirs) is not None:
                getattr(getattr(message, group), ours).value = section[theirs]
    for name, _ in CPUSET:
        setattr(message.cpu, name, (document.get("cpu") or {}).get(name) or "")
    if (limit := (document.get("pids") or {}).get("limit")) is not None:
        message.pids.limit = limit
    for each in document.get("hugepageLimits") or ():
        message.hugepage_limits.add(page_size=each["pageSize"], limit=each["limit"])
    message.unified.update(document.get("unified") or {})
    for rule in document.get("devices") or ():
        entry = message.devices.add(allow=rule["allow"], type=rule.get("type", ""), access=rule.get("access", ""))
        for name in ("major", "minor"):
            if rule.get(name) is not None:
                getattr(entry, name).value = rule[name]
    return message


def from_cri(asked: cri.LinuxContainerResources) -> nri.LinuxResources:
    """The message of what a CRI client asks for; what is zero there is not set here."""
    return from_oci(oci_resources(asked))
