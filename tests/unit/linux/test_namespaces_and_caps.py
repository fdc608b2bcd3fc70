"""Names of sysctls and capabilities: what is one, whose it is, and what is refused."""

from __future__ import annotations

import pytest

from runtime.linux import caps, namespaces
from runtime.linux.caps import CapabilitySets


@pytest.mark.parametrize(
    ("name", "namespace", "path"),
    [
        ("net.ipv4.ip_forward", "net", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/1.forwarding", "net", "net/ipv4/conf/eth0.1/forwarding"),
        ("net/ipv4/conf/eth0.1/forwarding", "net", "net/ipv4/conf/eth0.1/forwarding"),
        ("kernel.shm_rmid_forced", "ipc", "kernel/shm_rmid_forced"),
        ("kernel.msgmax", "ipc", "kernel/msgmax"),
        ("kernel.sem", "ipc", "kernel/sem"),
        ("fs.mqueue.msg_max", "ipc", "fs/mqueue/msg_max"),
    ],
)
def test_namespaced_sysctls(name: str, namespace: str, path: str) -> None:
    assert namespaces.sysctl_namespace(name) == namespace
    assert namespaces.sysctl_path(name) == path


@pytest.mark.parametrize(
    "name",
    [
        "kernel.core_pattern", "kernel.hostname", "vm.swappiness", "fs.file-max", "network.x", "net", "", ".", "net.",
        "net..ipv4", "net/../kernel/core_pattern", "net.ipv4/../../kernel/core_pattern", "net.a b", "net.a\n",
        "net.a+b", "/net/ipv4/ip_forward", "net.ipv4.a=b", "kernel/shmmax/../core_pattern",
    ],
)  # fmt: skip
def test_other_sysctls_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        namespaces.sysctl_namespace(name)


def test_capability_numbers_are_the_kernels() -> None:
    known = {"CAP_CHOWN": 0, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27, "CAP_SETFCAP": 31, "CAP_CHECKPOINT_RESTORE": 40}
    assert {name: caps.number(name) for name in known} == known
    assert caps.mask(["CAP_CHOWN", "CAP_SYS_ADMIN"]) == 1 | 1 << 21


@pytest.mark.parametrize("name", ["CAP_X", "chown", "CHOWN", "", "CAP_ALL"])
def test_no_capability(name: str) -> None:
    with pytest.raises(ValueError, match="unknown capability"):
        caps.number(name)


def test_sets_are_cut_down_to_what_is_there() -> None:
    names = ["CAP_CHOWN", "CAP_SYS_RESOURCE"]
    sets = CapabilitySets.from_oci(dict.fromkeys(("bounding", "effective", "permitted"), names), available=1)
    assert sets == CapabilitySets(bounding=1, effective=1, permitted=1, ambient=0)


def test_effective_and_ambient_need_permitted() -> None:
    sets = CapabilitySets.from_oci(
        {"effective": ["CAP_CHOWN"], "ambient": ["CAP_KILL"], "permitted": []}, (1 << 41) - 1
    )
    assert sets == CapabilitySets(0, 0, 0, 0)
