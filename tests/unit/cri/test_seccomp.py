"""Seccomp profiles: resolved, compiled, cached, and installed in a child that then tries."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pyseccomp
import pytest

from cri.server.errors import InvalidRequest, NotFound
from cri.server.seccomp.compiled import Profiles
from cri.server.seccomp.default import default_profile
from cri.server.seccomp.rules import kernel_version, resolve
from runtime.linux import seccomp

PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
DOCKER_CAPABILITIES = frozenset({"CAP_SYS_CHROOT", "CAP_NET_RAW", "CAP_KILL"})
ADMIN = frozenset({"CAP_SYS_ADMIN"})
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def profiles(tmp_path: Path) -> Profiles:
    return Profiles(tmp_path / "seccomp")


def restrict(path: str) -> None:
    """In a child: install the filter."""
    program = seccomp.load(path)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    seccomp.install(program)


def attempt(path: str, name: str | int, *arguments: int) -> str:
    """What one system call says under the filter: `ok` or the name of its error."""
    number = name if isinstance(name, int) else pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        restrict(path)
        result = libc.syscall(number, *(ctypes.c_long(argument) for argument in arguments))
        code = errno.errorcode[ctypes.get_errno()] if result == -1 else "ok"
        os.write(writable, code.encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as answer:
        text = answer.read()
    _, status = os.waitpid(pid, 0)
    return text or f"died of {os.waitstatus_to_exitcode(status)}"


def test_an_ordinary_program_runs_under_the_default_profile(profiles: Profiles) -> None:
    path = profiles.filter_path(default_profile(), DOCKER_CAPABILITIES)
    script = (
        "ls -l / >/dev/null && (sleep 0 & wait) && python3 -c 'import threading, socket; socket.socket()' && echo fine"
    )
    run = subprocess.run(["sh", "-c", script], preexec_fn=lambda: restrict(path), capture_output=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"fine\n", b"")


@pytest.mark.parametrize(
    ("family", "answers"),
    [
        (2, {"ok"}),
        (37, {"EAFNOSUPPORT", "EINVAL", "ESOCKTNOSUPPORT"}),
        (38, {"EPERM"}),
        (39, {"EAFNOSUPPORT", "EINVAL", "ESOCKTNOSUPPORT"}),
        (40, {"EPERM"}),
        (41, {"EAFNOSUPPORT", "EINVAL", "ESOCKTNOSUPPORT"}),
    ],
)
async def test_socket_families_but_alg_and_vsock(profiles: Profiles, family: int, answers: set[str]) -> None:
    path = await profiles.default(DOCKER_CAPABILITIES)
    assert attempt(path, "socket", family, 1, 0) in answers


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("mount", (0, 0, 0, 0, 0), "EPERM"),
        ("unshare", (CLONE_NEWUSER,), "EPERM"),
        ("setns", (-1, 0), "EPERM"),
        ("clone", (CLONE_NEWNET | 17, 0, 0, 0, 0), "EPERM"),
        ("clone3", (0, 0), "ENOSYS"),
        ("bpf", (0, 0, 0), "EPERM"),
        ("io_uring_setup", (0, 0), "EPERM"),
        ("keyctl", (0, 0, 0, 0, 0), "EPERM"),
        ("userfaultfd", (0,), "EPERM"),
        ("kexec_load", (0, 0, 0, 0), "EPERM"),
        ("personality", (0xFFFFFFFF,), "ok"),
        ("personality", (0x0040000,), "EPERM"),
        ("chroot", (0,), "EFAULT"),
        ("getpid", (), "ok"),
    ],
)
async def test_the_default_profile(profiles: Profiles, name: str, arguments: tuple[int, ...], answer: str) -> None:
    assert attempt(await profiles.default(DOCKER_CAPABILITIES), name, *arguments) == answer


async def test_capabilities_open_what_they_are_for(profiles: Profiles) -> None:
    path = await profiles.default(ADMIN)
    assert attempt(path, "unshare", 0) == "ok"
    assert attempt(path, "clone3", 0, 0) == "EINVAL"
    assert attempt(path, "chroot", 0) == "EPERM"
    assert attempt(await profiles.default(frozenset()), "chroot", 0) == "EPERM"


async def test_calls_that_libseccomp_does_not_know_are_allowed_or_unknown(profiles: Profiles) -> None:
    path = await profiles.default(DOCKER_CAPABILITIES)
    fchmodat2, open_tree_attr = 452, 467
    assert attempt(path, fchmodat2, -1, 0, 0, 0) != "EPERM"
    assert attempt(path, open_tree_attr, -1, 0, 0, 0, 0) == "ENOSYS"
    assert attempt(path, 1000) == "ENOSYS"


async def test_a_filter_is_compiled_once_for_what_makes_a_difference(profiles: Profiles, tmp_path: Path) -> None:
    path = await profiles.default(frozenset({"CAP_KILL"}))
    assert await profiles.default(frozenset({"CAP_NET_RAW"})) == path
    assert await profiles.default(ADMIN) != path
    assert Profiles(tmp_path / "seccomp").filter_path(default_profile(), frozenset()) == path
    assert len(list((tmp_path / "seccomp").iterdir())) == 2
    assert Path(path).stat().st_mode & 0o777 == 0o600


KUBERNETES_FORM = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "syscalls": [
        {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"names": ["chroot"], "action": "SCMP_ACT_KILL_PROCESS"},
    ],
}


async def test_a_localhost_profile_is_read_anew_each_time(profiles: Profiles, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(KUBERNETES_FORM))
    path = await profiles.localhost(str(file), frozenset())
    assert attempt(path, "mkdirat", -100, 0, 0) == "EACCES"
    assert attempt(path, "unshare", 0) == "ok"
    assert attempt(path, "chroot", 0) == "died of -31"
    assert attempt(path, 1000) == "ENOSYS"  # the kernel's own word
    file.write_text(json.dumps({**KUBERNETES_FORM, "syscalls": []}))
    changed = await profiles.localhost(str(file), frozenset())
    assert changed != path and attempt(changed, "mkdirat", -100, 0, 0) == "EFAULT"


async def test_docker_form_with_conditions_and_the_old_single_name(profiles: Profiles) -> None:
    rule = {"action": "SCMP_ACT_ERRNO", "errnoRet": 71}
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"name": "chroot", "excludes": {"caps": ["CAP_SYS_CHROOT"]}, **rule},
            {"names": ["mount"], "includes": {"minKernel": "99.0"}, **rule},
            {"names": ["getppid"], "includes": {"arches": ["no-such-machine"]}, **rule},
            {"names": ["umask"], "includes": {"minKernel": "4.8"}, **rule},
        ],
    }
    path = profiles.filter_path(profile, frozenset())
    answers = [attempt(path, name, 0, 0, 0, 0, 0) for name in ("chroot", "mount", "getppid", "umask")]
    assert answers == ["EPROTO", "EFAULT", "ok", "EPROTO"]
    assert attempt(profiles.filter_path(profile, frozenset({"CAP_SYS_CHROOT"})), "chroot", 0) == "EFAULT"


def test_an_argument_compared_twice_makes_alternatives() -> None:
    arguments = [{"index": 0, "op": "SCMP_CMP_EQ", "value": value} for value in (1, 2)]
    entry = {"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": arguments}
    resolved = resolve({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [entry]}, frozenset())
    assert [[condition.value for condition in rule.conditions] for rule in resolved.rules] == [[1], [2]]


ALLOW = {"defaultAction": "SCMP_ACT_ALLOW"}


def with_rule(**changed: Any) -> dict[str, Any]:
    return {**ALLOW, "syscalls": [{"names": ["dup"], "action": "SCMP_ACT_TRAP", **changed}]}


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({}, "malformed"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY"),
        ({**ALLOW, "listenerPath": "/run/agent.sock"}, "listenerPath"),
        ({**ALLOW, "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}, "WAIT_KILLABLE"),
        ({**ALLOW, "architectures": ["SCMP_ARCH_VAX"]}, "SCMP_ARCH_VAX"),
        ({**ALLOW, "syscalls": [{"names": ["dup"]}]}, "malformed"),
        ({**ALLOW, "syscalls": "dup"}, "malformed"),
        (with_rule(action="SCMP_ACT_ERRNO", errnoRet=70000), "errnoRet"),
        (with_rule(args=[{"index": 6, "op": "SCMP_CMP_EQ", "value": 0}]), "index 6"),
        (with_rule(args=[{"index": 0, "op": "like", "value": 0}]), "operator 'like'"),
        ({**ALLOW, "syscalls": with_rule()["syscalls"] * 5000}, "4096 are allowed"),
    ],
)
def test_a_profile_that_cannot_be_enforced_is_refused(profiles: Profiles, profile: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        profiles.filter_path(profile, frozenset())


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', "[" * 100_000])
async def test_a_localhost_file_that_is_no_profile(profiles: Profiles, tmp_path: Path, content: str) -> None:
    file = tmp_path / "profile.json"
    file.write_text(content)
    with pytest.raises(InvalidRequest, match=str(file)):
        await profiles.localhost(str(file), frozenset())


async def test_a_localhost_reference_that_is_no_file(profiles: Profiles, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no absolute path"):
        await profiles.localhost("profile.json", frozenset())
    with pytest.raises(NotFound):
        await profiles.localhost(str(tmp_path / "none.json"), frozenset())
    huge = tmp_path / "huge.json"
    huge.write_bytes(b" " * (2 << 20))
    with pytest.raises(InvalidRequest, match="larger than the limit"):
        await profiles.localhost(str(huge), frozenset())


@pytest.mark.parametrize(
    ("release", "version"), [("4.8", (4, 8)), ("6.12.3-amd64", (6, 12)), ("6.18-rc1", (6, 18)), ("7", (7, 0))]
)
def test_kernel_versions(release: str, version: tuple[int, int]) -> None:
    assert kernel_version(release) == version
