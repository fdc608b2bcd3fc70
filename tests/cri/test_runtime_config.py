"""What the runtime is told, by UpdateRuntimeConfig and its own files, and what it says of itself in Status."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio

from cri.client import CriError
from cri.proto import api_pb2 as api
from cri.proto.services import methods
from tests.support.crid import Crid, running_crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry

#: Bytes of one message that the kubelet, crictl and critest take (k8s.io/cri-client).
KUBELETS_LIMIT = 16 << 20


@pytest_asyncio.fixture(loop_scope="session")
async def own() -> AsyncIterator[Crid]:
    """A crid for one test, to be configured and restarted."""
    async with running_crid() as crid:
        yield crid


async def address(crid: Crid, pod: str) -> ipaddress.IPv4Address:
    status = (await crid.cri.PodSandboxStatus(pod_sandbox_id=pod)).status
    return ipaddress.IPv4Address(status.network.ip)


async def restart(crid: Crid) -> None:
    await crid.terminate()
    await crid.start()


async def test_the_pod_cidr_is_for_pods_to_come_and_outlives_the_daemon(own: Crid) -> None:
    before = (await own.run_pod())[0]
    cidr = ipaddress.IPv4Network("10.127.9.0/24")
    await own.cri.UpdateRuntimeConfig(runtime_config={"network_config": {"pod_cidr": str(cidr)}})
    assert await address(own, (await own.run_pod())[0]) in cidr
    assert await address(own, before) in ipaddress.IPv4Network(own.subnet)
    await restart(own)
    assert await address(own, (await own.run_pod())[0]) in cidr
    assert await address(own, before) in ipaddress.IPv4Network(own.subnet)
    network = json.loads((await own.cri.Status(verbose=True)).info["network"])
    assert (network["source"], str(cidr) in json.dumps(network["plugins"])) == ("built-in default", True)


async def test_a_pod_cidr_for_both_families(own: Crid) -> None:
    """As the kubelet passes on what a node's spec.podCIDRs say: with a comma between."""
    cidrs = [ipaddress.ip_network("10.127.10.0/24"), ipaddress.ip_network("fd7a:115c::/120")]
    both = ",".join(map(str, cidrs))
    await own.cri.UpdateRuntimeConfig(runtime_config={"network_config": {"pod_cidr": both}})
    network = (await own.cri.PodSandboxStatus(pod_sandbox_id=(await own.run_pod())[0])).status.network
    for ip, cidr in zip([network.ip, *(each.ip for each in network.additional_ips)], cidrs, strict=True):
        assert ipaddress.ip_address(ip) in cidr


async def test_a_network_that_is_not_ready_is_told_with_its_reason(own: Crid) -> None:
    folder = own.base / "net.d"
    plugin = {"type": "no-such-plugin"}
    (folder / "10-bad.conflist").write_text("{not json")
    (folder / "20-missing.conflist").write_text(
        json.dumps({"cniVersion": "1.1.0", "name": "missing", "plugins": [plugin]})
    )
    status = await own.cri.Status(verbose=True)
    [ready] = [each for each in status.status.conditions if each.type == "NetworkReady"]
    assert (ready.status, ready.reason) == (False, "NetworkPluginNotReady")
    assert "no-such-plugin" in ready.message
    assert "10-bad.conflist" in json.loads(status.info["network"])["problems"][0]
    with pytest.raises(CriError, match="no-such-plugin") as caught:
        await own.run_pod()
    assert "DEL" not in caught.value.details, "nothing was made that it could undo"
    assert not list(Path(own.state, "sandboxes").iterdir())
    for file in folder.iterdir():
        file.unlink()
    await own.run_pod()


async def test_a_broken_configuration_is_no_reason_for_another_network(own: Crid) -> None:
    """The default network is for a node that has no configuration; once it is mended, crid goes on by itself."""
    file = own.base / "net.d" / "10-pods.conflist"
    file.write_text("{not json")
    pod = own.pod_config()
    [ready] = [each for each in (await own.cri.Status()).status.conditions if each.type == "NetworkReady"]
    assert (ready.status, ready.reason) == (False, "NetworkPluginNotReady")
    assert f"{file}: line 1, column 2" in ready.message
    with pytest.raises(CriError, match=r"no usable network configuration in .*10-pods\.conflist: line 1") as caught:
        await own.run_pod(pod)
    assert caught.value.code == "UNAVAILABLE"
    network = {"cniVersion": "1.1.0", "name": "mended", "plugins": [{"type": "loopback"}]}
    file.write_text(json.dumps(network))
    [ready] = [each for each in (await own.cri.Status()).status.conditions if each.type == "NetworkReady"]
    assert ready.status
    await own.run_pod(pod)


async def test_a_pinned_image_says_so(own: Crid, registry: Registry) -> None:
    pushed = push_image(registry, "pinned-by-config:1", [busybox_rootfs()], {"Cmd": ["pinned"]})
    own.trust_plain_http(registry.host)
    own.config.write_text(own.config.read_text().replace("[images]", f'[images]\npinned = ["{pushed.ref}"]'))
    await restart(own)
    await own.cri.PullImage(image={"image": pushed.ref})
    assert (await own.cri.ImageStatus(image={"image": pushed.ref})).image.pinned
    assert [image.pinned for image in (await own.cri.ListImages()).images] == [True]


async def test_devices_belong_to_the_user_where_the_operator_wants_it(own: Crid, registry: Registry) -> None:
    """What containerd and CRI-O call by the same name: /dev/kvm for a virtual machine that does not run as root."""
    pushed = push_image(registry, "owned:1", [busybox_rootfs()], {"Cmd": ["sh"]})
    own.trust_plain_http(registry.host)
    devices = [{"container_path": "/dev/mine", "host_path": "/dev/zero"}]
    linux = {"security_context": {"run_as_user": {"value": 1000}, "run_as_group": {"value": 2000}}}
    seen = []
    for setting in ("", "device_ownership_from_security_context = true\n"):
        own.config.write_text(setting + own.config.read_text())
        await restart(own)
        await own.cri.PullImage(image={"image": pushed.ref})
        pod = await own.run_pod()
        script = ["sh", "-c", "stat -c %u:%g /dev/mine; stat -c %u:%g /dev/null"]
        await own.ended(await own.run(pod, pushed.ref, script, devices=devices, linux=linux))
        seen.append(own.log_of(pod[1]).splitlines())
    assert seen == [["0:0", "0:0"], ["1000:2000", "0:0"]]


async def test_pulls_for_a_runtime_handler(crid: Crid, busybox: str) -> None:
    """With the gate RuntimeClassInImageCriApi the kubelet names the handler: all of ours share their images."""
    status = await crid.cri.Status()
    for handler in status.runtime_handlers:
        await crid.cri.PullImage(image={"image": busybox, "runtime_handler": handler.name})
    with pytest.raises(CriError, match="no runtime handler 'kata'") as caught:
        await crid.cri.PullImage(image={"image": busybox, "runtime_handler": "kata"})
    assert caught.value.code == "INVALID_ARGUMENT"


async def test_pods_that_share_one_cgroup_parent(crid: Crid, busybox: str) -> None:
    """A client without a cgroup per pod, as the kubelet with cgroupsPerQOS: false."""
    parent = {"cgroup_parent": f"/{crid.bridge}/shared"}
    one, two = [await crid.run_pod(crid.pod_config(linux=parent)) for _ in range(2)]
    first = await crid.run(one, busybox, ["sleep", "1000"])
    second = await crid.run(two, busybox, ["sleep", "1000"])
    await crid.cri.RemovePodSandbox(pod_sandbox_id=one[0])
    assert (await crid.status(second)).state == api.CONTAINER_RUNNING
    assert (await crid.exec(second, "true"))[0] == 0
    assert not (await crid.cri.ListContainers(filter={"id": first})).containers
    third = await crid.run(two, busybox, ["sleep", "1000"], name="third")
    assert (await crid.exec(third, "true"))[0] == 0


async def test_a_list_beyond_the_limit_of_a_message_comes_as_a_stream(crid: Crid) -> None:
    large = "x" * (3 << 20)
    made = {(await crid.run_pod(crid.pod_config(annotations={"large": large})))[0] for _ in range(6)}
    options = [("grpc.max_receive_message_length", KUBELETS_LIMIT)]
    async with grpc.aio.insecure_channel(f"unix:{crid.socket}", options=options) as channel:
        unary, stream = methods()["ListPodSandbox"], methods()["StreamPodSandboxes"]
        ask = channel.unary_unary(unary.path, response_deserializer=unary.response.FromString)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(b"", timeout=30)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        listen = channel.unary_stream(stream.path, response_deserializer=stream.response.FromString)
        seen = [each.id async for message in listen(b"", timeout=30) for each in message.pod_sandboxes]
    assert sorted(seen) == sorted(made)


async def test_a_request_beyond_the_limit_of_a_message_is_refused(crid: Crid) -> None:
    before = set(Path(crid.state, "sandboxes").iterdir())
    with pytest.raises(CriError) as caught:
        await crid.run_pod(crid.pod_config(annotations={"large": "x" * KUBELETS_LIMIT}))
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert set(Path(crid.state, "sandboxes").iterdir()) <= before
