"""Capabilities by name, and how a process comes to hold exactly the ones it should (capabilities(7)).

A container never gets more than this daemon's own bounding set has: on a machine that lacks one (CAP_SYS_RESOURCE is
missing in many VMs and nested containers) "all capabilities" means all that are there.
Inheritable sets stay empty: a non-empty one lets file capabilities raise what was dropped (CVE-2022-24769 and kin).
The one exception is the kernel's: a capability can only be ambient while it is inheritable.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import prctl

from runtime.linux.files import read_limited
from runtime.linux.syscalls import wrapper

# In the order of their numbers (linux/capability.h).
_ORDER: Final = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
    "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
NAMES: Final = tuple(f"CAP_{name}" for name in _ORDER.split())
_NUMBERS: Final = {name: number for number, name in enumerate(NAMES)}
CAP_SYS_PTRACE: Final = _NUMBERS["CAP_SYS_PTRACE"]
_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522
_PR_CAPBSET_DROP: Final = 24
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4


# capset(2): the version and a pid, 0 for the caller's; then effective, permitted and inheritable set, first those of
# the lower 32 capabilities, then those of the higher.
_HEADER: Final = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
_SETS: Final = struct.Struct("=6I")
_LOWER: Final = 0xFFFFFFFF

_capset = wrapper("capset", ctypes.c_void_p, ctypes.c_void_p)
_capget = wrapper("capget", ctypes.c_void_p, ctypes.c_void_p)
_prctl = wrapper("prctl", ctypes.c_int, *[ctypes.c_ulong] * 4)


def number(name: str) -> int:
    """The number of a capability named as in the OCI spec ("CAP_NET_RAW"); raises ValueError for no such name."""
    try:
        return _NUMBERS[name]
    except KeyError:
        raise ValueError(f"unknown capability {name!r}") from None


def mask(names: Iterable[str]) -> int:
    """A set of capabilities as bits."""
    bits = 0
    for name in names:
        bits |= 1 << number(name)
    return bits


@functools.cache
def bounding_mask() -> int:
    """The bounding set that this daemon was started with, as bits; what the kernel does not know counts as not there.

    Asked once: a child that has dropped some of it has no more use for the answer.
    """
    bits = 0
    for candidate in range(len(NAMES)):
        with contextlib.suppress(OSError, ValueError):  # ValueError: unknown to the python-prctl that was built here
            bits |= prctl.capbset_read(candidate) << candidate
    return bits


@dataclass(frozen=True, slots=True)
class CapabilitySets:
    """What a process shall hold, as bits. The inheritable set is not asked for: it is the ambient one."""

    bounding: int
    effective: int
    permitted: int
    ambient: int

    @classmethod
    def from_oci(cls, doc: Mapping[str, Iterable[str]], available: int) -> CapabilitySets:
        """From `process.capabilities` of the OCI config, cut down to the `available` ones. Raises ValueError."""
        sets = {key: mask(doc.get(key) or ()) & available for key in ("bounding", "effective", "permitted", "ambient")}
        sets["effective"] &= sets["permitted"]
        sets["ambient"] &= sets["permitted"]
        return cls(**sets)


def effective_mask() -> int:
    """The capabilities in force in this process, as bits."""
    data = ctypes.create_string_buffer(_SETS.size)
    _capget(_HEADER, ctypes.addressof(data))
    lower, _, _, higher, _, _ = _SETS.unpack(data)
    return int(lower) | int(higher) << 32


@functools.cache
def every_mask() -> int:
    """All capabilities of this kernel as bits, those without a name here included (capabilities(7), cap_last_cap)."""
    return (2 << int(read_limited("/proc/sys/kernel/cap_last_cap", 16))) - 1


def drop_bounding(dropped: int) -> None:
    """Take capabilities out of the bounding set; needs CAP_SETPCAP."""
    for candidate in range(dropped.bit_length()):
        if dropped >> candidate & 1:
            _prctl(_PR_CAPBSET_DROP, candidate, 0, 0, 0)


def set_process_capabilities(sets: CapabilitySets) -> None:
    """The last step, after the change of user (with PR_SET_KEEPCAPS): exactly these sets, then the ambient ones."""
    _set(sets.effective, sets.permitted, sets.ambient)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in _members(sets.ambient):
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def _set(effective: int, permitted: int, inheritable: int) -> None:
    lower = effective & _LOWER, permitted & _LOWER, inheritable & _LOWER
    _capset(_HEADER, _SETS.pack(*lower, effective >> 32, permitted >> 32, inheritable >> 32))


def _members(bits: int) -> list[int]:
    return [candidate for candidate in range(len(NAMES)) if bits >> candidate & 1]
