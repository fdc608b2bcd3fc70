"""How the container was stopped that has hung in the kernel during all other tests here: this file is the last one."""

from __future__ import annotations

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.support.neighbourhood import Neighbourhood


async def test_a_container_that_hangs_in_the_kernel(neighbourhood: Neighbourhood) -> None:
    """SIGKILL does not end it: the stop says so when its time is over, and succeeds once the file system answers."""
    crid = neighbourhood.crid
    with pytest.raises(CriError, match="hangs in the kernel") as late:
        await neighbourhood.stopping
    assert late.value.code == "DEADLINE_EXCEEDED"
    assert (await crid.status(neighbourhood.stuck_id)).state == api.CONTAINER_RUNNING
    await neighbourhood.serves()
    neighbourhood.stuck.let_go()
    request = api.StopContainerRequest(container_id=neighbourhood.stuck_id, timeout=0)
    await crid.cri.StopContainer(request, timeout=20)
    status = await crid.status(neighbourhood.stuck_id)
    assert (status.state, status.exit_code) in {(api.CONTAINER_EXITED, 137), (api.CONTAINER_EXITED, 143)}
    await crid.cri.RemovePodSandbox(pod_sandbox_id=neighbourhood.stuck_pod[0])
