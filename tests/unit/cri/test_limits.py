"""New limits for a container that is just ending, and what takes limits back that nobody had set before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cri.proto import api_pb2 as api
from cri.server.errors import WrongState
from cri.server.former_limits import former_limits
from cri.server.limits import change_limits
from runtime.linux.cgroups import Cgroup, Layout

V1 = {"cpu.rt_runtime_us": "0", "cpu.rt_period_us": "1000000", "cpuset.cpus": "0-3", "memory.swappiness": "60"}
V1 |= {"memory.soft_limit_in_bytes": "9223372036854771712"}
V2 = {"cpuset.cpus.effective": "0-3", "memory.low": "0", "memory.high": "max"}


@pytest.mark.parametrize(
    ("version", "change", "former"),
    [
        (1, {"memory": {"reservation": 5, "swappiness": 1}}, {"reservation": 9223372036854771712, "swappiness": 60}),
        (1, {"memory": {"disableOOMKiller": True, "limit": 5}}, {"disableOOMKiller": False, "limit": 9}),
        (1, {"cpu": {"realtimeRuntime": 5, "realtimePeriod": 9}}, {"realtimeRuntime": 0, "realtimePeriod": 1000000}),
        (1, {"cpu": {"cpus": "0", "shares": 2, "quota": 7}}, {"cpus": "0-3", "shares": 1024, "quota": -1}),
        (2, {"memory": {"reservation": 5}}, {"reservation": 0}),
        (2, {"cpu": {"cpus": "0"}}, {"cpus": "0-3"}),
        (2, {"unified": {"memory.high": "5"}}, {"memory.high": "max"}),
        (2, {"pids": {"limit": 5}}, {"limit": 0}),
    ],
)
def test_what_nobody_has_set_is_in_the_kernel_or_has_a_default(
    tmp_path: Path, version: int, change: dict[str, Any], former: dict[str, Any]
) -> None:
    controllers = frozenset({"cpu", "cpuset", "memory", "pids"})
    (tmp_path / "c").mkdir()
    for name, text in (V1 if version == 1 else V2).items():
        (tmp_path / "c" / name).write_text(f"{text}\n")
    v1 = Layout(dict.fromkeys(controllers, str(tmp_path)), "", frozenset())
    layout = v1 if version == 1 else Layout({}, str(tmp_path), controllers)
    current = {"memory": {"limit": 9}, "pids": {"limit": 0}, "cpu": {"quota": 0}}
    [group] = change
    assert former_limits(Cgroup("/c", layout), current, change) == {group: former}


async def test_a_container_whose_cgroup_is_gone_has_exited(tmp_path: Path) -> None:
    layout = Layout({}, str(tmp_path), frozenset({"cpu", "memory"}))
    sandbox = SimpleNamespace(layout=layout, runtime=None, pod=None)
    spec = SimpleNamespace(oci={"linux": {"resources": {}}})
    container = SimpleNamespace(id="c" * 64, name="ns/pod/main", sandbox=sandbox, cgroup="/gone", spec=spec)
    container.finished_at, container.running, container.resources = 0, True, api.LinuxContainerResources()
    with pytest.raises(WrongState, match=r"ns/pod/main\) has exited"):
        await change_limits(None, container, {"cpu": {"shares": 100}})  # type: ignore[arg-type]
    assert container.resources == api.LinuxContainerResources()
