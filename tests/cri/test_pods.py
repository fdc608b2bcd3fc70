"""Pod sandboxes through the socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from runtime.linux.ledger import read_ledger
from tests.support.crid import Crid


async def test_a_pod_is_ready_listed_and_described(crid: Crid) -> None:
    config = crid.pod_config(labels={"app": "web"}, annotations={"note": "as it is"})
    id, _ = await crid.run_pod(config)
    status = (await crid.cri.PodSandboxStatus(pod_sandbox_id=id, verbose=True)).status
    assert status.state == api.SANDBOX_READY
    assert (dict(status.labels), dict(status.annotations)) == ({"app": "web"}, {"note": "as it is"})
    assert status.metadata == config.metadata
    assert status.created_at > 0
    assert status.network.ip.startswith(crid.subnet.rsplit(".", 1)[0])
    [listed] = (await crid.cri.ListPodSandbox(filter={"id": id[:12]})).items
    assert (listed.id, listed.state) == (id, api.SANDBOX_READY)


async def test_filters_are_anded(crid: Crid) -> None:
    one, _ = await crid.run_pod(crid.pod_config(labels={"a": "1", "b": "1"}))
    two, _ = await crid.run_pod(crid.pod_config(labels={"a": "1", "b": "2"}))
    await crid.cri.StopPodSandbox(pod_sandbox_id=two)

    async def listed(**filter: object) -> set[str]:
        answer = await crid.cri.ListPodSandbox(filter=filter)
        return {item.id for item in answer.items}

    assert await listed(label_selector={"a": "1"}) == {one, two}
    assert await listed(label_selector={"a": "1", "b": "2"}) == {two}
    assert await listed(state={"state": api.SANDBOX_READY}, label_selector={"a": "1"}) == {one}
    assert await listed(id=one, state={"state": api.SANDBOX_NOTREADY}) == set()
    streamed = [item.id async for message in crid.cri.StreamPodSandboxes() for item in message.pod_sandboxes]
    assert sorted(streamed) == sorted({one, two})


async def test_stop_and_remove_are_idempotent(crid: Crid) -> None:
    id, _ = await crid.run_pod()
    for _ in range(2):
        await crid.cri.StopPodSandbox(pod_sandbox_id=id)
    status = (await crid.cri.PodSandboxStatus(pod_sandbox_id=id)).status
    assert (status.state, status.network.ip) == (api.SANDBOX_NOTREADY, "")
    for _ in range(2):
        await crid.cri.RemovePodSandbox(pod_sandbox_id=id)
    await crid.cri.StopPodSandbox(pod_sandbox_id="never-was")
    with pytest.raises(CriError, match="no pod sandbox") as caught:
        await crid.cri.PodSandboxStatus(pod_sandbox_id=id)
    assert caught.value.code == "NOT_FOUND"


async def test_nothing_is_left_of_a_removed_pod(crid: Crid, busybox: str) -> None:
    links = set(os.listdir("/sys/class/net"))
    pod = await crid.run_pod()
    await crid.run(pod, busybox, ["sleep", "1000"])
    await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
    assert [
        entry for entry in read_ledger(crid.root / "ledger.db") if entry.holder == pod[0] and entry.kind != "link"
    ] == []
    assert list((crid.state / "sandboxes").iterdir()) == []
    assert pod[0] not in Path("/proc/self/mountinfo").read_text()
    for _ in range(100):
        if set(os.listdir("/sys/class/net")) - {crid.bridge} <= links:
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("the pod's veth is still there")


async def test_a_retry_joins_the_first_request(crid: Crid) -> None:
    config = crid.pod_config()
    answers = await asyncio.gather(*(crid.cri.RunPodSandbox(config=config) for _ in range(5)))
    assert len({answer.pod_sandbox_id for answer in answers}) == 1
    assert (await crid.cri.RunPodSandbox(config=config)).pod_sandbox_id == answers[0].pod_sandbox_id
    assert len((await crid.cri.ListPodSandbox()).items) == 1


async def test_one_name_is_one_sandbox(crid: Crid) -> None:
    config = crid.pod_config()
    id, _ = await crid.run_pod(config)
    config.hostname = "other"
    with pytest.raises(CriError, match="has another configuration; remove it") as caught:
        await crid.cri.RunPodSandbox(config=config)
    assert caught.value.code == "ALREADY_EXISTS"
    config.metadata.attempt = 1
    assert (await crid.run_pod(config))[0] != id


async def test_a_client_that_gives_up_finds_its_pod_later(crid: Crid) -> None:
    config = crid.pod_config()
    with pytest.raises(CriError) as caught:
        await crid.cri.RunPodSandbox(config=config, timeout=0.002)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    id = (await crid.cri.RunPodSandbox(config=config)).pod_sandbox_id
    assert [item.id for item in (await crid.cri.ListPodSandbox()).items] == [id]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metadata": None}, "metadata is missing"),
        ({"metadata": {"name": "../../etc", "uid": "u", "namespace": "n"}}, "metadata.name"),
        ({"metadata": {"name": "n", "uid": "../x", "namespace": "n"}}, "metadata.uid"),
        ({"metadata": {"name": "n", "uid": "", "namespace": "n"}}, "metadata.uid"),
        ({"hostname": "h" * 65}, "hostname"),
        ({"log_directory": "relative"}, "log_directory"),
        ({"linux": {"cgroup_parent": "/kubepods.slice"}}, "cgroupfs"),
        ({"linux": {"cgroup_parent": "/a/../../b"}}, "cgroup_parent"),
        ({"linux": {"sysctls": {"kernel.core_pattern": "|/x"}}}, "core_pattern"),
        ({"linux": {"security_context": {"namespace_options": {"network": api.CONTAINER}}}}, "network"),
        ({"linux": {"security_context": {"namespace_options": {"network": 99}}}}, "network of a sandbox cannot be 99"),
        ({"port_mappings": [{"host_port": 70000}]}, "port mapping"),
        ({"dns_config": {"servers": ["1.1.1.1\nx"]}}, "dns_config"),
        ({"annotations": {"large": "x" * (5 << 20)}}, "more than the limit"),
    ],
)
async def test_bad_configurations(crid: Crid, change: dict[str, object], words: str) -> None:
    config = crid.pod_config()
    for field, value in change.items():
        config.ClearField(field)
        if value is not None:
            config.MergeFrom(api.PodSandboxConfig(**{field: value}))
    with pytest.raises(CriError, match=words) as caught:
        await crid.cri.RunPodSandbox(config=config)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert list((crid.state / "sandboxes").iterdir()) == []


async def test_an_unknown_runtime_handler_is_refused(crid: Crid) -> None:
    with pytest.raises(CriError, match="no runtime handler 'kata'"):
        await crid.cri.RunPodSandbox(config=crid.pod_config(), runtime_handler="kata")


async def test_hostname_dns_and_sysctls(crid: Crid, busybox: str) -> None:
    config = crid.pod_config(
        hostname="alpha",
        dns_config={"servers": ["10.0.0.10"], "searches": ["svc.local"], "options": ["ndots:5"]},
        linux={"sysctls": {"kernel.shm_rmid_forced": "1", "net.ipv4.ip_unprivileged_port_start": "80"}},
    )
    pod = await crid.run_pod(config)
    main = await crid.run(pod, busybox, ["sleep", "1000"])
    script = (
        "hostname; cat /etc/hostname /etc/resolv.conf /proc/sys/kernel/shm_rmid_forced"
        " /proc/sys/net/ipv4/ip_unprivileged_port_start; grep -c localhost /etc/hosts"
    )
    code, out, _ = await crid.exec(main, "sh", "-c", script)
    lines = out.splitlines()
    assert (code, lines[:7]) == (
        0,
        ["alpha", "alpha", "search svc.local", "nameserver 10.0.0.10", "options ndots:5", "1", "80"],
    )
    assert int(lines[7]) >= 1


async def test_pods_reach_each_other_and_have_loopback(crid: Crid, busybox: str) -> None:
    server, client = await crid.run_pod(), await crid.run_pod()
    await crid.run(server, busybox, ["sh", "-c", "mkdir /www; echo found > /www/index.html; httpd -f -h /www"])
    shell = await crid.run(client, busybox, ["sleep", "1000"])
    ip = (await crid.cri.PodSandboxStatus(pod_sandbox_id=server[0])).status.network.ip
    # Not wget: a static busybox looks its target up through libraries that its image does not have.
    ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {ip} 80"
    assert "found" in (await crid.exec(shell, "sh", "-c", ask))[1]
    assert (await crid.exec(shell, "ping", "-c1", "-W2", "127.0.0.1"))[0] == 0


async def test_host_ports(crid: Crid, busybox: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = crid.pod_config(port_mappings=[{"host_port": port, "container_port": 80}, {"container_port": 81}])
    pod = await crid.run_pod(config)
    await crid.run(pod, busybox, ["sh", "-c", "echo -n mapped > /index.html; httpd -f -h /"])
    for _ in range(50):
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 2)
            break
        except OSError:
            await asyncio.sleep(0.05)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 5)).endswith(b"mapped")
    writer.close()


async def test_the_hosts_namespaces(crid: Crid, busybox: str) -> None:
    options = {"network": api.NODE, "pid": api.NODE, "ipc": api.NODE}
    config = crid.pod_config(linux={"security_context": {"namespace_options": options}})
    config.hostname = ""
    pod = await crid.run_pod(config)
    linux = {"security_context": {"namespace_options": options}}
    main = await crid.run(pod, busybox, ["sleep", "1000"], linux=linux)
    _, out, _ = await crid.exec(main, "sh", "-c", "for n in net pid ipc; do readlink /proc/self/ns/$n; done; hostname")
    own = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "pid", "ipc")]
    assert out.splitlines() == [*own, socket.gethostname()]
    assert (await crid.cri.PodSandboxStatus(pod_sandbox_id=pod[0])).status.network.ip == ""


async def test_what_waited_for_a_removal_finds_nothing(crid: Crid) -> None:
    """Nor does it take away a new pod of the same name."""
    id, config = await crid.run_pod()
    calls = [
        crid.cri.RemovePodSandbox(pod_sandbox_id=id),
        crid.cri.UpdatePodSandboxResources(pod_sandbox_id=id, resources={"cpu_shares": 5}),
        crid.cri.RemovePodSandbox(pod_sandbox_id=id),
    ]
    first, update, second = await asyncio.gather(*calls, return_exceptions=True)
    assert first == second == api.RemovePodSandboxResponse()
    assert isinstance(update, CriError) and update.code == "NOT_FOUND"
    assert id not in {item.id for item in (await crid.cri.ListPodSandbox()).items}
    new = (await crid.run_pod(config))[0]
    assert (await crid.run_pod(config))[0] == new != id


async def test_a_shared_pid_namespace(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()  # the interface's default is POD
    await crid.run(pod, busybox, ["sleep", "12345"], name="one")
    two = await crid.run(pod, busybox, ["sleep", "1000"], name="two")
    assert "sleep 12345" in (await crid.exec(two, "ps"))[1]


async def test_a_pid_namespace_for_each_container(crid: Crid, busybox: str) -> None:
    security = {"security_context": {"namespace_options": {"pid": api.CONTAINER}}}
    pod = await crid.run_pod(crid.pod_config(linux=security))
    await crid.run(pod, busybox, ["sleep", "12345"], name="one", linux=security)
    two = await crid.run(pod, busybox, ["sleep", "1000"], name="two", linux=security)
    out = (await crid.exec(two, "ps"))[1]
    assert "sleep 12345" not in out
    assert "    1 root      0:00 sleep 1000" in out or "1 root" in out


async def test_the_pod_goes_with_its_containers(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    main = await crid.run(pod, busybox, ["sleep", "1000"])
    await crid.cri.StopPodSandbox(pod_sandbox_id=pod[0])
    status = await crid.status(main)
    assert (status.state, status.exit_code) == (api.CONTAINER_EXITED, 137)
    with pytest.raises(CriError, match="is not ready") as caught:
        await crid.create(pod, busybox, ["true"], name="late")
    assert caught.value.code == "FAILED_PRECONDITION"
    await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
    assert (await crid.cri.ListContainers()).containers == []


async def test_network_plugins_are_told_how_fast_a_pod_may_be(crid: Crid) -> None:
    plugin, conflist = crid.base / "cni-bin" / "telling", crid.base / "net.d" / "10-telling.conflist"
    plugin.write_text(f'#!/bin/sh\ncat >> {crid.base}/told.$CNI_COMMAND\necho \'{{"cniVersion":"1.0.0"}}\'\n')
    plugin.chmod(0o755)
    capabilities = {"bandwidth": True, "cgroupPath": True}
    network = {"cniVersion": "1.0.0", "name": "telling", "plugins": [{"type": "telling", "capabilities": capabilities}]}
    conflist.write_text(json.dumps(network))
    ingress, egress = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"
    try:
        pod = await crid.run_pod(annotations={ingress: "1M", egress: "1.5Mi", "cni.example/other": "1"})
        await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
        with pytest.raises(CriError, match="egress-bandwidth: 'fast' is no quantity") as caught:
            await crid.run_pod(annotations={egress: "fast"})
    finally:
        conflist.unlink()
    assert caught.value.code == "INVALID_ARGUMENT"
    for command in ("ADD", "DEL"):
        told = json.loads((crid.base / f"told.{command}").read_text())["runtimeConfig"]
        assert told["bandwidth"]["ingressRate"] == 1_000_000 and told["bandwidth"]["egressRate"] == 1_572_864
        assert told["cgroupPath"].endswith(f"/pod{pod[1].metadata.uid}")
    on_host = {"security_context": {"namespace_options": {"network": api.NODE}}}
    await crid.run_pod(annotations={egress: "fast"}, linux=on_host)  # whose network is not ours to limit


FAILING = '#!/bin/sh\ncat > /dev/null\necho \'{"cniVersion":"1.0.0","code":7,"msg":"no luck"}\'\nexit 1\n'
GARBAGE = "#!/bin/sh\ncat > /dev/null\nhead -c 100 /dev/urandom\n"


@pytest.mark.parametrize(("script", "words"), [(FAILING, "no luck"), (GARBAGE, "broken")])
async def test_a_broken_network_plugin_takes_nothing_with_it(crid: Crid, script: str, words: str) -> None:
    plugin, conflist = crid.base / "cni-bin" / "broken", crid.base / "net.d" / "10-broken.conflist"
    plugin.write_text(script)
    plugin.chmod(0o755)
    network = {"cniVersion": "1.0.0", "name": "broken", "plugins": [{"type": "broken"}]}
    conflist.write_text(json.dumps(network))
    try:
        with pytest.raises(CriError, match=words):
            await crid.cri.RunPodSandbox(config=crid.pod_config())
    finally:
        conflist.unlink()
    assert (await crid.cri.ListPodSandbox()).items == []
    plugin.write_text("#!/bin/sh\ncat > /dev/null\n")
    await crid.run_pod()  # the next one has the default network again
