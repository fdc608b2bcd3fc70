"""The real kubelet 1.36 on crid: pods from manifests, with probes, restarts, volumes, logs, exec and statistics."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio

from cri.client import CriClientSync
from cri.proto import api_pb2 as api
from cri.streaming_client import exec_session
from tests.support.crid import Crid, running_crid
from tests.support.kubelet import NODE, Kubelet
from tests.support.peers import PeerUnavailable
from tests.support.pods import container, manifest
from tests.support.registry import Registry

pytestmark = pytest.mark.timeout(900)  # the first run builds the kubelet


SHARED = {"name": "shared", "mountPath": "/shared"}


@dataclass
class Node:
    """A kubelet, its runtime, and an image for pods."""

    kubelet: Kubelet
    crid: Crid
    image: str

    def busybox(self, name: str, script: str, **fields: Any) -> dict[str, Any]:
        return container(name, image=self.image, command=["sh", "-c", script], **fields)

    def put(self, name: str, *containers: dict[str, Any], **spec: Any) -> None:
        self.kubelet.put(name, manifest(name, *containers, terminationGracePeriodSeconds=1, **spec))

    async def exec(self, pod: str, container: str, *command: str) -> tuple[int, str]:
        """Through the kubelet's API and crid's streaming server: exit code and stdout."""
        query = urlencode([*(("command", word) for word in command), ("output", 1), ("error", 1)])
        url = self.kubelet.url(f"/exec/default/{pod}-{NODE}/{container}?{query}")
        with tempfile.TemporaryFile() as out:
            code = await exec_session(url, stdin=None, stdout=out.fileno(), stderr=2)
            out.seek(0)
            return code, out.read().decode()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(registry: Registry, busybox: str) -> AsyncIterator[Node]:
    async with running_crid() as crid:
        crid.trust_plain_http(registry.host)
        try:
            kubelet = Kubelet(crid.base / "kubelet", crid.socket, f"/{crid.bridge}-k")
        except PeerUnavailable as reason:
            pytest.skip(str(reason))
        try:
            await kubelet.start()
            yield Node(kubelet, crid, busybox)
        finally:
            kubelet.stop()
            await crid.clean()
            kubelet.clean()


@pytest.fixture(autouse=True)
def trust(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients believe in the kubelet's certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(node.kubelet.certificate))


async def test_a_pod_with_probes_volumes_logs_and_exec(node: Node) -> None:
    kubelet = node.kubelet
    given = kubelet.base / "given"
    given.mkdir()
    (given / "page").write_text("from the host\n")
    site = {"name": "site", "mountPath": "/site"}
    page = {"httpGet": {"path": "/index.html", "port": 80}, "periodSeconds": 1}
    alive = {"exec": {"command": ["test", "!", "-e", "/site/broken"]}, "periodSeconds": 1, "failureThreshold": 1}
    node.put(
        "web",
        node.busybox("server", "exec httpd -f -p 80 -h /site", volumeMounts=[site], readinessProbe=page),
        node.busybox(
            "writer",
            "rm -f /site/broken; cp /given/page /site/index.html; echo written by $WHO; exec sleep 1000",
            env=[{"name": "WHO", "value": "the writer"}],
            livenessProbe=alive,
            volumeMounts=[site, {"name": "given", "mountPath": "/given", "readOnly": True}],
        ),
        volumes=[{"name": "site", "emptyDir": {}}, {"name": "given", "hostPath": {"path": str(given)}}],
    )
    await kubelet.until(lambda: kubelet.ready("web"))
    status = kubelet.status("web")
    assert status["podIP"].startswith(node.crid.subnet.rsplit(".", 1)[0])
    server = kubelet.container("web", "server")
    assert server["image"] == node.image
    assert server["containerID"].startswith("crid://")
    assert kubelet.get(f"/containerLogs/default/web-{NODE}/writer") == "written by the writer\n"
    assert await node.exec("web", "server", "cat", "/site/index.html") == (0, "from the host\n")
    assert (await node.exec("web", "writer", "sh", "-c", "exit 3"))[0] == 3
    assert (await node.exec("web", "writer", "touch", "/given/x"))[0] == 1, "it is mounted read-only"
    await node.exec("web", "server", "touch", "/site/broken")
    await kubelet.until(lambda: kubelet.container("web", "writer").get("restartCount") == 1)
    await kubelet.until(lambda: kubelet.container("web", "writer")["state"].get("running"))
    assert kubelet.container("web", "writer")["lastState"]["terminated"]["exitCode"] in (137, 143)
    assert kubelet.container("web", "server")["restartCount"] == 0


async def test_statistics_events_and_streamed_lists(node: Node) -> None:
    kubelet = node.kubelet
    node.put("measured", node.busybox("main", "exec sleep 1000"))
    await kubelet.until(lambda: kubelet.ready("measured"))

    def usage() -> Any:
        pods = json.loads(kubelet.get("/stats/summary?only_cpu_and_memory=true"))["pods"]
        found = [pod for pod in pods if pod["podRef"]["name"] == f"measured-{NODE}"]
        return found and found[0].get("containers") and found[0]

    pod = await kubelet.until(usage)
    assert pod["containers"][0]["memory"]["workingSetBytes"] > 0
    assert f'pod="measured-{NODE}"' in kubelet.get("/metrics/cadvisor")
    metrics = dict(line.rsplit(" ", 1) for line in kubelet.get("/metrics").splitlines() if not line.startswith("#"))
    assert metrics["kubelet_evented_pleg_connection_success_count"] == "1"
    assert metrics['kubelet_runtime_operations_total{operation_type="list_containers"}'] != "0"
    assert "not implemented, falling back" not in kubelet.tail(1 << 30), "lists came as streams (KEP-5825)"
    failed = {name for name in metrics if name.startswith("kubelet_runtime_operations_errors_total")}
    # A probe or a command that ends with another code than 0 counts as an error of exec_sync.
    assert failed <= {'kubelet_runtime_operations_errors_total{operation_type="exec_sync"}'}, node.crid.tail()


RICH = """
cat /proc/self/uid_map
grep ^Seccomp: /proc/self/status
ls /image/etc/passwd
touch /no 2>/dev/null || echo read-only root
trap 'echo usr1 > /host/signal; exit 0' USR1
while :; do head -c 2000 /dev/zero | tr '\\0' x; echo; sleep 0.1; done
"""


async def test_a_pod_with_a_user_namespace_an_image_volume_hooks_a_stop_signal_and_rotated_logs(node: Node) -> None:
    kubelet = node.kubelet
    shared = kubelet.base / "hooks"
    shared.mkdir()

    def hook(word: str) -> dict[str, Any]:
        return {"exec": {"command": ["touch", f"/host/{word}"]}}

    node.put(
        "rich",
        node.busybox(
            "main",
            RICH,
            lifecycle={"postStart": hook("started"), "preStop": hook("stopping"), "stopSignal": "SIGUSR1"},
            securityContext={"seccompProfile": {"type": "RuntimeDefault"}, "readOnlyRootFilesystem": True},
            volumeMounts=[{"name": "host", "mountPath": "/host"}, {"name": "image", "mountPath": "/image"}],
        ),
        hostUsers=False,
        os={"name": "linux"},
        volumes=[
            {"name": "host", "hostPath": {"path": str(shared)}},
            {"name": "image", "image": {"reference": node.image}},
        ],
    )
    await kubelet.until(lambda: kubelet.ready("rich"))
    assert (shared / "started").exists()
    [folder] = kubelet.logs.glob(f"default_rich-{NODE}_*/main")
    said = (folder / "0.log").read_text()
    first, outside, length = said.splitlines()[0].split()[-3:]
    assert (first, int(outside) > 0, int(length)) == ("0", True, 65536)
    for words in ("Seccomp:\t2", "/image/etc/passwd", "read-only root"):
        assert words in said
    await kubelet.until(lambda: list(folder.glob("0.log.*")))
    assert (folder / "0.log").stat().st_size < 100_000
    kubelet.remove("rich")
    await kubelet.until(lambda: (shared / "signal").exists())
    assert (shared / "stopping").exists()


async def test_a_container_that_fails_is_started_again_with_back_off(node: Node) -> None:
    kubelet = node.kubelet
    node.put("failing", node.busybox("main", "echo attempt; exit 7"))

    def backs_off() -> Any:
        return kubelet.container("failing", "main").get("state", {}).get("waiting", {}).get("reason")

    await kubelet.until(lambda: backs_off() == "CrashLoopBackOff")
    ended = kubelet.container("failing", "main")["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (7, "Error")
    assert kubelet.get(f"/containerLogs/default/failing-{NODE}/main?previous=true") == "attempt\n"


async def test_an_init_container_comes_first_and_a_memory_limit_holds(node: Node) -> None:
    kubelet = node.kubelet
    limits = {"limits": {"memory": "24Mi"}}
    node.put(
        "greedy",
        node.busybox("main", "test -e /shared/ready && tail /dev/zero", resources=limits, volumeMounts=[SHARED]),
        initContainers=[node.busybox("first", "touch /shared/ready", volumeMounts=[SHARED])],
        volumes=[{"name": "shared", "emptyDir": {}}],
        restartPolicy="Never",
    )
    await kubelet.until(lambda: kubelet.status("greedy").get("phase") == "Failed")
    ended = kubelet.container("greedy", "main")["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


async def test_a_kubelet_that_comes_back_finds_its_pods_and_restarts_nothing(node: Node) -> None:
    kubelet = node.kubelet
    node.put("lasting", node.busybox("main", "exec sleep 1000"))
    await kubelet.until(lambda: kubelet.ready("lasting"))
    before = kubelet.container("lasting", "main")
    kubelet.stop()
    await kubelet.start()
    await kubelet.until(lambda: kubelet.ready("lasting"))
    assert kubelet.container("lasting", "main") == before


async def test_crid_that_comes_back_is_not_noticed_by_the_pods_of_the_kubelet(node: Node) -> None:
    kubelet = node.kubelet
    node.put("calm", node.busybox("main", "exec sleep 1000"))
    await kubelet.until(lambda: kubelet.ready("calm"))
    before = kubelet.container("calm", "main")
    node.crid.kill()
    await node.crid.start()
    node.put("later", node.busybox("main", "exec sleep 1000"))
    await kubelet.until(lambda: kubelet.ready("later"))
    assert kubelet.container("calm", "main") == before


async def test_pods_whose_manifests_are_removed_are_gone(node: Node) -> None:
    kubelet = node.kubelet
    for file in list(kubelet.manifests.iterdir()):
        file.unlink()
    await kubelet.until(lambda: not kubelet.pods())
    runs, ready = {"state": {"state": api.CONTAINER_RUNNING}}, {"state": {"state": api.SANDBOX_READY}}
    with CriClientSync(node.crid.socket) as cri:
        await kubelet.until(lambda: not cri.ListContainers(filter=runs).containers)
        await kubelet.until(lambda: not cri.ListPodSandbox(filter=ready).items)
    await kubelet.until(lambda: not list(kubelet.root.glob("pods/*/volumes")))
