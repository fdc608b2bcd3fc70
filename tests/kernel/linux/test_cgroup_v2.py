"""What only cgroup v2 can do. The device program needs no controller, so it runs on hybrid hosts too."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.linux.cgroups import Cgroup, InvalidResources, MissingController, bpf, detect
from runtime.linux.cgroups.counters import read_counters
from runtime.linux.cgroups.devices import DevicePolicy
from tests.support.in_cgroup import Inside, python

DENY_ALL = {"allow": False, "access": "rwm"}
OPEN = """
import errno, os
for path, flags in (('/dev/null', os.O_RDWR), ('/dev/zero', os.O_RDWR), ('/dev/kmsg', os.O_WRONLY)):
    try:
        os.close(os.open(path, flags))
        print('ok', end=' ')
    except OSError as error:
        print(errno.errorcode[error.errno], end=' ')
"""


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    if not detect().v2:
        pytest.skip("this host has no cgroup v2 mounted")
    top = Cgroup(f"/na-test-{secrets.token_hex(4)}")
    cgroup = Cgroup(f"{top.path}/container")
    cgroup.create()
    yield cgroup
    top.kill()
    top.remove(10)


def need_v2(controller: str) -> None:
    if detect().version(controller) != 2:
        pytest.skip(f"{controller} is not a cgroup v2 controller on this host ({detect().mode})")


def opened(cgroup: Cgroup) -> list[str]:
    status, printed = Inside(cgroup, python(OPEN)).finish()
    assert status == 0
    return printed.split()


def test_the_device_program_denies_what_the_policy_denies(cgroup: Cgroup) -> None:
    assert opened(cgroup) == ["ok", "ok", "ok"]
    bpf.attach(cgroup.v2, DevicePolicy.from_rules([DENY_ALL]))
    assert opened(cgroup) == ["ok", "ok", "EPERM"]


def test_attaching_again_replaces_the_program(cgroup: Cgroup) -> None:
    bpf.attach(cgroup.v2, DevicePolicy.from_rules([DENY_ALL]))
    kmsg = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "w"}
    bpf.attach(cgroup.v2, DevicePolicy.from_rules([DENY_ALL, kmsg]))
    assert opened(cgroup) == ["ok", "ok", "ok"]
    bpf.attach(cgroup.v2, DevicePolicy.from_rules([{"allow": False, "type": "c", "major": 1, "minor": 11}]))
    assert opened(cgroup) == ["ok", "ok", "EPERM"]


def test_a_child_cgroup_cannot_widen_its_parent(cgroup: Cgroup) -> None:
    bpf.attach(cgroup.v2, DevicePolicy.from_rules([DENY_ALL]))
    child = Cgroup(f"{cgroup.path}/child")
    child.create()
    bpf.attach(child.v2, DevicePolicy.from_rules([{"allow": True}]))
    assert opened(child) == ["ok", "ok", "EPERM"]


def test_unified_keys_are_written_as_they_are(cgroup: Cgroup) -> None:
    cgroup.apply({"unified": {"cgroup.max.depth": "3"}})
    assert (Path(cgroup.v2) / "cgroup.max.depth").read_text() == "3\n"


def test_a_unified_key_that_does_not_exist_is_an_error(cgroup: Cgroup) -> None:
    with pytest.raises(MissingController, match=r"unified\.misc\.never"):
        cgroup.apply({"unified": {"misc.never": "3"}})


@pytest.mark.parametrize("file", ["cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.type"])
def test_unified_keys_that_manage_a_cgroup_are_no_limits(cgroup: Cgroup, file: str) -> None:
    """One would move a process of the host into the container's cgroup, to be killed with it."""
    with subprocess.Popen(["sleep", "100"]) as bystander:
        try:
            with pytest.raises(InvalidResources, match=f"{file} is no limit"):
                cgroup.apply({"unified": {file: str(bystander.pid)}})
            assert bystander.pid not in cgroup.procs()
        finally:
            bystander.kill()


def test_a_unified_key_of_a_controller_that_is_on_v1_is_an_error(cgroup: Cgroup) -> None:
    if detect().version("memory") != 1:
        pytest.skip("memory is not a cgroup v1 controller on this host")
    with pytest.raises(MissingController, match=r"unified\.memory\.high .*'memory \(cgroup v2\)'"):
        cgroup.apply({"unified": {"memory.high": "1000000"}})


def test_limits_are_in_the_files_of_v2(cgroup: Cgroup) -> None:
    for controller in ("cpu", "memory", "pids"):
        need_v2(controller)
    cgroup.apply(
        {
            "cpu": {"shares": 1024, "quota": 20000, "period": 50000},
            "memory": {"limit": 64 << 20, "reservation": 32 << 20},
            "pids": {"limit": 7},
            "unified": {"memory.oom.group": "1", "memory.high": str(48 << 20)},
        }
    )
    expected = {
        "cpu.weight": "100",
        "cpu.max": "20000 50000",
        "memory.max": str(64 << 20),
        "memory.low": str(32 << 20),
        "memory.high": str(48 << 20),
        "memory.oom.group": "1",
        "pids.max": "7",
    }
    assert {file: (Path(cgroup.v2) / file).read_text().strip() for file in expected} == expected


def test_oom_group_takes_every_process(cgroup: Cgroup) -> None:
    need_v2("memory")
    cgroup.apply({"memory": {"limit": 32 << 20, "swap": 32 << 20}, "unified": {"memory.oom.group": "1"}})
    sleeper = Inside(cgroup, ["sleep", "60"])
    allocator = Inside(cgroup, python("b = bytearray(200 << 20)"))
    assert (allocator.finish()[0], sleeper.finish()[0]) == (-9, -9)
    assert cgroup.oom_kills() >= 2


def test_io_is_counted_for_each_device(cgroup: Cgroup) -> None:
    need_v2("io")
    assert read_counters(cgroup).io == ()
