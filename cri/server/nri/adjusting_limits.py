"""Limits that plugins ask for, of a container that is being created or of another one: can this host enforce them?"""

from __future__ import annotations

from typing import Any, Final

from cri.proto import nri_pb2 as nri
from cri.server.limits import in_cri_words, overlaid
from cri.server.nri.refusal import Refusal
from cri.server.nri.resources import CPU, CPUSET, MEMORY, to_oci
from cri.server.pods import Container
from cri.server.specs.resources import merged
from runtime.linux.cgroups import InvalidResources, MissingController
from runtime.linux.cgroups.resources import plan

Document = dict[str, Any]

_FIELDS: Final = {
    **{f"memory.{name}": field for _, name, field in MEMORY},
    **{f"cpu.{name}": field for _, name, field in CPU},
    **{f"cpu.{name}": field for name, field in CPUSET},
    "pids.limit": nri.PidsLimit,
    "hugepageLimits": nri.HugepageLimits,
}


async def resources(adjust: nri.ContainerAdjustment, container: Container) -> None:
    """Limits, once it is certain that this host can enforce them."""
    asked = adjust.linux.resources
    check_classes(asked)
    change = to_oci(asked)
    check_limits(change, container)
    linux = container.spec.oci["linux"]
    memory = change.get("memory") or {}
    if "limit" in memory and "swap" not in memory and (linux["resources"].get("memory") or {}).get("swap"):
        memory["swap"] = memory["limit"]  # memory and swap together: the former value may lie below the new limit
    linux["resources"] = overlaid(linux["resources"], change)
    container.resources = merged(container.resources, in_cri_words(change))


def check_classes(asked: nri.LinuxResources) -> None:
    """Raise Refusal for what is no limit: there is no table of classes here to look them up in."""
    if asked.blockio_class.value:
        raise Refusal(f"no block I/O class {asked.blockio_class.value[:80]!r} is known here", None, nri.BlockioClass)
    if asked.rdt_class.value:
        raise Refusal(f"RDT class {asked.rdt_class.value[:80]!r}: RDT is not supported", None, nri.RdtClass)


def check_limits(change: Document, container: Container) -> None:
    """Raise Refusal for a limit that no controller here enforces."""
    memory = change.get("memory") or {}
    if memory.get("kernel"):
        raise Refusal("the kernel has no limit of its memory alone since 5.16", None, nri.MemKernelLimit)
    if memory.get("useHierarchy") is False:
        raise Refusal("memory cgroups are hierarchical since 5.11", None, nri.MemUseHierarchy)
    try:
        plan(change, container.sandbox.layout)
    except MissingController as error:
        name, _, key = error.field.partition(".")
        if name == "unified":
            raise Refusal(str(error), key, nri.CgroupsUnified) from None
        raise Refusal(str(error), None, _FIELDS.get(error.field, nri.MemLimit)) from None
    except InvalidResources as error:
        raise Refusal(str(error), None, nri.CgroupsUnified) from None
