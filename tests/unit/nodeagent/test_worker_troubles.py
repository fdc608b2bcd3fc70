"""Pods that cannot run, or not now: each says why, is tried again, and holds up nobody else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cri.proto import api_pb2
from nodeagent.sync import runtime_events
from nodeagent.sync.plan import decide
from runtime.linux.ledger import read_ledger
from tests.support.agent_bench import Bench
from tests.support.databases import locked_by_another
from tests.support.pods import container, manifest
from tests.support.volume_documents import claim, claimed, volume

EXITED, RUNNING = api_pb2.CONTAINER_EXITED, api_pb2.CONTAINER_RUNNING


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


async def test_what_was_made_for_a_sandbox_that_never_was_goes_with_the_manifest(bench: Bench) -> None:
    bench.cri.fail["RunPodSandbox"] = [("UNKNOWN", "no address left")] * 100
    bench.put(manifest(volumes=[{"name": "data", "emptyDir": {}}]))
    await bench.until(lambda: "no address left" in bench.status().get("message", ""))
    assert list((bench.config.kubelet_root / "pods").iterdir())
    bench.remove()
    await bench.until(lambda: read_ledger(bench.config.database) == [])
    assert not list((bench.config.kubelet_root / "pods").iterdir())


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


async def test_a_database_that_takes_nothing_holds_up_what_is_new_and_ends_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    bench.put(manifest("old"), "old.yaml")
    bench.put(manifest("away"), "away.yaml")
    await bench.until(lambda: bench.running("old") and bench.running("away"))
    (tmp_path / "data").mkdir()
    disk = volume("disk", csi=None, hostPath={"path": str(tmp_path / "data")})
    with locked_by_another(bench.config.database):
        bench.remove("away.yaml")
        bench.put(disk | {"apiVersion": "v1"}, "disk.yaml")
        bench.put(claim() | {"apiVersion": "v1"}, "claim.yaml")
        bench.put(manifest("claims", volumes=[claimed()]), "claims.yaml")
        bench.put(manifest("plain"), "plain.yaml")
        await bench.until(lambda: bench.waits_for("CreateContainerConfigError", pod="plain"))
        assert "is locked by another process" in bench.state(pod="plain")["waiting"]["message"]
        await bench.until(lambda: bench.waits_for("FailedMount", pod="claims"))
        assert "that is not written down" in bench.status("claims")["message"]
        await bench.until(lambda: not bench.pod("away"))
        assert bench.running("old")
    await bench.until(lambda: bench.running("claims") and bench.running("plain"))


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


async def test_a_runtime_without_events_that_goes_away_ends_no_agent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_events, "POLL", 0.05)
    bench.cri.fail["GetContainerEvents"] = [("UNIMPLEMENTED", "unknown method")] * 100
    bench.put(manifest())
    await bench.until(bench.running)
    bench.cri.fail["ListPodSandbox"] = [("UNAVAILABLE", "connection refused")] * 3
    await bench.until(lambda: not bench.agent.health()["healthy"])
    await bench.until(lambda: bench.agent.health()["healthy"])


async def test_a_runtime_that_hangs_with_its_stream_open_is_not_healthy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_events, "RELIST", 0.05)
    monkeypatch.setattr(runtime_events, "PAUSES", (0.1,))
    bench.put(manifest())
    await bench.until(bench.running)
    bench.cri.fail["ListPodSandbox"] = [("DEADLINE_EXCEEDED", "no answer")] * 1000
    await bench.until(lambda: not bench.agent.health()["healthy"])
    assert "no answer" in bench.agent.health()["runtime"]["problem"]
    bench.cri.fail["ListPodSandbox"].clear()
    await bench.until(lambda: bench.agent.health()["healthy"])
    assert len(bench.cri.called("GetContainerEvents")) == 1, "it is the same stream"


async def test_a_lost_sandbox_is_followed_by_another(bench: Bench) -> None:
    bench.put(manifest())
    await bench.until(bench.running)
    next(iter(bench.cri.sandboxes.values())).state = api_pb2.SANDBOX_NOTREADY
    bench.cri.end("main", 255)
    await bench.until(lambda: bench.running() and len(bench.cri.called("RunPodSandbox")) == 2)
    attempts = [request.config.metadata.attempt for request in bench.cri.called("RunPodSandbox")]
    assert attempts == [0, 1]
    assert bench.cri.called("StopPodSandbox"), "what the lost one has is given back first"


async def test_a_failed_post_start_hook_kills_the_container(bench: Bench) -> None:
    bench.cri.exec_codes = {"post": 1}
    bench.put(
        manifest("web", container(lifecycle={"postStart": {"exec": {"command": ["post"]}}}), restartPolicy="Never")
    )
    await bench.until(lambda: "FailedPostStartHook" in bench.reasons())
    await bench.until(lambda: bench.cri.named("main")[0].state == EXITED)


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


async def test_a_log_that_the_pod_has_replaced_holds_up_nobody_and_tells_nothing(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("t stdout F of the host\n")
    places: dict[str, Callable[[Path], object]] = {
        "file": lambda log: log.write_text("t stdout F own\n"),
        "link": lambda log: log.symlink_to(tmp_path / "secret"),
        "pipe": os.mkfifo,
    }
    spoken = container(terminationMessagePolicy="FallbackToLogsOnError")
    for name, put in places.items():
        bench.put(manifest(name, spoken, restartPolicy="Never"), f"{name}.yaml")
        await bench.until(partial(bench.running, name))
        log = Path(bench.cri.named("main")[-1].log_path)
        log.parent.mkdir(parents=True)
        put(log)
        bench.cri.end("main", 1)
    await bench.until(lambda: all(bench.status(name)["phase"] == "Failed" for name in places))
    told = {name: bench.state(pod=name)["terminated"].get("message") for name in places}
    assert told == {"file": "own\n", "link": None, "pipe": None}
