"""A container that may trace others: what it can take from processes that the runtime sends into its PID namespace."""

from __future__ import annotations

import pytest

from cri.proto import api_pb2 as api
from tests.support.attacker import capabilities, namespaces, said, security
from tests.support.crid import Crid, Sandbox

EXECS = 10


async def watcher(crid: Crid, pod: Sandbox, image: str, path: object) -> str:
    """A container that takes hold of every process that it sees."""
    id = await crid.run(pod, image, ["attacker", "seize", str(path)], linux=capabilities("SYS_PTRACE"))
    await said(crid, pod, "ready")
    return id


def gained(crid: Crid, pod: Sandbox) -> list[str]:
    """What the watcher has that it had not before."""
    return [line for line in crid.log_of(pod[1]).splitlines() if line.startswith(("SEIZED", "LEAKED", "FD"))]


@pytest.mark.parametrize("pid", [api.CONTAINER, api.POD])
@pytest.mark.parametrize("no_new_privs", [False, True])
async def test_an_exec_is_nothing_to_take_hold_of(
    crid: Crid, hostile: str, canary: object, pid: api.NamespaceMode, no_new_privs: bool
) -> None:
    """CVE-2016-9962 with CAP_SYS_PTRACE: the child of an exec, before its execve, had all that the shim has."""
    pod = await crid.run_pod(linux=namespaces(pid=pid))
    id = await watcher(crid, pod, hostile, canary)
    for number in range(EXECS):
        assert await crid.exec(id, "sh", "-c", f"exit {number}") == (number, "", "")
    assert gained(crid, pod) == []
    own = await crid.exec(
        id, "sh", "-c", "readlink /proc/self/ns/pid; readlink /proc/1/ns/pid; ls /proc/self/fd | wc -l"
    )
    first, second, descriptors = own[1].split()
    assert (first, descriptors) == (second, "4")
    if no_new_privs:
        other = await crid.run(pod, hostile, ["sleep", "100"], linux=security(no_new_privs=True), name="other")
        assert (await crid.exec(other, "grep", "NoNewPrivs", "/proc/self/status"))[1].split() == ["NoNewPrivs:", "1"]


async def test_a_terminal_of_an_exec_is_its_own_there_too(crid: Crid, hostile: str, canary: object) -> None:
    pod = await crid.run_pod(linux=namespaces(pid=api.CONTAINER))
    id = await watcher(crid, pod, hostile, canary)
    url = (
        await crid.cri.Exec(container_id=id, cmd=["sh", "-c", "cat </dev/tty & tty; wait"], tty=True, stdout=True)
    ).url
    assert url
    assert gained(crid, pod) == []


@pytest.mark.parametrize("target", [False, True])
async def test_a_start_is_nothing_to_take_hold_of(crid: Crid, hostile: str, canary: object, target: bool) -> None:
    """The same for another container of the pod, which is born where the first one watches."""
    pod = await crid.run_pod(linux=namespaces(pid=api.CONTAINER if target else api.POD))
    id = await watcher(crid, pod, hostile, canary)
    options = api.NamespaceOption(pid=api.TARGET, target_id=id) if target else None
    for number in range(5):
        linux = security(namespace_options=options) if target else security()
        await crid.run(pod, hostile, ["sleep", "100"], linux=linux, name=f"beside{number}")
    assert gained(crid, pod) == []
    assert (await crid.exec(id, "true"))[0] == 0


async def test_a_watcher_with_ids_of_its_own(crid: Crid, hostile: str, canary: object) -> None:
    """In a user namespace the capability reaches nobody outside of it; an exec arrives there all the same."""
    ids = api.IDMapping(host_id=1_000_000, container_id=0, length=65536)
    userns = api.UserNamespace(mode=api.POD, uids=[ids], gids=[ids])
    pod = await crid.run_pod(linux=namespaces(pid=api.CONTAINER, userns_options=userns))
    id = await watcher(crid, pod, hostile, canary)
    for number in range(EXECS):
        assert await crid.exec(id, "sh", "-c", f"exit {number}") == (number, "", "")
    assert gained(crid, pod) == []
