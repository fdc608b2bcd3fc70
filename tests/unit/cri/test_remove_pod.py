"""RemovePodSandbox leaves nothing of a pod in the daemon's memory either."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

from cri.proto import api_pb2 as api
from cri.server.calls.remove_pod_sandbox import remove_pod_sandbox
from cri.server.nri.nri import Nri
from cri.server.pods import Sandbox
from cri.server.store import Store
from cri.server.usage.cgroups import Rates
from runtime.linux.records import Records


async def test_its_samples_are_forgotten(tmp_path: Path) -> None:
    records, rates = Records(tmp_path / "ledger.db"), Rates()
    pod = Sandbox("a" * 64, api.PodSandboxConfig(metadata={"name": "pod"}), "", "/pods/p", 5, ended=True)
    nri = Mock(Nri, removed_pod=AsyncMock())
    daemon = SimpleNamespace(store=Store(records), rates=rates, nri=nri, ledger=Mock(), events=Mock())
    daemon.sandbox_directory = lambda id: tmp_path / id
    daemon.store.save_sandbox(pod)
    rates.nano_cores(pod.id, 10, 10)
    await remove_pod_sandbox(daemon, api.RemovePodSandboxRequest(pod_sandbox_id=pod.id))  # type: ignore[arg-type]
    assert not rates._samples and not list(daemon.store.sandboxes)
    records.close()
