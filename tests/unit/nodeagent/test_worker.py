"""One worker for each pod: its life, restarts, evictions and end, with a runtime in memory."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from cri.proto import api_pb2
from nodeagent.sync import disk_usage, eviction, teardown
from nodeagent.volumes import empty_dir
from runtime.linux import trees
from runtime.linux.ledger import read_ledger
from tests.support.agent_bench import Bench
from tests.support.pods import container, manifest

EXITED, RUNNING = api_pb2.CONTAINER_EXITED, api_pb2.CONTAINER_RUNNING


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


async def test_a_renamed_pod_with_a_fixed_uid_waits_for_the_end_of_the_one_before(bench: Bench) -> None:
    document = manifest("old", container(), volumes=[{"name": "data", "emptyDir": {}}])
    document["metadata"]["uid"] = "fixed"
    bench.put(document)
    await bench.until(lambda: bench.running("old"))
    bench.cri.hang["RemovePodSandbox"] = asyncio.Event()
    bench.put(document | {"metadata": {"name": "new", "uid": "fixed"}})
    await bench.until(lambda: "still ending" in bench.status("new").get("message", ""))
    told = "pod default/old with the same metadata.uid fixed is still ending"
    assert (bench.status("new")["message"], len(bench.cri.called("RunPodSandbox"))) == (told, 1)
    bench.cri.hang.pop("RemovePodSandbox").set()
    await bench.until(lambda: bench.running("new"))
    place = bench.config.kubelet_root / "pods" / "fixed"
    await bench.until(lambda: not bench.pod("old") and not bench.agent.health()["pendingTeardowns"])
    assert (place / "etc-hosts").exists() and (place / "volumes/kubernetes.io~empty-dir/data").exists()
    bench.remove()
    await bench.until(lambda: read_ledger(bench.config.database) == [])


async def test_a_pod_that_still_starts_keeps_its_uid_from_the_one_it_is_renamed_to(bench: Bench) -> None:
    document = manifest("old")
    document["metadata"]["uid"] = "fixed"
    bench.cri.hang["RunPodSandbox"] = asyncio.Event()
    bench.put(document)
    await bench.until(lambda: bench.cri.called("RunPodSandbox"))
    bench.put(document | {"metadata": {"name": "new", "uid": "fixed"}})
    await bench.until(lambda: "still ending" in bench.status("new").get("message", ""))
    bench.cri.hang.pop("RunPodSandbox").set()
    await bench.until(lambda: bench.running("new") and not bench.pod("old"))
    assert [status.metadata.name for status in bench.cri.sandboxes.values()] == ["new"]
    await bench.until(lambda: not bench.agent.health()["pendingTeardowns"])
    assert (bench.config.kubelet_root / "pods" / "fixed" / "etc-hosts").exists()


async def test_a_pod_that_comes_back_loses_nothing_to_the_removal_of_its_former_life(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teardown, "PATIENCE", 0.1)
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def remove(path: Path) -> None:
        if path.exists() and not began.is_set():
            began.set()
            go_on.wait(20)
            trees.remove_tree(path)
            ended.set()

    monkeypatch.setattr(empty_dir, "remove_tree", remove)
    document = manifest("web", volumes=[{"name": "data", "emptyDir": {}}])
    bench.put(document)
    await bench.until(bench.running)
    uid = bench.pod()["metadata"]["uid"]
    data = bench.config.kubelet_root / "pods" / uid / "volumes/kubernetes.io~empty-dir/data"
    (data / "old").touch()
    try:
        bench.remove()
        await bench.until(began.is_set)
        bench.put(document)
        await bench.until(bench.running)
        assert bench.pod()["metadata"]["uid"] == uid
        assert not (data / "old").exists()
        (data / "new").touch()
    finally:
        go_on.set()
    await bench.until(ended.is_set)
    assert (data / "new").exists()
    monkeypatch.setattr(empty_dir, "remove_tree", trees.remove_tree)
    bench.remove()
    await bench.until(lambda: read_ledger(bench.config.database) == [])
    assert not list((bench.config.kubelet_root / "pods").iterdir())


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


async def test_files_without_number_delay_the_eviction_of_their_pod_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "PATIENCE", 0.05)
    begun, counted = threading.Event(), threading.Event()

    def measure(path: Path, enough: int | None = None) -> tuple[int, int]:
        if "many" in path.parts:
            begun.set()
            counted.wait(20)
        return 2 << 20, 1

    monkeypatch.setattr(disk_usage, "measure", measure)
    many, other = (
        manifest(name, volumes=[{"name": name, "emptyDir": {"sizeLimit": "1Mi"}}]) for name in ("many", "other")
    )
    bench.put(many, "many.yaml")
    try:
        await bench.until(begun.is_set)
        bench.put(other, "other.yaml")
        await bench.until(lambda: bench.status("other").get("reason") == "Evicted")
        assert bench.running("many")
    finally:
        counted.set()
    await bench.until(lambda: bench.status("many").get("reason") == "Evicted")


async def test_usage_that_cannot_be_told_is_no_reason(bench: Bench) -> None:
    bench.put(manifest("web", container(resources={"limits": {"ephemeral-storage": "1Mi"}})))
    await bench.until(bench.running)
    bench.cri.fail["ListContainerStats"] = [("UNKNOWN", "no")]
    await bench.until(lambda: len(bench.cri.called("ListContainerStats")) > 2)
    assert bench.running()


async def test_hooks_run_and_their_failures_are_told(bench: Bench) -> None:
    bench.cri.exec_codes = {"bad-pre": 3}
    lifecycle = {"postStart": {"exec": {"command": ["post"]}}, "preStop": {"exec": {"command": ["bad-pre"]}}}
    bench.put(manifest("web", container(lifecycle=lifecycle)))
    await bench.until(lambda: bench.running() and bench.cri.called("ExecSync"))
    bench.remove()
    await bench.until(lambda: not bench.cri.sandboxes)
    assert [list(request.cmd) for request in bench.cri.called("ExecSync")] == [["post"], ["bad-pre"]]
    assert "FailedPreStopHook" in bench.reasons()


async def test_sidecars_are_stopped_after_the_containers_last_started_first(bench: Bench) -> None:
    sidecars = [container("one", restartPolicy="Always"), container("two", restartPolicy="Always")]
    bench.put(manifest("web", initContainers=sidecars))
    await bench.until(bench.running)
    names = {status.id: status.metadata.name for _, status in bench.cri.containers.values()}
    bench.remove()
    await bench.until(lambda: not bench.cri.sandboxes)
    assert [names[request.container_id] for request in bench.cri.called("StopContainer")] == ["main", "two", "one"]
