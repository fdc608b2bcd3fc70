"""Pods from manifests, on a real runtime and a real kernel: what they find inside, and how they come and go."""

from __future__ import annotations

import asyncio
import os
import urllib.request
from pathlib import Path
from typing import Any

from cri.proto import api_pb2
from tests.support.agent import status_of, waits_for
from tests.support.node import Node
from tests.support.pods import container, manifest

SLEEP = ["sleep", "600"]
QUICK = {"terminationGracePeriodSeconds": 1}


def sh(script: str, name: str = "main", **fields: Any) -> dict[str, Any]:
    return container(name, command=["sh", "-c", script], **fields)


async def exec_in(node: Node, container: str, *command: str, pod: str = "web") -> str:
    """What a command in a running container says."""
    found = await node.crid.cri.ListContainers(
        filter=api_pb2.ContainerFilter(
            label_selector={"io.kubernetes.container.name": container, "io.kubernetes.pod.name": pod},
            state=api_pb2.ContainerStateValue(state=api_pb2.CONTAINER_RUNNING),
        )
    )
    code, out, err = await node.crid.exec(found.containers[0].id, *command)
    assert code == 0, err
    return out


async def test_a_server_and_a_sidecar_share_a_volume_and_answer_on_the_pods_address(node: Node) -> None:
    site = {"name": "site", "emptyDir": {}}
    mount = {"name": "site", "mountPath": "/site"}
    server = container(
        "server", command=["httpd", "-f", "-p", "80", "-h", "/site"], volumeMounts=[mount | {"readOnly": True}]
    )
    writer = sh("echo from the sidecar > /site/index.html; exec sleep 600", "writer", volumeMounts=[mount])
    node.put(manifest("web", server, writer, volumes=[site], **QUICK))
    pod = await node.until_running("web")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"http://{pod['status']['podIP']}/"
    for _ in range(50):
        try:
            answer = await asyncio.to_thread(lambda: opener.open(url, timeout=2).read())
            break
        except OSError:
            await asyncio.sleep(0.05)
    assert answer == b"from the sidecar\n"


async def test_what_a_container_finds(node: Node) -> None:
    env = [
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "GREETING", "value": "hello $(IP)"},
    ]
    aliases = [{"ip": "192.0.2.1", "hostnames": ["elsewhere"]}]
    main = container(
        command=["sh", "-c", "exec sleep $(SECONDS_)"],
        env=[*env, {"name": "SECONDS_", "value": "600"}],
        securityContext={"runAsUser": 1234, "runAsGroup": 5678},
        workingDir="/tmp",
    )
    node.put(manifest("web", main, hostAliases=aliases, securityContext={"fsGroup": 77}, **QUICK))
    pod = await node.until_running("web")
    ip = pod["status"]["podIP"]
    assert await exec_in(node, "main", "sh", "-c", "echo $GREETING") == f"hello {ip}\n"
    assert await exec_in(node, "main", "id", "-u") == "1234\n"
    assert set((await exec_in(node, "main", "id", "-G")).split()) == {"5678", "77"}
    hosts = await exec_in(node, "main", "cat", "/etc/hosts")
    assert f"{ip}\tweb\n" in hosts
    assert "192.0.2.1\telsewhere\n" in hosts
    assert await exec_in(node, "main", "hostname") == "web\n"
    assert "nameserver" in await exec_in(node, "main", "cat", "/etc/resolv.conf")


async def test_init_containers_run_in_order_before_the_others(node: Node) -> None:
    mount = {"name": "work", "mountPath": "/work"}
    steps = [sh(f"echo {name} >> /work/order", name, volumeMounts=[mount]) for name in ("one", "two")]
    main = sh("echo main >> /work/order; exec sleep 600", volumeMounts=[mount])
    node.put(manifest("web", main, initContainers=steps, volumes=[{"name": "work", "emptyDir": {}}], **QUICK))
    pods = await node.until(lambda pods: pods["web"]["status"]["phase"] == "Running")
    assert status_of(pods, "one")["state"]["terminated"]["exitCode"] == 0
    script = "while [ $(wc -l < /work/order) -lt 3 ]; do usleep 10000; done; cat /work/order"
    assert (await exec_in(node, "main", "sh", "-c", script)).split() == ["one", "two", "main"]


async def test_crashes_are_restarted_and_then_backed_off(node: Node) -> None:
    node.put(manifest("web", sh("echo last words > /dev/termination-log; exit 3"), **QUICK))
    pods = await node.until(lambda pods: waits_for(pods, "CrashLoopBackOff"))
    status = status_of(pods)
    assert status["restartCount"] == 1
    ended = status["lastState"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (3, "last words\n")
    assert "back-off 10s restarting failed container=main pod=default/web" in status["state"]["waiting"]["message"]


async def test_memory_beyond_the_limit_is_told_as_oom_kill(node: Node) -> None:
    main = sh("exec tail -c 64m /dev/zero", resources={"limits": {"memory": "16Mi"}})
    node.put(manifest("web", main, restartPolicy="Never", **QUICK))
    pods = await node.until(lambda pods: pods["web"]["status"]["phase"] == "Failed")
    assert status_of(pods)["state"]["terminated"]["reason"] == "OOMKilled"


async def test_a_job_ends_and_its_log_stays(node: Node) -> None:
    node.put(manifest("web", sh("echo done"), restartPolicy="OnFailure", **QUICK))
    pods = await node.until(lambda pods: pods["web"]["status"]["phase"] == "Succeeded")
    uid = pods["web"]["metadata"]["uid"]
    log = node.log_root / f"default_web_{uid}" / "main" / "0.log"
    assert log.read_text().endswith(" stdout F done\n")
    node.remove()
    await node.until_gone()
    assert not log.exists()


async def test_cgroups_stand_in_the_kubelets_tree(node: Node) -> None:
    limits = {"cpu": "500m", "memory": "64Mi"}
    node.put(manifest("web", container(command=SLEEP, resources={"limits": limits}), **QUICK))
    pod = await node.until_running("web")
    assert pod["status"]["qosClass"] == "Guaranteed"
    path = await exec_in(node, "main", "cat", "/proc/1/cgroup")
    assert path, "its own cgroup namespace shows a root"
    found = list(Path("/sys/fs/cgroup").rglob(f"kubepods/pod{pod['metadata']['uid']}"))
    assert found


async def test_a_changed_file_is_a_new_pod_after_the_old_one(node: Node) -> None:
    node.put(manifest("web", sh("trap 'sleep 0.5; exit 0' TERM; sleep 600 & wait"), terminationGracePeriodSeconds=5))
    first = await node.until_running("web")
    node.put(manifest("web", container(command=SLEEP), **QUICK))
    pods = await node.until(
        lambda pods: (
            pods["web"]["status"]["phase"] == "Running" and pods["web"]["metadata"]["uid"] != first["metadata"]["uid"]
        )
    )
    events = (await node.ask("/events"))["items"]
    assert any(each["reason"] == "Killing" for each in events)
    assert pods["web"]["status"]["podIP"]
    assert not (node.log_root / f"default_web_{first['metadata']['uid']}").exists()


async def test_the_grace_period_and_hooks(node: Node) -> None:
    volume = {"name": "out", "hostPath": {"path": str(node.base / "out"), "type": "DirectoryOrCreate"}}
    mount = {"name": "out", "mountPath": "/out"}
    lifecycle = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo post >> /out/said"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo pre >> /out/said"]}},
    }
    script = "trap 'echo term >> /out/said; exit 0' TERM; sleep 600 & wait"
    node.put(manifest("web", sh(script, lifecycle=lifecycle, volumeMounts=[mount]), volumes=[volume]))
    await node.until_running("web")
    said = node.base / "out" / "said"
    await node.until(lambda _: said.exists())
    node.remove()
    await node.until_gone()
    assert said.read_text().split() == ["post", "pre", "term"]


async def test_sidecars_start_before_and_end_after_the_containers(node: Node) -> None:
    volume = {"name": "out", "hostPath": {"path": str(node.base / "side"), "type": "DirectoryOrCreate"}}
    mount = {"name": "out", "mountPath": "/out"}
    script = "echo start {0} >> /out/said; trap 'echo end {0} >> /out/said; exit 0' TERM; sleep 600 & wait"
    sidecar = sh(script.format("proxy"), "proxy", restartPolicy="Always", volumeMounts=[mount])
    main = sh(script.format("main"), volumeMounts=[mount])
    node.put(manifest("web", main, initContainers=[sidecar], volumes=[volume], terminationGracePeriodSeconds=5))
    await node.until_running("web")
    said = node.base / "side" / "said"
    await node.until(lambda _: said.exists() and "start main" in said.read_text())
    node.remove()
    await node.until_gone()
    assert said.read_text().splitlines() == ["start proxy", "start main", "end main", "end proxy"]


async def test_a_deadline_ends_a_pod(node: Node) -> None:
    node.put(manifest("web", container(command=SLEEP), activeDeadlineSeconds=1, **QUICK))
    pods = await node.until(lambda pods: pods["web"]["status"]["phase"] == "Failed")
    assert pods["web"]["status"]["reason"] == "DeadlineExceeded"


async def test_a_pod_that_takes_more_of_the_disk_than_it_may_is_evicted_and_no_other(node: Node) -> None:
    volume = {"name": "cache", "emptyDir": {"sizeLimit": "1Mi"}}
    mounted: dict[str, Any] = {"volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}
    fill = "dd if=/dev/zero of=/cache/file bs=1024 count={}; exec sleep 600"
    node.put(manifest("full", sh(fill.format(1100), **mounted), volumes=[volume]), "full.yaml")
    node.put(manifest("less", sh(fill.format(900), **mounted), volumes=[volume], **QUICK), "less.yaml")
    limited: dict[str, Any] = {"resources": {"limits": {"ephemeral-storage": "1Mi"}}}
    chatter = "i=0; while [ $i -lt 24 ]; do i=$((i+1)); head -c 48000 /dev/zero | tr '\\0' x; done; exec sleep 600"
    node.put(manifest("chatty", sh(chatter, **limited)), "chatty.yaml")
    pods = await node.until(lambda pods: pods["full"]["status"].get("reason") == "Evicted")
    assert 'volume "cache" exceeds the limit "1Mi"' in pods["full"]["status"]["message"]
    await node.until(lambda pods: "terminated" in status_of(pods, pod="full")["state"])
    await node.until(lambda pods: pods["chatty"]["status"].get("reason") == "Evicted")
    uid = pods["full"]["metadata"]["uid"]
    pods = await node.until(lambda _: not (node.kubelet_root / "pods" / uid / "volumes").exists())
    told = pods["chatty"]["status"]["message"]
    assert told == "Pod ephemeral local storage usage exceeds the total limit of containers 1048576."
    assert pods["less"]["status"]["phase"] == "Running"
    node.kill_agent()
    await node.start_agent()
    pods = await node.until(lambda pods: pods["full"]["status"]["phase"] == "Failed")
    assert pods["full"]["status"]["reason"] == "Evicted"


async def test_the_nodes_network(node: Node) -> None:
    node.put(manifest("web", container(command=SLEEP), hostNetwork=True, **QUICK))
    pod = await node.until_running("web")
    assert pod["status"]["podIP"] == pod["status"]["hostIP"]
    assert (await exec_in(node, "main", "readlink", "/proc/self/ns/net")).strip() == os.readlink("/proc/self/ns/net")


async def test_logs_are_rotated_without_losing_a_line(node: Node) -> None:
    await node.stop_agent()
    await node.start_agent("", "--log-size", "20000", "--log-files", "9")
    node.put(manifest("web", sh("i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; sleep 600"), **QUICK))
    pod = await node.until_running("web")
    folder = node.log_root / f"default_web_{pod['metadata']['uid']}" / "main"
    await node.until(lambda _: len(list(folder.iterdir())) > 1, 40)
    files = sorted(folder.iterdir(), key=lambda path: (path.name == "0.log", path.name))
    assert len(files) > 1
    lines = [line.split(" ", 3)[3] for path in files for line in path.read_text().splitlines()]
    assert lines == [f"line {number}" for number in range(1, 2001)]
    await node.stop_agent()
    await node.start_agent()
