"""The device filter of cgroup v2: a policy compiled to eBPF by hand and attached to the cgroup through bpf(2).

BPF_PROG_TYPE_CGROUP_DEVICE programs see `struct bpf_cgroup_dev_ctx { u32 access_type, major, minor; }` with the
access bits in the upper half of access_type and the type in the lower (include/uapi/linux/bpf.h), and return 1 to
allow. Every program attached on the way up to the root must allow, so a container cannot widen what it has.
"""

from __future__ import annotations

import ctypes
import os
import struct
from ctypes import c_int, c_uint, c_void_p
from typing import Final

from runtime.linux.cgroups.devices import ANY, MKNOD, READ, WRITE, Device, DevicePolicy
from runtime.linux.syscalls import numbered

_NUMBER: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280}

BPF_PROG_LOAD: Final = 5
BPF_PROG_ATTACH: Final = 8
BPF_PROG_DETACH: Final = 9
BPF_PROG_GET_FD_BY_ID: Final = 13
BPF_PROG_QUERY: Final = 16
BPF_PROG_TYPE_CGROUP_DEVICE: Final = 15
BPF_CGROUP_DEVICE: Final = 6
BPF_F_ALLOW_MULTI: Final = 2
DEVICE_TYPE: Final = {"b": 1, "c": 2}

LDX_W, MOV_REG, MOV_IMM, AND_IMM, RSH_IMM, JNE_IMM, JEQ_IMM, EXIT = 0x61, 0xBF, 0xB7, 0x57, 0x77, 0x55, 0x15, 0x95
MAX_PROGRAMS = 64
#: Bytes of bpf_attr.query with all that it has ever gained.
QUERY_SIZE: Final = 64

_bpf = numbered("bpf", c_int, c_void_p, c_uint)


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", code, src << 4 | dst, offset, immediate)


def program(policy: DevicePolicy) -> bytes:
    """The instructions for a policy: exceptions one after the other, then the default."""
    code = [
        _instruction(LDX_W, 2, 1, 0),  # r2 = access_type
        _instruction(MOV_REG, 3, 2),
        _instruction(AND_IMM, 3, immediate=0xFFFF),  # r3 = type
        _instruction(RSH_IMM, 2, immediate=16),  # r2 = access bits
        _instruction(LDX_W, 4, 1, 4),  # r4 = major
        _instruction(LDX_W, 5, 1, 8),  # r5 = minor
    ]
    for device, access in policy.exceptions.items():
        code += _exception(device, access, policy.allow)
    code += _verdict(policy.allow)
    return b"".join(code)


def _exception(device: Device, access: int, default: bool) -> list[bytes]:
    """Leave with the other verdict if this exception applies, else fall through to what follows."""
    tests = [(JNE_IMM, 3, DEVICE_TYPE[device.kind])]
    if device.major != ANY:
        tests.append((JNE_IMM, 4, device.major))
    if device.minor != ANY:
        tests.append((JNE_IMM, 5, device.minor))
    mask: list[bytes] = []
    if access != READ | WRITE | MKNOD:
        # To allow, every requested bit must be in the exception; to deny, one is enough.
        mask = [_instruction(MOV_REG, 1, 2), _instruction(AND_IMM, 1, immediate=access if default else ~access)]
    final = [(JEQ_IMM if default else JNE_IMM, 1, 0)] if mask else []
    verdict = _verdict(not default)
    beyond = len(tests) + len(mask) + len(final) + len(verdict)
    code = [_instruction(op, reg, 0, beyond - at - 1, value) for at, (op, reg, value) in enumerate(tests)]
    code += mask
    code += [_instruction(op, reg, 0, len(verdict), value) for op, reg, value in final]
    return code + verdict


def _verdict(allow: bool) -> list[bytes]:
    return [_instruction(MOV_IMM, 0, immediate=int(allow)), _instruction(EXIT)]


def attach(directory: str, policy: DevicePolicy) -> None:
    """Put a policy in force on a cgroup v2 directory in place of the one that was attached before; raises OSError."""
    cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        before = _attached(cgroup)
        loaded = _load(program(policy))
        try:
            _call(BPF_PROG_ATTACH, struct.pack("=IIII", cgroup, loaded, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI))
        finally:
            os.close(loaded)
        # Only now: for a moment both are in force, never none.
        for program_id in before:
            _detach(cgroup, program_id)
    finally:
        os.close(cgroup)


def _load(instructions: bytes) -> int:
    code, license_name = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(b"Apache-2.0")
    count = len(instructions) // 8
    pointers = (ctypes.addressof(code), ctypes.addressof(license_name))
    log_and_flags = (0, 0, 0, 0, 0)  # log_level, log_size, log_buf, kern_version, prog_flags
    fields = (BPF_PROG_TYPE_CGROUP_DEVICE, count, *pointers, *log_and_flags, b"devices")
    return _call(BPF_PROG_LOAD, struct.pack("=IIQQIIQII16s", *fields))


def _attached(cgroup: int) -> list[int]:
    """Ids of the device programs attached to this very cgroup."""
    ids = (ctypes.c_uint32 * MAX_PROGRAMS)()
    fields = struct.pack("=IIIIQI", cgroup, BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), MAX_PROGRAMS)
    # Linux 6.17 to 7.1 write the last field, the revision, whatever size they are told.
    attributes = fields.ljust(QUERY_SIZE, b"\0")
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    _bpf(_number(), BPF_PROG_QUERY, ctypes.addressof(buffer), len(attributes))
    return list(ids)[: struct.unpack_from("=I", buffer, 24)[0]]


def _detach(cgroup: int, program_id: int) -> None:
    fd = _call(BPF_PROG_GET_FD_BY_ID, struct.pack("=III", program_id, 0, 0))
    try:
        _call(BPF_PROG_DETACH, struct.pack("=III", cgroup, fd, BPF_CGROUP_DEVICE))
    finally:
        os.close(fd)


def _call(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result: int = _bpf(_number(), command, ctypes.addressof(buffer), len(attributes))
    return result


def _number() -> int:
    machine = os.uname().machine
    if machine not in _NUMBER:
        raise OSError(f"the number of bpf(2) on {machine} is not known")
    return _NUMBER[machine]
