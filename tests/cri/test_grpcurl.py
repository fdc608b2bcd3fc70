"""grpcurl knows nothing of the CRI: it learns the services from the daemon's reflection and calls them with JSON."""

from __future__ import annotations

import pytest

from cri.proto.services import methods
from tests.support.crid import Crid
from tests.support.outside import Grpcurl

pytestmark = pytest.mark.timeout(900)  # the first run builds grpcurl


@pytest.fixture
def grpcurl(crid: Crid) -> Grpcurl:
    return Grpcurl(crid.socket)


async def test_services_and_their_calls_are_listed(grpcurl: Grpcurl) -> None:
    services = (await grpcurl.ask("list")).split()
    assert {"runtime.v1.RuntimeService", "runtime.v1.ImageService"} <= set(services)
    listed = [
        line.rpartition(".")[2]
        for service in ("RuntimeService", "ImageService")
        for line in (await grpcurl.ask("list", f"runtime.v1.{service}")).split()
    ]
    assert sorted(listed) == sorted(methods())


async def test_messages_are_described(grpcurl: Grpcurl) -> None:
    described = await grpcurl.ask("describe", "runtime.v1.PodSandboxMetadata")
    assert "uint32 attempt = 4" in described


async def test_a_pod_by_json(grpcurl: Grpcurl) -> None:
    version = await grpcurl.call("RuntimeService/Version")
    assert version["runtime_api_version"] == "v1"
    metadata = {"name": "by-json", "namespace": "test", "uid": "grpcurl"}
    made = await grpcurl.call("RuntimeService/RunPodSandbox", {"config": {"metadata": metadata, "linux": {}}})
    listed = await grpcurl.call("RuntimeService/ListPodSandbox")
    assert [item["id"] for item in listed["items"]] == [made["pod_sandbox_id"]]
    await grpcurl.call("RuntimeService/RemovePodSandbox", {"pod_sandbox_id": made["pod_sandbox_id"]})
    assert await grpcurl.call("RuntimeService/ListPodSandbox") == {}


async def test_errors_are_statuses(grpcurl: Grpcurl) -> None:
    said = await grpcurl.attempt("RuntimeService/ContainerStatus", {"container_id": "no-such"})
    assert said.code
    assert b"Code: NotFound" in said.err
    assert b"no-such" in said.err
    said = await grpcurl.attempt("RuntimeService/RunPodSandbox")
    assert b"Code: InvalidArgument" in said.err
