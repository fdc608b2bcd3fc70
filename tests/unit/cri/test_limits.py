"""New limits for a container that is just ending, and what takes limits back that nobody had set before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cri.proto import api_pb2 as api
from cri.server.errors import WrongState
from cri.server.limits import change_limits
from runtime.linux.cgroups import Layout


async def test_a_container_whose_cgroup_is_gone_has_exited(tmp_path: Path) -> None:
    layout = Layout({}, str(tmp_path), frozenset({"cpu", "memory"}))
    sandbox = SimpleNamespace(layout=layout, runtime=None, pod=None)
    spec = SimpleNamespace(oci={"linux": {"resources": {}}})
    container = SimpleNamespace(id="c" * 64, name="ns/pod/main", sandbox=sandbox, cgroup="/gone", spec=spec)
    container.finished_at, container.running, container.resources = 0, True, api.LinuxContainerResources()
    with pytest.raises(WrongState, match=r"ns/pod/main\) has exited"):
        await change_limits(None, container, {"cpu": {"shares": 100}})  # type: ignore[arg-type]
    assert container.resources == api.LinuxContainerResources()
