"""State follows from timestamps, survives a restart, and is found by a prefix."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest, NotFound
from cri.server.events import Events
from cri.server.exits import Exits
from cri.server.pods import Container, Sandbox
from cri.server.statuses import container_status, sandbox_status
from cri.server.store import Store, sandbox_key
from runtime.client import Exited, Runtime, ShimLostEvent
from runtime.linux.cgroups import CgroupError, Layout
from runtime.linux.database import DatabaseError
from runtime.linux.ledger import Ledger
from runtime.linux.records import Records
from runtime.spec import ContainerSpec

LAYOUT = Layout({}, "/sys/fs/cgroup", frozenset())


def sandbox(id: str = "a" * 64, **fields: object) -> Sandbox:
    config = api.PodSandboxConfig(
        metadata={"name": "pod", "uid": id[:8], "namespace": "ns", "attempt": 2},
        labels={"app": "x"},
        annotations={"io.container.manager": "not ours"},
    )
    return Sandbox(id, config, "", "/pods/p", 5, layout=LAYOUT, **fields)  # type: ignore[arg-type]


def container(of: Sandbox, id: str = "c" * 64, **fields: object) -> Container:
    config = api.ContainerConfig(metadata={"name": "main"}, image={"image": "busybox"}, labels={"app": "x"})
    spec = ContainerSpec(id, of.id, {"process": {}}, "/rootfs", log_path="/log")
    user = api.LinuxContainerUser(uid=1, gid=2, supplemental_groups=[2, 3])
    made = Container(
        id, of, config, spec, "sha256:1", "r@sha256:2", "busybox", user, 15, config.linux.resources, 7, [id], **fields
    )  # type: ignore[arg-type]
    of.containers[id] = made
    return made


@pytest.fixture
def records(tmp_path: Path):
    opened = Records(tmp_path / "ledger.db")
    yield opened
    opened.close()


@pytest.fixture
def ledger(tmp_path: Path):
    opened = Ledger(tmp_path / "ledger.db", "test")
    yield opened
    opened.close()


def test_states_are_derived() -> None:
    pod = sandbox()
    assert (pod.ready, pod.state) == (False, api.SANDBOX_NOTREADY)
    pod.ready_at = 6
    assert pod.state == api.SANDBOX_READY
    pod.stopped_at = 7
    assert pod.state == api.SANDBOX_NOTREADY
    main = container(pod)
    assert main.state == api.CONTAINER_CREATED
    main.started_at = 8
    assert main.state == api.CONTAINER_RUNNING
    main.finished_at = 9
    assert (main.state, main.running) == (api.CONTAINER_EXITED, False)


def test_everything_comes_back_after_a_restart(records: Records) -> None:
    store = Store(records)
    pod = sandbox(ready_at=6, ips=("10.0.0.2", "fd00::2"), netns="/ns")
    store.save_sandbox(pod)
    main = container(pod, started_at=8, finished_at=9, exit_code=3, reason="Error")
    main.resources = api.LinuxContainerResources(cpu_shares=7)
    store.add_container(main)
    store.save_state(main)

    again = Store(records)
    assert again.load() == []
    found = again.sandboxes.get(pod.id)
    assert sandbox_status(found) == sandbox_status(pod)
    assert found.layout == LAYOUT
    assert again.named_sandbox(sandbox_key(pod.config.metadata)) is found
    assert container_status(again.containers.get(main.id)) == container_status(main)
    assert again.containers.get(main.id).exited.is_set()


def test_a_broken_record_is_told_and_left(records: Records) -> None:
    store = Store(records)
    store.save_sandbox(sandbox(ready_at=6))
    records.put("sandbox", "b" * 64, {"config": "!"})
    records.put("container", "d" * 64, {"sandbox": "b" * 64})
    again = Store(records)
    assert len(again.load()) == 2
    assert len(again.sandboxes) == 1


async def test_what_waited_for_the_lock_of_something_removed(records: Records) -> None:
    store, old, new = Store(records), sandbox(ready_at=6), sandbox(ready_at=6)
    new.id = "b" * 64
    store.save_sandbox(old)
    async with store.sandboxes.held(old):
        waiting = asyncio.create_task(store.sandboxes.held(old).__aenter__())
        await asyncio.sleep(0)
        store.forget_sandbox(old)
        store.save_sandbox(new)
    with pytest.raises(NotFound, match="pod sandbox aaaaaaaaaaaaa was removed meanwhile"):
        await waiting
    assert not old.lock.locked()
    store.forget_sandbox(old)  # the new one of its name stays known by it
    assert store.named_sandbox(sandbox_key(new.config.metadata)) is new


def test_prefixes(records: Records) -> None:
    store = Store(records)
    for id in ("ab" + "0" * 62, "ac" + "0" * 62):
        store.save_sandbox(sandbox(id))
    assert store.sandboxes.get("ab").id.startswith("ab")
    assert store.sandboxes.find("x") is None
    with pytest.raises(InvalidRequest, match="ambiguous"):
        store.sandboxes.find("a")
    with pytest.raises(InvalidRequest, match="names no"):
        store.sandboxes.find("")
    with pytest.raises(NotFound, match="no pod sandbox 'ad'"):
        store.sandboxes.get("ad")


async def test_an_exit_that_overtakes_the_start(records: Records, ledger: Ledger) -> None:
    store = Store(records)
    events = Events()
    exits = Exits(store, events, ledger)
    pod = sandbox(ready_at=6)
    store.save_sandbox(pod)
    main = container(pod)
    store.add_container(main)
    exits.on_event(Exited(pod.id, main.id, 137, 11, True))
    assert main.state == api.CONTAINER_CREATED
    main.started_at = 10
    exits.started(main)
    status = container_status(main)
    assert (status.state, status.exit_code, status.reason) == (api.CONTAINER_EXITED, 137, "OOMKilled")
    exits.on_event(Exited(pod.id, main.id, 0, 12, False))
    assert main.exit_code == 137


@pytest.mark.parametrize(
    ("code", "oom", "reason"), [(0, False, "Completed"), (1, False, "Error"), (9, True, "OOMKilled")]
)
async def test_reasons(records: Records, ledger: Ledger, code: int, oom: bool, reason: str) -> None:
    store = Store(records)
    exits = Exits(store, Events(), ledger)
    pod = sandbox(ready_at=6)
    main = container(pod, started_at=8)
    store.add_container(main)
    exits.on_event(Exited(pod.id, main.id, code, 11, oom))
    assert (main.reason, main.exited.is_set()) == (reason, True)


@pytest.mark.parametrize("failure", [OSError("busy"), CgroupError("not a cgroup"), DatabaseError("disk I/O error")])
async def test_a_pod_whose_shim_is_lost_is_not_ready_whatever_cannot_be_undone(
    records: Records, ledger: Ledger, failure: Exception
) -> None:
    store = Store(records)
    exits = Exits(store, Events(), ledger)
    runtime = create_autospec(Runtime, instance=True)
    runtime.destroy_lost.side_effect = failure
    exits.watch(runtime)
    pod = sandbox(ready_at=6, pod=object())
    store.save_sandbox(pod)
    main = container(pod, started_at=8)
    store.add_container(main)
    exits.on_event(ShimLostEvent(pod.id))
    await asyncio.wait_for(main.exited.wait(), 10)
    assert (main.state, main.exit_code, main.reason) == (api.CONTAINER_EXITED, 255, "Unknown")
    assert pod.state == api.SANDBOX_NOTREADY


@pytest.mark.parametrize(("bound", "value"), [("QUEUE_LIMIT", 2), ("QUEUE_BYTES", 10)])
async def test_a_slow_listener_is_told_that_it_lost_events(
    monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    from cri.server import events as module
    from cri.server.errors import Exhausted

    monkeypatch.setattr(module, bound, value)
    events, pod = Events(), sandbox(ready_at=6)
    listening = events.listen()
    first = listening.__anext__()
    waiting = asyncio.ensure_future(first)
    await asyncio.sleep(0)
    for _ in range(4):
        events.publish(api.CONTAINER_CREATED_EVENT, pod.id, pod)
    assert (await waiting).pod_sandbox_status.id == pod.id
    events.publish(api.CONTAINER_DELETED_EVENT, pod.id, pod)  # there is room again, but a gap before it
    if bound == "QUEUE_LIMIT":
        await listening.__anext__()
    with pytest.raises(Exhausted, match="list and listen again"):
        await listening.__anext__()
    events.publish(api.CONTAINER_CREATED_EVENT, pod.id, pod)
