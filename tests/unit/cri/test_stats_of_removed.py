"""Statistics of what is removed while the kernel is asked: left out, and nothing of it is remembered afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from cri.proto import api_pb2 as api
from cri.server.calls import container_stats, pod_sandbox_stats
from cri.server.errors import NotFound
from cri.server.pods import Container, Sandbox
from cri.server.store import Store
from cri.server.usage.cgroups import Rates
from runtime.linux.cgroups import Layout
from runtime.linux.cgroups.stats import CpuStats, Stats
from runtime.linux.records import Records
from runtime.spec import ContainerSpec

LAYOUT = Layout({}, "/sys/fs/cgroup", frozenset())


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Any]:
    records = Records(tmp_path / "ledger.db")
    layers = SimpleNamespace(measured=AsyncMock(), of=lambda key: None)
    yield SimpleNamespace(store=Store(records), rates=Rates(), layers=layers)
    records.close()


@pytest.fixture
def pod(daemon: Any) -> Sandbox:
    config = api.PodSandboxConfig(metadata={"name": "pod"})
    made = Sandbox("p" * 64, config, "", "/p", 5, ready_at=6, layout=LAYOUT)
    daemon.store.save_sandbox(made)
    return made


@pytest.fixture
def container(daemon: Any, pod: Sandbox) -> Container:
    spec, user = ContainerSpec("c", pod.id, {"process": {}}, "/rootfs", log_path=""), api.LinuxContainerUser()
    config = api.ContainerConfig(metadata={"name": "main"})
    made = Container("c", pod, config, spec, "i", "r", "n", user, 15, config.linux.resources, 7, ["c"], started_at=8)
    daemon.store.add_container(made)
    return made


USED = Stats(10, CpuStats(7), None, None)


async def test_a_container_that_is_removed_meanwhile(
    daemon: Any, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(asked: Container) -> Stats:
        daemon.store.forget_container(asked)
        return USED

    monkeypatch.setattr(container_stats, "read_container", read)
    answer = await container_stats.list_container_stats(daemon, api.ListContainerStatsRequest())
    assert not answer.stats and not daemon.rates._samples


async def test_a_pod_that_is_removed_meanwhile(daemon: Any, pod: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(asked: Sandbox, containers: list[Container]) -> Any:
        daemon.store.forget_sandbox(asked)
        return pod_sandbox_stats._Read(asked, USED, None, None, [])

    monkeypatch.setattr(pod_sandbox_stats, "_read", read)
    answer = await pod_sandbox_stats.list_pod_sandbox_stats(daemon, api.ListPodSandboxStatsRequest())
    assert not answer.stats and not daemon.rates._samples
    daemon.store.save_sandbox(pod)
    with pytest.raises(NotFound, match="was removed meanwhile"):
        await pod_sandbox_stats.pod_sandbox_stats(daemon, api.PodSandboxStatsRequest(pod_sandbox_id=pod.id))
