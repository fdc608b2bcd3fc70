"""Device rules as a policy, as v1 writes, and as an eBPF program that is run here instruction by instruction."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import pytest

from runtime.linux.cgroups import InvalidResources, bpf
from runtime.linux.cgroups.devices import ANY, MKNOD, READ, WRITE, Device, DevicePolicy, describe, v1_writes

DENY_ALL = {"allow": False, "access": "rwm"}
R, W, M = READ, WRITE, MKNOD


def rule(
    allow: bool, kind: str, major: int | None = None, minor: int | None = None, access: str = "rwm"
) -> dict[str, Any]:
    return {"allow": allow, "type": kind, "major": major, "minor": minor, "access": access}


def verdict(policy: DevicePolicy, kind: str, major: int, minor: int, access: int) -> int:
    """What the program answers, by an interpreter of the eight instructions that it is made of."""
    code = bpf.program(policy)
    context = {0: access << 16 | bpf.DEVICE_TYPE[kind], 4: major, 8: minor}
    registers = [0] * 11
    at = 0
    while True:
        op, both, offset, value = struct.unpack_from("<BBhi", code, at * 8)
        destination, source = both & 15, both >> 4
        at += 1
        match op:
            case bpf.LDX_W:
                registers[destination] = context[offset]
            case bpf.MOV_REG:
                registers[destination] = registers[source]
            case bpf.MOV_IMM:
                registers[destination] = value
            case bpf.AND_IMM:
                registers[destination] &= value
            case bpf.RSH_IMM:
                registers[destination] >>= value
            case bpf.JNE_IMM:
                at += offset if registers[destination] != value else 0
            case bpf.JEQ_IMM:
                at += offset if registers[destination] == value else 0
            case bpf.EXIT:
                return registers[0]
            case _:
                pytest.fail(f"unknown instruction {op:#x}")


def test_everything_is_denied_but_the_default_devices() -> None:
    policy = DevicePolicy.from_rules([DENY_ALL])
    writes = v1_writes(policy)
    assert writes[0] == ("devices.deny", "a")
    assert ("devices.allow", "c 1:3 rwm") in writes and ("devices.allow", "c 136:* rwm") in writes
    assert ("devices.allow", "b *:* m") in writes
    assert not policy.allow


def test_everything_is_allowed_to_a_privileged_container() -> None:
    assert v1_writes(DevicePolicy.from_rules([DENY_ALL, rule(True, "a")])) == [("devices.allow", "a")]


def test_a_denied_device_stays_denied_below_the_default_ones() -> None:
    policy = DevicePolicy.from_rules([rule(False, "c", 1, 11)])
    assert v1_writes(policy) == [("devices.allow", "a"), ("devices.deny", "c 1:11 rwm")]


def test_rules_for_one_device_add_up_and_take_away() -> None:
    device = Device("b", 8, 0)
    rules = [DENY_ALL, rule(True, "b", 8, 0, "r"), rule(True, "b", 8, 0, "w"), rule(False, "b", 8, 0, "r")]
    assert DevicePolicy.from_rules(rules).exceptions[device] == W
    assert device not in DevicePolicy.from_rules([*rules, rule(False, "b", 8, 0, "w")]).exceptions


def test_a_carve_out_that_the_kernel_would_ignore_is_refused() -> None:
    with pytest.raises(InvalidResources, match=r"cannot deny b 8:0 rwm: an earlier rule for b 8:\* rw "):
        DevicePolicy.from_rules([DENY_ALL, rule(True, "b", 8, None, "rw"), rule(False, "b", 8, 0)])


@pytest.mark.parametrize("bad", [rule(True, "p", 1, 1), rule(True, "c", 1, 1, "rx"), rule(True, "a", 1, 1)])
def test_a_malformed_rule_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidResources, match="devices: "):
        DevicePolicy.from_rules([bad])


def test_describe_uses_stars() -> None:
    assert describe(Device("c", ANY, 3), R | M) == "c *:3 rm"


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "expected"),
    [
        ("c", 1, 3, R | W, 1), ("b", 1, 3, R, 0), ("c", 1, 3, M, 1), ("b", 259, 7, M, 1), ("c", 1, 1, R, 0),
        ("c", 136, 77, R | W, 1), ("b", 8, 0, R, 1), ("b", 8, 0, R | W, 0), ("b", 8, 0, W, 0), ("b", 8, 1, R, 0),
        ("c", 10, 200, R | W, 1),
    ],
)  # fmt: skip
def test_the_program_of_an_allow_list(kind: str, major: int, minor: int, access: int, expected: int) -> None:
    policy = DevicePolicy.from_rules([DENY_ALL, rule(True, "b", 8, 0, "r"), rule(True, "c", 10, 200)])
    assert verdict(policy, kind, major, minor, access) == expected


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "expected"),
    [
        ("b", 8, 0, R, 1),
        ("b", 8, 0, W, 0),
        ("b", 8, 0, R | W, 0),
        ("b", 8, 5, R, 1),
        ("c", 1, 1, R, 0),
        ("c", 2, 1, R, 1),
    ],
)
def test_the_program_of_a_deny_list(kind: str, major: int, minor: int, access: int, expected: int) -> None:
    policy = DevicePolicy.from_rules([rule(False, "b", 8, None, "w"), rule(False, "c", 1, 1)])
    assert verdict(policy, kind, major, minor, access) == expected


def test_a_query_has_room_for_all_that_kernels_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux 6.17 and later put a revision at offset 56, also where the caller has said that it ends before that."""
    seen: list[bytes] = []
    monkeypatch.setattr(bpf, "_bpf", lambda number, command, at, size: seen.append(ctypes.string_at(at, size)))
    assert bpf._attached(5) == [0] * bpf.MAX_PROGRAMS
    (attributes,) = seen
    assert struct.unpack_from("=IIII", attributes) == (5, bpf.BPF_CGROUP_DEVICE, 0, 0)
    assert struct.unpack_from("=I", attributes, 24) == (bpf.MAX_PROGRAMS,)
    assert attributes[28:] == bytes(36)  # what an older kernel does not know must be 0
