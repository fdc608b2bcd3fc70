"""Containers through the socket: their life, and what their processes see."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from runtime.linux.cgroups import Cgroup
from tests.support.asking import refused
from tests.support.crid import Crid


async def test_the_life_of_a_container(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    fields = {"labels": {"tier": "a"}, "annotations": {"note": "kept"}, "envs": [{"key": "X", "value": b"y"}]}
    id = await crid.create(pod, busybox, ["sh", "-c", "echo out; echo err >&2; echo $FROM $X; exit 3"], **fields)
    created = await crid.status(id)
    assert (created.state, created.started_at) == (api.CONTAINER_CREATED, 0)
    await crid.cri.StartContainer(container_id=id)
    ended = await crid.ended(id)
    assert (ended.exit_code, ended.reason) == (3, "Error")
    assert 0 < ended.created_at <= ended.started_at <= ended.finished_at
    assert (dict(ended.labels), dict(ended.annotations)) == ({"tier": "a"}, {"note": "kept"})
    assert sorted(crid.log_of(pod[1]).splitlines()) == ["err", "image y", "out"]
    [listed] = (await crid.cri.ListContainers(filter={"label_selector": {"tier": "a"}})).containers
    assert (listed.id, listed.state, listed.image_id) == (id, api.CONTAINER_EXITED, ended.image_id)
    for _ in range(2):
        await crid.cri.RemoveContainer(container_id=id)
    with pytest.raises(CriError, match="no container"):
        await crid.status(id)


async def test_what_waited_for_a_removal_finds_nothing(crid: Crid, busybox: str) -> None:
    """A removed container is neither started, which nothing would ever end, nor written down again."""
    pod = await crid.run_pod()
    id = await crid.create(pod, busybox, ["sleep", "1000"])
    update = {"container_id": id, "linux": {"memory_limit_in_bytes": 64 << 20}}
    calls = [
        crid.cri.RemoveContainer(container_id=id),
        crid.cri.StartContainer(container_id=id),
        crid.cri.UpdateContainerResources(**update),
        crid.cri.RemoveContainer(container_id=id),
    ]
    _, *waited, _ = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(answer, "code", answer) for answer in waited] == ["NOT_FOUND", "NOT_FOUND"]
    with contextlib.closing(sqlite3.connect(crid.root / "ledger.db")) as database:
        assert database.execute("SELECT kind FROM records WHERE id = ?", (id,)).fetchall() == []
    assert not Cgroup(f"/{crid.bridge}/pod{pod[1].metadata.uid}/{id}").exists()


async def test_success_is_completed(crid: Crid, busybox: str) -> None:
    status = await crid.ended(await crid.run(await crid.run_pod(), busybox, ["true"]))
    assert (status.exit_code, status.reason) == (0, "Completed")


async def test_a_program_that_is_not_there(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    id = await crid.create(pod, busybox, ["/no/such/program"])
    with pytest.raises(CriError, match="/no/such/program"):
        await crid.cri.StartContainer(container_id=id)
    status = await crid.status(id)
    assert (status.state, status.exit_code, status.reason) == (api.CONTAINER_EXITED, 128, "StartError")
    assert "/no/such/program" in status.message
    with pytest.raises(CriError, match="only a created one") as caught:
        await crid.cri.StartContainer(container_id=id)
    assert caught.value.code == "FAILED_PRECONDITION"


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"metadata": {}}, "INVALID_ARGUMENT", "metadata.name"),
        ({"image": {}}, "INVALID_ARGUMENT", "image is missing"),
        ({"image": {"image": "not.here/x:1"}}, "NOT_FOUND", "pull it first"),
        ({"log_path": "../../../etc/cron.d/x"}, "INVALID_ARGUMENT", "log_path"),
        ({"log_path": "/etc/x"}, "INVALID_ARGUMENT", "log_path"),
        ({"mounts": [{"container_path": "/x", "host_path": "/no/such"}]}, "NOT_FOUND", "/no/such"),
        ({"devices": [{"container_path": "/dev/x", "host_path": "/no/such"}]}, "NOT_FOUND", "/no/such"),
        ({"linux": {"security_context": {"privileged": True}}}, "INVALID_ARGUMENT", "privileged"),
        ({"linux": {"security_context": {"run_as_group": {"value": 5}}}}, "INVALID_ARGUMENT", "run_as_group"),
        ({"linux": {"security_context": {"run_as_username": "ghost"}}}, "INVALID_ARGUMENT", "ghost"),
        ({"linux": {"security_context": {"seccomp": {"profile_type": 2}}}}, "INVALID_ARGUMENT", "localhost_ref"),
        ({"linux": {"security_context": {"namespace_options": {"pid": 3}}}}, "INVALID_ARGUMENT", "target_id"),
        ({"linux": {"security_context": {"namespace_options": {"ipc": 99}}}}, "INVALID_ARGUMENT", "ipc is 99"),
        ({"CDI_devices": [{"name": "v.com/c=d"}]}, "NOT_FOUND", "v.com/c=d"),
        ({"command": ["a\0b"]}, "INVALID_ARGUMENT", "NUL"),
    ],
)
async def test_bad_requests_leave_nothing(
    crid: Crid, busybox: str, fields: dict[str, object], code: str, words: str
) -> None:
    pod = await crid.run_pod()
    with pytest.raises(CriError, match=words) as caught:
        await crid.create(pod, busybox, ["true"], **fields)
    assert caught.value.code == code
    assert (await crid.cri.ListContainers()).containers == []


async def test_wild_ids(crid: Crid) -> None:
    for id in ("", "x" * 5000, "../../etc/passwd", "a\0b", "%s%n", "ü"):
        with pytest.raises(CriError) as caught:
            await crid.status(id)
        assert caught.value.code in ("NOT_FOUND", "INVALID_ARGUMENT")
        with pytest.raises(CriError) as caught:
            await crid.cri.StartContainer(container_id=id)
        assert caught.value.code in ("NOT_FOUND", "INVALID_ARGUMENT")


async def test_a_name_is_taken_until_it_is_removed(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    id = await crid.create(pod, busybox, ["true"])
    with pytest.raises(CriError, match="remove it, or ask for the next attempt") as caught:
        await crid.create(pod, busybox, ["true"])
    assert caught.value.code == "ALREADY_EXISTS"
    await crid.cri.RemoveContainer(container_id=id)
    await crid.create(pod, busybox, ["true"])


async def test_a_pods_statuses_begin_with_its_newest_container(crid: Crid, busybox: str) -> None:
    """With EventedPLEG the kubelet takes the first one of a name for the one that there is now."""
    pod = await crid.run_pod()
    first = await crid.run(pod, busybox, ["true"], metadata={"name": "main", "attempt": 0})
    await crid.ended(first)
    second = await crid.run(pod, busybox, ["sleep", "1000"], metadata={"name": "main", "attempt": 1})
    statuses = (await crid.cri.PodSandboxStatus(pod_sandbox_id=pod[0])).containers_statuses
    assert [status.id for status in statuses] == [second, first]


@pytest.mark.parametrize("path", ["..", "../x", "/x", "a/../../x", "x\0y"])
async def test_log_paths_that_leave_the_pods_directory(crid: Crid, busybox: str, path: str) -> None:
    await refused(crid, busybox, "log_path", log_path=path)


async def test_a_log_in_a_directory_of_its_own(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    await crid.ended(await crid.run(pod, busybox, ["echo", "hello"], log_path="deep/er/0.log"))
    assert Path(pod[1].log_directory, "deep/er/0.log").read_text().endswith("stdout F hello\n")
