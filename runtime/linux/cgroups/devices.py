"""Device access of a cgroup: a list of OCI rules becomes one policy, which both cgroup versions can enforce.

The rules of `linux.resources.devices` are applied in order, as the v1 devices controller would apply them
(cgroup-v1/devices.rst): a default, and exceptions to it. Reducing them first gives v1 and the eBPF program of v2 the
same meaning, and finds rules that v1 would silently ignore.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from runtime.linux.cgroups.errors import InvalidResources

ANY = -1
READ, WRITE, MKNOD = 2, 4, 1  # BPF_DEVCG_ACC_*
LETTERS = (("r", READ), ("w", WRITE), ("m", MKNOD))


class Device(NamedTuple):
    """Type `b` or `c`, and numbers or ANY."""

    kind: str
    major: int
    minor: int

    def covers(self, other: Device) -> bool:
        """Whether every device of `other` is one of these."""
        return self.kind == other.kind and self.major in (ANY, other.major) and self.minor in (ANY, other.minor)


#: Devices that every container has (config-linux.md, "Default Devices"), and mknod, which by itself opens nothing.
DEFAULT_DEVICES: tuple[tuple[Device, int], ...] = (
    (Device("c", ANY, ANY), MKNOD),
    (Device("b", ANY, ANY), MKNOD),
    *((Device("c", 1, minor), READ | WRITE | MKNOD) for minor in (3, 5, 7, 8, 9)),  # null zero full random urandom
    *((Device("c", 5, minor), READ | WRITE | MKNOD) for minor in (0, 2)),  # tty ptmx
    (Device("c", 136, ANY), READ | WRITE | MKNOD),  # pts
)


@dataclass(slots=True)
class DevicePolicy:
    """What is allowed but for the exceptions, or denied but for them; exceptions carry access bits."""

    allow: bool = True
    exceptions: dict[Device, int] = field(default_factory=dict)

    @classmethod
    def from_rules(cls, rules: Iterable[Mapping[str, Any]]) -> DevicePolicy:
        """The policy of OCI device rules, with the default devices allowed after them; raises InvalidResources."""
        policy = cls()
        for rule in rules:
            allow, access = bool(rule["allow"]), _access(rule)
            kind = rule.get("type") or "a"
            if kind == "a":
                _demand_all(rule)
                policy.allow, policy.exceptions = allow, {}
            else:
                policy._add(_device(kind, rule), access, allow)
        for device, access in DEFAULT_DEVICES:
            policy._add(device, access, True)
        return policy

    def _add(self, device: Device, access: int, allow: bool) -> None:
        if allow != self.allow:
            self.exceptions[device] = self.exceptions.get(device, 0) | access
            return
        left = self.exceptions.pop(device, 0) & ~access
        if left:
            self.exceptions[device] = left
        if device in dict(DEFAULT_DEVICES) and allow:
            return  # ours, not the caller's: denied devices below it stay denied
        for wider, bits in self.exceptions.items():
            if wider.covers(device) and bits & access:
                verb = "allow" if allow else "deny"
                raise InvalidResources(
                    f"devices: cannot {verb} {describe(device, access)}: an earlier rule for "
                    f"{describe(wider, bits)} covers it, and the kernel would ignore this one"
                )


def describe(device: Device, access: int) -> str:
    """The v1 form of an exception: `c 1:3 rwm`."""
    numbers = ("*" if number == ANY else str(number) for number in (device.major, device.minor))
    return f"{device.kind} {':'.join(numbers)} {''.join(letter for letter, bit in LETTERS if access & bit)}"


def v1_writes(policy: DevicePolicy) -> list[tuple[str, str]]:
    """(file, value) pairs for the v1 controller: first the default, then what differs from it."""
    reset, except_file = ("devices.allow", "devices.deny") if policy.allow else ("devices.deny", "devices.allow")
    return [(reset, "a"), *((except_file, describe(*exception)) for exception in policy.exceptions.items())]


def _device(kind: str, rule: Mapping[str, Any]) -> Device:
    if kind not in ("b", "c", "u"):
        raise InvalidResources(f"devices: type {kind!r} is not one of a, b, c, u")
    major, minor = (ANY if rule.get(part) is None else int(rule[part]) for part in ("major", "minor"))
    return Device("b" if kind == "b" else "c", major, minor)


def _demand_all(rule: Mapping[str, Any]) -> None:
    if any(rule.get(part) not in (None, ANY) for part in ("major", "minor")):
        raise InvalidResources("devices: a rule for type a is for all devices and takes no major or minor")


def _access(rule: Mapping[str, Any]) -> int:
    letters = rule.get("access") or "rwm"
    if set(letters) - set("rwm"):
        raise InvalidResources(f"devices: access {letters!r} has letters other than r, w, m")
    return sum(bit for letter, bit in LETTERS if letter in letters)
