"""AppArmor where the kernel runs it: which profile a container's processes are in, and that it forbids what it says."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cri.proto import api_pb2 as api
from cri.server.security.apparmor import DEFAULT, PARSER
from runtime.linux.lsm import apparmor_enabled
from tests.support.asking import FOREVER, container_of, needs_user_namespaces, output, refused, security, streamed
from tests.support.crid import Crid

pytestmark = [
    pytest.mark.skipif(not apparmor_enabled(), reason="this kernel runs without AppArmor; tests.vm boots one with it"),
    pytest.mark.skipif(shutil.which(PARSER) is None, reason=f"{PARSER} is not installed (Debian: apparmor)"),
]

Profile = api.SecurityProfile
CURRENT = "/proc/self/attr/current"
UNCONFINED = {"apparmor": {"profile_type": Profile.Unconfined}}
#: Power to do what the profile forbids, and nothing else in the way of it.
POWERFUL: dict[str, Any] = {
    "capabilities": {"add_capabilities": ["ALL"]},
    "seccomp": {"profile_type": Profile.Unconfined},
    "masked_paths": ["/proc/acpi"],
    "readonly_paths": ["/proc/bus"],
}
IDS = {"host_id": 4_000_000, "container_id": 0, "length": 65536}
STRICT = """
profile %s flags=(attach_disconnected,mediate_deleted) {
  network, capability, file, mount, umount, signal, ptrace,
  deny /forbidden/** w,
}
"""


def named(name: str) -> dict[str, Any]:
    return {"apparmor": {"profile_type": Profile.Localhost, "localhost_ref": name}}


def enforced(name: str) -> str:
    return f"{name} (enforce)"


def seen_from_the_node(pid: int) -> str:
    return Path(f"/proc/{pid}/attr/current").read_text().strip()


def pid_inside(pid: int) -> str:
    """As the process's own PID namespace counts it (proc_pid_status(5))."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:")]
    return line.split()[-1]


@pytest.fixture(scope="module")
def strict() -> Iterator[str]:
    """The name of a profile of the node's administrator, which forbids writing in /forbidden."""
    name = f"strict-{secrets.token_hex(4)}"
    text = (STRICT % name).encode()
    subprocess.run([PARSER, "-Kr"], input=text, check=True, timeout=60)
    yield name
    subprocess.run([PARSER, "-KR"], input=text, check=True, timeout=60)


@pytest.mark.parametrize(
    "fields", [{}, {"apparmor": {"profile_type": Profile.RuntimeDefault}}, {"apparmor_profile": "runtime/default"}]
)
async def test_the_default_profile_is_around_the_first_process_and_execs(
    crid: Crid, busybox: str, fields: dict[str, Any]
) -> None:
    id = await container_of(crid, busybox, linux=security(no_new_privs=True, **fields))
    assert seen_from_the_node(await crid.pid_of(id)) == enforced(DEFAULT)
    assert await crid.exec(id, "cat", CURRENT) == (0, f"{enforced(DEFAULT)}\n", "")
    for tty in (False, True):
        assert (await streamed(crid, id, "cat", CURRENT, tty=tty)).split() == enforced(DEFAULT).encode().split()


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs none /mnt",
        "echo h > /proc/sysrq-trigger",
        "echo x > /proc/sys/kernel/domainname",
        "echo 1 > /proc/sys/kernel/sysrq",
        "echo 3 > /proc/irq/default_smp_affinity",
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
        "head -c 1 /proc/kcore",
    ],
)
async def test_the_default_profile_forbids_what_capabilities_allow(crid: Crid, busybox: str, attempt: str) -> None:
    script = f"mkdir -p /mnt; ({attempt}) >/dev/null 2>/why && echo done || grep -o 'ermission denied' /why"
    assert await output(crid, busybox, script, linux=security(**POWERFUL, **UNCONFINED)) == ["done"]
    assert await output(crid, busybox, script, linux=security(**POWERFUL)) == ["ermission denied"]


async def test_the_default_profile_allows_what_a_container_does(crid: Crid, busybox: str) -> None:
    script = "echo 1000 > /proc/sys/kernel/shmmni && cat /proc/sys/kernel/shmmni; sleep 9 & kill $! && echo signalled"
    assert await output(crid, busybox, script, linux=security(**POWERFUL)) == ["1000", "signalled"]


@pytest.mark.parametrize("field", ["apparmor", "apparmor_profile"])
async def test_a_profile_of_the_node(crid: Crid, busybox: str, strict: str, field: str) -> None:
    asked = named(strict) if field == "apparmor" else {field: f"localhost/{strict}"}
    script = "mkdir -p /forbidden /free; for d in free forbidden; do (echo > /$d/f) 2>/dev/null && echo $d; done"
    assert await output(crid, busybox, script, linux=security(**asked)) == ["free"]
    assert await output(crid, busybox, script) == ["free", "forbidden"]
    id = await container_of(crid, busybox, linux=security(**asked))
    assert (await crid.exec(id, "cat", CURRENT))[1] == f"{enforced(strict)}\n"
    assert (await crid.exec(id, "sh", "-c", "mkdir -p /forbidden; echo > /forbidden/f"))[0] == 1


async def test_unconfined_and_privileged(crid: Crid, busybox: str, strict: str) -> None:
    assert await output(crid, busybox, f"cat {CURRENT}", linux=security(**UNCONFINED)) == ["unconfined"]
    linux = security(apparmor_profile="unconfined")
    assert await output(crid, busybox, f"cat {CURRENT}", linux=linux) == ["unconfined"]
    pod = await crid.run_pod(linux=security(privileged=True))
    for name, fields, seen in (("plain", {}, "unconfined"), ("named", named(strict), enforced(strict))):
        id = await crid.run(pod, busybox, FOREVER, name=name, linux=security(privileged=True, **fields))
        assert (await crid.exec(id, "cat", CURRENT))[1] == f"{seen}\n"


async def test_a_profile_that_is_not_loaded(crid: Crid, busybox: str) -> None:
    words = "profile 'missing' is not loaded on this node.*apparmor_parser -r"
    await refused(crid, busybox, words, "NOT_FOUND", linux=security(**named("missing")))
    await refused(crid, busybox, words, "NOT_FOUND", linux=security(apparmor_profile="localhost/missing"))


async def test_in_a_shared_pid_namespace_profiles_keep_containers_apart(crid: Crid, busybox: str, strict: str) -> None:
    options = {"pid": api.POD}
    pod = await crid.run_pod(linux=security(namespace_options=options))
    ids = {}
    for name, fields in (("one", {}), ("two", {}), ("other", named(strict))):
        linux = security(namespace_options=options, **fields)
        ids[name] = await crid.run(pod, busybox, FOREVER, name=name, linux=linux)
    for name, allowed in (("two", True), ("other", False)):
        script = f"kill -CONT {pid_inside(await crid.pid_of(ids[name]))}"
        status, _, error = await crid.exec(ids["one"], "sh", "-c", script)
        assert (status == 0, "ermission denied" in error) == (allowed, not allowed)


async def test_in_a_user_namespace(crid: Crid, busybox: str, strict: str) -> None:
    await needs_user_namespaces(crid)
    users = {"userns_options": {"mode": api.POD, "uids": [IDS], "gids": [IDS]}, "pid": api.CONTAINER}
    pod = await crid.run_pod(linux=security(namespace_options=users))
    for name, fields, seen in (("plain", {}, DEFAULT), ("named", named(strict), strict)):
        id = await crid.run(pod, busybox, FOREVER, name=name, linux=security(namespace_options=users, **fields))
        assert seen_from_the_node(await crid.pid_of(id)) == enforced(seen)
        assert (await crid.exec(id, "cat", CURRENT))[1] == f"{enforced(seen)}\n"


async def test_a_volume_over_proc_unconfines_nobody(crid: Crid, busybox: str, tmp_path: Path) -> None:
    """CVE-2019-16884, CVE-2023-28642: files of the attacker's take what is written to them, and nothing happens."""
    for place in ("self", "thread-self", "1"):
        attributes = tmp_path / place / "attr/apparmor"
        attributes.mkdir(parents=True)
        for file in (attributes.parent / "exec", attributes / "exec"):
            file.touch()
    mounts = [{"container_path": "/proc", "host_path": str(tmp_path)}]
    id = await container_of(crid, busybox, mounts=mounts)
    assert seen_from_the_node(await crid.pid_of(id)) == enforced(DEFAULT)
    assert (await crid.exec(id, "sh", "-c", "mkdir /m; mount -t proc none /m"))[0] != 0
    assert not any(file.stat().st_size for file in tmp_path.rglob("exec"))


async def test_containers_of_runc(with_runc: tuple[Crid, str], strict: str) -> None:
    crid, image = with_runc
    pod = await crid.run_pod()
    for name, fields, seen in (("plain", {}, DEFAULT), ("named", named(strict), strict)):
        id = await crid.run(pod, image, FOREVER, name=name, linux=security(**fields))
        assert (await crid.exec(id, "cat", CURRENT))[1] == f"{enforced(seen)}\n"
        await crid.cri.StopContainer(api.StopContainerRequest(container_id=id, timeout=60))
        assert (await crid.status(id)).exit_code == 0  # by itself: the signal passes the profile
