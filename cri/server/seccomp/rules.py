"""A seccomp profile document, resolved: what is left of it for one set of capabilities on this machine.

Read are the OCI form (config-linux.md, "Seccomp"; what Kubernetes calls a Localhost profile) and Docker's form of it,
with `archMap` and rules that carry `includes` and `excludes`. The document comes from a file on the node, so its shape
is checked, and what cannot be enforced is an error instead of a weaker filter.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from cri.server.errors import InvalidRequest

#: machine of uname(2): Docker's name for it, and the architectures whose system calls its programs may use
MACHINES = {
    "x86_64": ("amd64", ("X86_64", "X86", "X32")),
    "aarch64": ("arm64", ("AARCH64", "ARM")),
    "riscv64": ("riscv64", ("RISCV64",)),
    "ppc64le": ("ppc64le", ("PPC64LE",)),
    "s390x": ("s390x", ("S390X", "S390")),
}
#: include/uapi/linux/seccomp.h; ERRNO and TRACE take 16 bits of data
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
WITH_DATA = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
COMPARISONS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
OPERATORS = {f"SCMP_CMP_{name}": at for at, name in enumerate(COMPARISONS, 1)}
EPERM = 1
#: Flags that change nothing for the single-threaded child which installs the filter, or only its speed.
HARMLESS_FLAGS = {"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"}
RULES_MAX = 4096


class Condition(NamedTuple):
    """One argument compared; for MASKED_EQ `value` is the mask and `second` what must be left."""

    argument: int
    operator: int
    value: int
    second: int


class Rule(NamedTuple):
    """An action for calls by name whose arguments fulfil the conditions."""

    names: tuple[str, ...]
    action: int
    conditions: tuple[Condition, ...]


class Filter(NamedTuple):
    """A profile without any conditions on the host left; architectures as libseccomp names them, without SCMP_ARCH_."""

    default_action: int
    architectures: tuple[str, ...]
    rules: tuple[Rule, ...]


def resolve(profile: Mapping[str, Any], capabilities: Collection[str]) -> Filter:
    """Apply the document's conditions; raises InvalidRequest when it is malformed or cannot be enforced."""
    try:
        _refuse(profile)
        default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        rules = [rule for entry in profile.get("syscalls") or () for rule in _rules(entry, capabilities)]
        if len(rules) > RULES_MAX:
            raise InvalidRequest(f"it has {len(rules)} rules; {RULES_MAX} are allowed")
        return Filter(default, _architectures(profile), tuple(rules))
    except InvalidRequest as error:
        raise InvalidRequest(f"seccomp profile: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidRequest(f"seccomp profile: malformed ({type(error).__name__}: {error})") from error


def _refuse(profile: Mapping[str, Any]) -> None:
    if profile.get("listenerPath"):
        raise InvalidRequest("listenerPath (notification of an agent) is not supported")
    if unknown := set(profile.get("flags") or ()) - HARMLESS_FLAGS:
        raise InvalidRequest(f"flags {', '.join(sorted(unknown))} are not supported")


def _action(name: str, data: int | None) -> int:
    if name not in ACTIONS:
        raise InvalidRequest(f"action {name!r} is not supported; {', '.join(ACTIONS)} are")
    if name not in WITH_DATA:
        return ACTIONS[name]
    value = EPERM if data is None else int(data)
    if not 0 <= value <= 0xFFFF:
        raise InvalidRequest(f"errnoRet {value} is not within 0..65535")
    return ACTIONS[name] | value


def _rules(entry: Mapping[str, Any], capabilities: Collection[str]) -> Iterator[Rule]:
    """The rule of an entry, if its conditions hold here; several when it compares one argument more than once."""
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    if not _included(includes, capabilities) or _excluded(excludes, capabilities):
        return
    names = tuple(entry.get("names") or ([entry["name"]] if entry.get("name") else ()))
    action = _action(entry["action"], entry.get("errnoRet"))
    conditions = tuple(_condition(argument) for argument in entry.get("args") or ())
    if len({condition.argument for condition in conditions}) == len(conditions):
        yield Rule(names, action, conditions)
    else:
        # libseccomp knows one comparison of each argument; runc made alternatives of such an entry, so that is
        # what profiles in the wild mean by it.
        yield from (Rule(names, action, (condition,)) for condition in conditions)


def _included(conditions: Mapping[str, Any], capabilities: Collection[str]) -> bool:
    arches = conditions.get("arches")
    kernel = conditions.get("minKernel")
    return (
        (not arches or machine()[0] in arches)
        and set(conditions.get("caps") or ()) <= set(capabilities)
        and (not kernel or kernel_version(os.uname().release) >= kernel_version(kernel))
    )


def _excluded(conditions: Mapping[str, Any], capabilities: Collection[str]) -> bool:
    arches = conditions.get("arches") or ()
    return machine()[0] in arches or any(capability in capabilities for capability in conditions.get("caps") or ())


def _condition(argument: Mapping[str, Any]) -> Condition:
    operator, index = argument["op"], int(argument["index"])
    if operator not in OPERATORS:
        raise InvalidRequest(f"operator {operator!r} is not one of {', '.join(OPERATORS)}")
    if not 0 <= index <= 5:
        raise InvalidRequest(f"argument index {index} is not within 0..5")
    return Condition(index, OPERATORS[operator], int(argument["value"]), int(argument.get("valueTwo") or 0))


def _architectures(profile: Mapping[str, Any]) -> tuple[str, ...]:
    """The listed ones; by Docker's map those that go with this machine's; else this machine's family."""
    if profile.get("architectures"):
        return tuple(name.removeprefix("SCMP_ARCH_") for name in profile["architectures"])
    family = machine()[1]
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == f"SCMP_ARCH_{family[0]}":
            below = entry.get("subArchitectures") or ()
            return (family[0], *(name.removeprefix("SCMP_ARCH_") for name in below))
    return family


def machine() -> tuple[str, tuple[str, ...]]:
    """Docker's name of this machine, and libseccomp's of the architectures that it runs, the native one first."""
    name = os.uname().machine
    if name not in MACHINES:
        raise InvalidRequest(f"machine {name} is not among {', '.join(MACHINES)}")
    return MACHINES[name]


def kernel_version(release: str) -> tuple[int, int]:
    """Major and minor of `6.12.3-amd64` or `4.8`."""
    major, _, rest = release.partition(".")
    digits = rest.split(".")[0].split("-")[0]
    return int(major), int(digits or 0)
