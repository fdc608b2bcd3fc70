"""Which namespaces a container has, for every combination that a sandbox and a container can ask for."""

from __future__ import annotations

import os
from typing import Any

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.support.crid import Crid, Sandbox

KINDS = ("net", "ipc", "uts", "pid")


def asked(**options: int) -> dict[str, Any]:
    return {"security_context": {"namespace_options": options}}


async def links(crid: Crid, id: str) -> dict[str, str]:
    """What the kernel says inside, of the container's first process; pid 1 of a shared namespace is not it."""
    script = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in KINDS)
    code, output, errors = await crid.exec(id, "sh", "-c", script)
    assert code == 0, errors
    return dict(zip(KINDS, output.split(), strict=True))


async def idle(crid: Crid, pod: Sandbox, image: str, name: str, **options: Any) -> dict[str, str]:
    id = await crid.run(pod, image, ["sleep", "1000"], name=name, linux=asked(**options))
    return await links(crid, id)


def node() -> dict[str, str]:
    return {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS}


async def first_pid(crid: Crid, id: str) -> str:
    return (await crid.exec(id, "sh", "-c", "cat /proc/1/comm"))[1].strip()


@pytest.mark.parametrize("sandbox", [api.POD, api.CONTAINER, api.NODE])
async def test_a_pid_namespace_of_its_own_in_any_pod(crid: Crid, busybox: str, sandbox: int) -> None:
    pod = await crid.run_pod(linux=asked(pid=sandbox))
    plain = await idle(crid, pod, busybox, "plain")
    own = await crid.run(pod, busybox, ["sleep", "1000"], name="own", linux=asked(pid=api.CONTAINER))
    inside = await links(crid, own)
    assert await first_pid(crid, own) == "sleep"
    assert inside["pid"] not in (plain["pid"], node()["pid"])
    assert {**inside, "pid": ""} == {**plain, "pid": ""}
    assert (plain["pid"] == node()["pid"]) == (sandbox == api.NODE)


async def test_a_shared_pid_namespace_stays_shared_beside_it(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod(linux=asked(pid=api.POD))
    first, own, second = [
        (await idle(crid, pod, busybox, name, pid=mode))["pid"]
        for name, mode in (("a", api.POD), ("b", api.CONTAINER), ("c", api.POD))
    ]
    assert first == second != own


@pytest.mark.parametrize("sandbox", [api.POD, api.CONTAINER, api.NODE])
async def test_the_pid_namespace_of_another_container(crid: Crid, busybox: str, sandbox: int) -> None:
    pod = await crid.run_pod(linux=asked(pid=sandbox))
    target = await crid.run(pod, busybox, ["sleep", "12345"], name="target", linux=asked(pid=api.CONTAINER))
    fields: dict[str, Any] = {"pid": api.TARGET, "target_id": target}
    debug = await crid.run(pod, busybox, ["sleep", "1000"], name="debug", linux=asked(**fields))
    assert (await links(crid, debug))["pid"] == (await links(crid, target))["pid"]
    assert "sleep 12345" in (await crid.exec(debug, "ps"))[1]


@pytest.mark.parametrize(
    ("options", "shared"),
    [
        ({"network": api.NODE}, {"net", "uts"}),
        ({"ipc": api.NODE}, {"ipc"}),
        ({"pid": api.NODE}, {"pid"}),
        ({"network": api.NODE, "ipc": api.NODE}, {"net", "uts", "ipc"}),
        ({"ipc": api.NODE, "pid": api.NODE}, {"ipc", "pid"}),
        ({"network": api.NODE, "pid": api.CONTAINER}, {"net", "uts"}),
        ({}, set()),
    ],
)
async def test_each_of_the_hosts_namespaces_alone(
    crid: Crid, busybox: str, options: dict[str, int], shared: set[str]
) -> None:
    pod = await crid.run_pod(linux=asked(**options))
    inside, host = await idle(crid, pod, busybox, "main", **options), node()
    assert {kind for kind in KINDS if inside[kind] == host[kind]} == shared
    again = await idle(crid, pod, busybox, "again")  # what is left out is the pod's
    assert {kind for kind in KINDS if again[kind] == host[kind]} == shared
    for kind in ("net", "ipc", "uts"):
        assert inside[kind] == again[kind]


@pytest.mark.parametrize("kind", ["network", "ipc", "pid"])
async def test_the_hosts_only_with_the_pod(crid: Crid, busybox: str, kind: str) -> None:
    pod = await crid.run_pod(linux=asked(pid=api.CONTAINER))
    with pytest.raises(CriError, match=f"namespace_options.{kind} is NODE, but the pod has") as caught:
        await crid.create(pod, busybox, ["true"], linux=asked(**{kind: api.NODE}))
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("kind", ["network", "ipc"])
async def test_no_network_and_no_memory_for_each_container(crid: Crid, busybox: str, kind: str) -> None:
    with pytest.raises(CriError, match=f"namespace_options.{kind} of a sandbox cannot be CONTAINER"):
        await crid.run_pod(linux=asked(**{kind: api.CONTAINER}))


async def test_a_user_namespace_with_all_modes_of_pid(crid: Crid, busybox: str) -> None:
    ids = {"host_id": 3_000_000, "container_id": 0, "length": 65536}
    users: Any = {"mode": api.POD, "uids": [ids], "gids": [ids]}
    pod = await crid.run_pod(linux=asked(pid=api.POD, userns_options=users))
    shared = await idle(crid, pod, busybox, "shared")
    own = await crid.run(pod, busybox, ["sleep", "1000"], name="own", linux=asked(pid=api.CONTAINER))
    target: Any = {"pid": api.TARGET, "target_id": own}
    debug = await idle(crid, pod, busybox, "debug", **target)
    assert shared["pid"] != (await links(crid, own))["pid"] == debug["pid"]
