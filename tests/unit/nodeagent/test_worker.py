"""The agent around a runtime in memory: what no real runtime does on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from cri.client import CriClient
from cri.proto import api_pb2
from nodeagent.agent import Agent
from nodeagent.config import Config
from nodeagent.node import Node
from nodeagent.sync import backoff, eviction, runtime_events
from nodeagent.sync.plan import decide
from runtime.linux.ledger import read_ledger
from tests.support.fake_cri import FakeCri
from tests.support.pods import container, manifest

EXITED, RUNNING = api_pb2.CONTAINER_EXITED, api_pb2.CONTAINER_RUNNING


class Bench:
    """An agent on a fake runtime, with directories of its own; it can be killed and started again."""

    def __init__(self, place: Path, short: Path) -> None:
        self.cri = FakeCri()
        self.config = Config(
            root=place / "root",
            state=short,
            manifests=place / "manifests",
            kubelet_root=place / "kubelet",
            log_root=place / "logs",
        )
        for path in (self.config.root, self.config.manifests):
            path.mkdir()
        self.start()

    def start(self) -> None:
        node = Node("node-1", kubelet_root=self.config.kubelet_root, log_root=self.config.log_root)
        self.agent = Agent(self.config, node, cast(CriClient, self.cri))
        self.task = asyncio.create_task(self.agent.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})

    def put(self, document: dict[str, Any], file: str = "web.yaml") -> None:
        (self.config.manifests / file).write_text(json.dumps(document))

    def remove(self, file: str = "web.yaml") -> None:
        (self.config.manifests / file).unlink()

    def pod(self, name: str = "web") -> dict[str, Any]:
        found = [each for each in self.agent.documents() if each["metadata"]["name"] == name]
        return found[0] if found else {}

    def status(self, name: str = "web") -> dict[str, Any]:
        status: dict[str, Any] = self.pod(name).get("status", {})
        return status

    def state(self, of: str = "main", pod: str = "web") -> dict[str, Any]:
        status = self.status(pod)
        every = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
        return next((each["state"] for each in every if each["name"] == of), {})

    def running(self, name: str = "web") -> bool:
        return self.status(name).get("phase") == "Running"

    def waits_for(self, reason: str, of: str = "main") -> bool:
        return bool(self.state(of).get("waiting", {}).get("reason") == reason)

    def reasons(self) -> list[str]:
        return [entry.reason for entry in self.agent.journal.since(0)]

    async def until(self, right: Callable[[], Any], patience: float = 10) -> None:
        try:
            async with asyncio.timeout(patience):
                while not right():
                    assert not self.task.done(), self.task.exception()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            told = [f"{entry.reason}: {entry.message}" for entry in self.agent.journal.since(0)]
            raise AssertionError(json.dumps({"pods": list(self.agent.documents()), "told": told}, indent=1)) from None


@pytest.fixture
async def bench(tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(backoff, "FIRST", 0.2)
    monkeypatch.setattr(runtime_events, "SETTLE", 0.2)
    monkeypatch.setattr(eviction, "EVERY", 0.1)
    made = Bench(tmp_path, short_path)
    yield made
    await made.stop()


async def test_a_pod_comes_runs_and_goes(bench: Bench) -> None:
    bench.put(manifest())
    await bench.until(bench.running)
    assert [method for method, _ in bench.cri.calls if method in ("RunPodSandbox", "CreateContainer", "StartContainer")]
    assert bench.status()["podIP"] == "10.0.0.1"
    assert "running" in bench.state()
    bench.remove()
    await bench.until(lambda: not bench.pod() and not bench.cri.sandboxes)
    assert [request.timeout for request in bench.cri.called("StopContainer")] == [30]
    await bench.until(lambda: read_ledger(bench.config.database) == [])
    assert list((bench.config.kubelet_root / "pods").iterdir()) == []
    assert list(bench.config.log_root.iterdir()) == []


async def test_a_changed_manifest_ends_the_old_pod_before_the_new_one_starts(bench: Bench) -> None:
    bench.put(manifest(terminationGracePeriodSeconds=7))
    await bench.until(bench.running)
    uid = bench.pod()["metadata"]["uid"]
    bench.put(manifest("web", container(args=["new"])))
    await bench.until(lambda: bench.running() and bench.pod()["metadata"]["uid"] != uid)
    order = [method for method, _ in bench.cri.calls if method in ("RunPodSandbox", "RemovePodSandbox")]
    assert order == ["RunPodSandbox", "RemovePodSandbox", "RunPodSandbox"]
    assert bench.cri.called("StopContainer")[0].timeout == 7, "the grace period of the pod that was running"
    assert list(bench.cri.configs.values())[-1].args == ["new"]


async def test_a_changed_manifest_of_a_fixed_uid_is_a_new_pod_too(bench: Bench) -> None:
    document = manifest()
    document["metadata"]["uid"] = "fixed"
    bench.put(document)
    await bench.until(bench.running)
    bench.put(document | {"spec": manifest("web", container(args=["new"]))["spec"]})
    await bench.until(lambda: len(bench.cri.called("RemovePodSandbox")) == 1 and bench.running())
    assert list(list(bench.cri.configs.values())[-1].args) == ["new"]
    assert (bench.config.kubelet_root / "pods" / "fixed" / "etc-hosts").exists()


async def test_an_agent_that_comes_back_touches_nothing_that_runs(bench: Bench) -> None:
    bench.put(manifest())
    await bench.until(bench.running)
    await bench.stop()
    before = len(bench.cri.calls)
    bench.start()
    await bench.until(bench.running)
    methods = {method for method, _ in bench.cri.calls[before:]}
    assert methods <= {"ListPodSandbox", "PodSandboxStatus", "GetContainerEvents", "ListContainers"}


async def test_orphans_of_a_former_agent_are_ended_and_other_peoples_pods_are_not(bench: Bench) -> None:
    bench.put(manifest())
    await bench.until(bench.running)
    foreign = api_pb2.PodSandboxConfig(metadata=api_pb2.PodSandboxMetadata(name="web", namespace="default", uid="x"))
    await bench.cri.RunPodSandbox(config=foreign)
    await bench.stop()
    bench.remove()
    bench.start()
    await bench.until(lambda: len(bench.cri.sandboxes) == 1)
    assert [status.metadata.uid for status in bench.cri.sandboxes.values()] == ["x"]
    await bench.until(lambda: read_ledger(bench.config.database) == [])


async def test_a_crash_is_restarted_at_once_then_with_a_pause(bench: Bench) -> None:
    bench.put(manifest())
    await bench.until(bench.running)
    bench.cri.end("main", 1)
    await bench.until(
        lambda: "running" in bench.state() and bench.status()["containerStatuses"][0]["restartCount"] == 1
    )
    bench.cri.end("main", 1)
    await bench.until(lambda: bench.waits_for("CrashLoopBackOff"))
    assert bench.status()["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 1
    assert bench.reasons().count("BackOff") == 1
    await bench.until(lambda: bench.status()["containerStatuses"][0]["restartCount"] == 2)
    await bench.until(lambda: len(bench.cri.named("main")) == 2), "the last dead container stays, older ones go"


async def test_oom_kills_are_told(bench: Bench) -> None:
    bench.put(manifest(restartPolicy="Never"))
    await bench.until(bench.running)
    bench.cri.end("main", 137, "OOMKilled")
    await bench.until(lambda: bench.status()["phase"] == "Failed")
    assert bench.state()["terminated"]["reason"] == "OOMKilled"
    assert bench.status()["message"] == "container main exited with code 137 (OOMKilled)"


async def test_a_pod_that_is_over_gives_its_sandbox_back_and_keeps_its_logs(bench: Bench) -> None:
    bench.put(manifest(restartPolicy="Never"))
    await bench.until(bench.running)
    log = Path(bench.cri.named("main")[0].log_path)
    log.parent.mkdir(parents=True)
    log.write_text("last words")
    bench.cri.end("main")
    await bench.until(lambda: bench.status()["phase"] == "Succeeded")
    await bench.until(lambda: bench.cri.called("StopPodSandbox"))
    assert bench.cri.named("main")
    assert log.exists()
    await bench.stop()
    bench.start()
    await bench.until(lambda: bench.status().get("phase") == "Succeeded")
    assert len(bench.cri.called("RunPodSandbox")) == 1


async def test_a_pod_that_outgrows_its_empty_dir_is_evicted_for_good(bench: Bench) -> None:
    cache = {"name": "cache", "emptyDir": {"sizeLimit": "1Mi"}}
    document = manifest("web", volumes=[{"name": "other", "emptyDir": {}}, cache], terminationGracePeriodSeconds=30)
    bench.put(document)
    await bench.until(bench.running)
    volumes = bench.config.kubelet_root / "pods" / bench.pod()["metadata"]["uid"] / "volumes/kubernetes.io~empty-dir"
    (volumes / "other" / "file").write_bytes(bytes(2 << 20))
    (volumes / "cache" / "file").write_bytes(bytes(900 << 10))
    await asyncio.sleep(0.3)
    assert bench.running()
    (volumes / "cache" / "more").write_bytes(bytes(200 << 10))
    await bench.until(lambda: bench.status()["phase"] == "Failed")
    told = 'Usage of EmptyDir volume "cache" exceeds the limit "1Mi".'
    assert (bench.status()["reason"], bench.status()["message"]) == ("Evicted", told)
    await bench.until(lambda: bench.cri.called("StopPodSandbox"))
    assert [request.timeout for request in bench.cri.called("StopContainer")] == [1]
    assert "Evicted" in bench.reasons()
    await bench.until(lambda: not volumes.exists())
    await bench.stop()
    bench.start()
    await bench.until(lambda: bench.status().get("reason") == "Evicted")
    assert len(bench.cri.called("RunPodSandbox")) == 1
    bench.put(document | {"spec": document["spec"] | {"terminationGracePeriodSeconds": 3}})
    await bench.until(bench.running)


async def test_a_pod_that_outgrows_its_containers_limits_is_evicted(bench: Bench) -> None:
    limited = [
        container(name, resources={"limits": {"ephemeral-storage": limit}})
        for name, limit in (("a", "1Mi"), ("b", "2Mi"))
    ]
    for pod in ("layer", "log", "whole", "well"):
        document = manifest(pod, *limited, volumes=[{"name": "free", "emptyDir": {}}])
        bench.put(document, f"{pod}.yaml")
    await bench.until(lambda: all(bench.running(pod) for pod in ("layer", "log", "whole", "well")))
    uid = {pod: bench.pod(pod)["metadata"]["uid"] for pod in ("layer", "log", "whole", "well")}
    bench.cri.layers["a"] = 900 << 10
    logs = bench.config.log_root / f"default_log_{uid['log']}" / "a"
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "0.log").write_bytes(bytes(200 << 10))
    volume = bench.config.kubelet_root / "pods" / uid["whole"] / "volumes/kubernetes.io~empty-dir/free/file"
    volume.write_bytes(bytes(2300 << 10))
    await bench.until(lambda: bench.status("log")["phase"] == bench.status("whole")["phase"] == "Failed")
    assert bench.status("log")["message"] == 'Container a exceeded its local ephemeral storage limit "1Mi".'
    told = f"Pod ephemeral local storage usage exceeds the total limit of containers {3 << 20}."
    assert bench.status("whole")["message"] == told
    assert bench.running("well") and bench.running("layer")
    bench.cri.layers["a"] = 1100 << 10
    await bench.until(lambda: bench.status("layer")["phase"] == "Failed")
    assert bench.status("layer")["message"] == bench.status("log")["message"]


async def test_usage_that_cannot_be_told_is_no_reason(bench: Bench) -> None:
    bench.put(manifest("web", container(resources={"limits": {"ephemeral-storage": "1Mi"}})))
    await bench.until(bench.running)
    bench.cri.fail["ListContainerStats"] = [("UNKNOWN", "no")]
    await bench.until(lambda: len(bench.cri.called("ListContainerStats")) > 2)
    assert bench.running()


async def test_an_unknown_image_is_reported_and_disturbs_nobody(bench: Bench) -> None:
    bench.cri.fail["PullImage"] = [("NOT_FOUND", "registry.example/no: manifest unknown")] * 3
    bench.put(manifest("web", container("good"), container("bad", image="registry.example/no:1")))
    bench.put(manifest("other"), "other.yaml")
    await bench.until(lambda: bench.waits_for("ImagePullBackOff", "bad") and "running" in bench.state("good"))
    assert bench.state("bad")["waiting"]["message"] == (
        'image "registry.example/no:1": registry.example/no: manifest unknown'
    )
    assert bench.status()["phase"] == "Pending"
    await bench.until(lambda: bench.running("other"))


async def test_a_pull_that_hangs_blocks_neither_the_other_containers_nor_the_pods_end(bench: Bench) -> None:
    bench.cri.hang["PullImage"] = asyncio.Event()
    bench.put(manifest("web", container("slow", image="far.example/big:1"), container("quick")))
    await bench.until(lambda: "running" in bench.state("quick"))
    assert bench.state("slow")["waiting"] == {
        "reason": "ContainerCreating",
        "message": 'pulling image "far.example/big:1"',
    }
    bench.remove()
    await bench.until(lambda: not bench.cri.sandboxes)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"imagePullPolicy": "Never", "image": "absent:1"}, "ErrImageNeverPull"), ({"image": "x:1"}, "ImagePullBackOff")],
)
async def test_images_that_cannot_be_had(bench: Bench, fields: dict[str, Any], reason: str) -> None:
    bench.cri.fail["PullImage"] = [("UNAVAILABLE", "no route to host")]
    bench.put(manifest("web", container(**fields)))
    await bench.until(lambda: bench.waits_for(reason))


async def test_an_image_name_that_is_none(bench: Bench) -> None:
    bench.cri.fail["ImageStatus"] = [("INVALID_ARGUMENT", "invalid reference format")] * 3
    bench.put(manifest("web", container(image="UPPER//x")))
    await bench.until(lambda: bench.waits_for("InvalidImageName"))
    assert "invalid reference format" in bench.state()["waiting"]["message"]


@pytest.mark.parametrize(
    ("method", "reason"), [("CreateContainer", "CreateContainerError"), ("StartContainer", "RunContainerError")]
)
async def test_a_container_that_cannot_be_made_is_tried_again(bench: Bench, method: str, reason: str) -> None:
    bench.cri.fail[method] = [("UNKNOWN", 'exec: "nope": executable file not found in $PATH')]
    bench.put(manifest())
    await bench.until(lambda: bench.waits_for(reason))
    assert "executable file not found" in bench.state()["waiting"]["message"]
    await bench.until(bench.running, 15)
    assert len(bench.cri.named("main")) == 1, "one that never ran leaves nothing"


async def test_a_sandbox_that_cannot_be_made_is_tried_again_and_says_why(bench: Bench) -> None:
    bench.cri.fail["RunPodSandbox"] = [("UNKNOWN", "network plugin bridge: no addresses left in 10.0.0.0/30")]
    bench.put(manifest())
    await bench.until(lambda: bench.status().get("reason") == "FailedCreatePodSandBox")
    assert "no addresses left" in bench.status()["message"]
    await bench.until(bench.running)
    assert {request.config.metadata.attempt for request in bench.cri.called("RunPodSandbox")} == {0}


async def test_a_missing_host_path_holds_up_only_its_pod(bench: Bench, tmp_path: Path) -> None:
    volume = {"name": "data", "hostPath": {"path": str(tmp_path / "absent"), "type": "Directory"}}
    mount = {"name": "data", "mountPath": "/data"}
    bench.put(manifest("web", container(volumeMounts=[mount]), volumes=[volume]))
    bench.put(manifest("other"), "other.yaml")
    await bench.until(lambda: bench.status().get("reason") == "FailedMount")
    assert 'volume "data"' in bench.status()["message"]
    await bench.until(lambda: bench.running("other"))
    assert len(bench.cri.sandboxes) == 1
    (tmp_path / "absent").mkdir()
    await bench.until(bench.running)


async def test_a_user_that_contradicts_the_manifest(bench: Bench) -> None:
    bench.put(manifest("web", container(securityContext={"runAsNonRoot": True})))
    await bench.until(lambda: bench.waits_for("CreateContainerConfigError"))
    assert "the image runs as root: set runAsUser" in bench.state()["waiting"]["message"]
    assert bench.cri.called("CreateContainer") == []


async def test_a_broken_manifest_leaves_its_pod_running(bench: Bench) -> None:
    bench.put(manifest())
    await bench.until(bench.running)
    bench.put({"kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{"name": "main"}]}})
    await bench.until(lambda: list(bench.agent.problems()))
    assert "web.yaml" in str(next(iter(bench.agent.problems())))
    await asyncio.sleep(0.1)
    assert bench.running()
    assert bench.cri.called("StopPodSandbox") == []


async def test_a_runtime_that_goes_away_and_comes_back(bench: Bench) -> None:
    bench.put(manifest())
    await bench.until(bench.running)
    bench.cri.fail["ListPodSandbox"] = [("UNAVAILABLE", "connection refused")] * 3
    bench.cri.drop_streams()
    await bench.until(lambda: "connection refused" in bench.agent.health()["runtime"]["problem"])
    assert not bench.agent.health()["healthy"]
    await bench.until(lambda: bench.agent.health()["healthy"])
    bench.cri.end("main", 1)
    await bench.until(lambda: bench.status()["containerStatuses"][0]["restartCount"] == 1)


async def test_a_runtime_without_events_is_listed_instead(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_events, "POLL", 0.05)
    bench.cri.fail["GetContainerEvents"] = [("UNIMPLEMENTED", "unknown method")] * 100
    bench.cri.drop_streams()
    bench.put(manifest())
    await bench.until(bench.running)
    bench.cri.end("main", 1)
    await bench.until(lambda: bench.status()["containerStatuses"][0]["restartCount"] == 1)


async def test_a_lost_sandbox_is_followed_by_another(bench: Bench) -> None:
    bench.put(manifest())
    await bench.until(bench.running)
    next(iter(bench.cri.sandboxes.values())).state = api_pb2.SANDBOX_NOTREADY
    bench.cri.end("main", 255)
    await bench.until(lambda: bench.running() and len(bench.cri.called("RunPodSandbox")) == 2)
    attempts = [request.config.metadata.attempt for request in bench.cri.called("RunPodSandbox")]
    assert attempts == [0, 1]
    assert bench.cri.called("StopPodSandbox"), "what the lost one has is given back first"


async def test_hooks_run_and_their_failures_are_told(bench: Bench) -> None:
    bench.cri.exec_codes = {"bad-pre": 3}
    lifecycle = {"postStart": {"exec": {"command": ["post"]}}, "preStop": {"exec": {"command": ["bad-pre"]}}}
    bench.put(manifest("web", container(lifecycle=lifecycle)))
    await bench.until(lambda: bench.running() and bench.cri.called("ExecSync"))
    bench.remove()
    await bench.until(lambda: not bench.cri.sandboxes)
    assert [list(request.cmd) for request in bench.cri.called("ExecSync")] == [["post"], ["bad-pre"]]
    assert "FailedPreStopHook" in bench.reasons()


async def test_a_failed_post_start_hook_kills_the_container(bench: Bench) -> None:
    bench.cri.exec_codes = {"post": 1}
    bench.put(
        manifest("web", container(lifecycle={"postStart": {"exec": {"command": ["post"]}}}), restartPolicy="Never")
    )
    await bench.until(lambda: "FailedPostStartHook" in bench.reasons())
    await bench.until(lambda: bench.cri.named("main")[0].state == EXITED)


async def test_sidecars_are_stopped_after_the_containers_last_started_first(bench: Bench) -> None:
    sidecars = [container("one", restartPolicy="Always"), container("two", restartPolicy="Always")]
    bench.put(manifest("web", initContainers=sidecars))
    await bench.until(bench.running)
    names = {status.id: status.metadata.name for _, status in bench.cri.containers.values()}
    bench.remove()
    await bench.until(lambda: not bench.cri.sandboxes)
    assert [names[request.container_id] for request in bench.cri.called("StopContainer")] == ["main", "two", "one"]


async def test_a_fault_in_one_worker_reaches_no_other_pod(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.agent.REVIVAL", 0.1)

    faults = [RuntimeError("a fault of ours")]

    def broken(*arguments: Any) -> Any:
        if faults:
            raise faults.pop()
        return decide(*arguments)

    monkeypatch.setattr("nodeagent.sync.worker.decide", broken)
    bench.put(manifest())
    bench.put(manifest("other"), "other.yaml")
    await bench.until(lambda: bench.running() and bench.running("other"))
