"""NRI plugins on a real crid: written in Go on the published stub package, connected over the socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from cri.proto import nri_pb2 as nri
from cri.server.nri import mux, ttrpc
from tests.support.crid import Crid
from tests.support.nri import NriPlugin
from tests.support.nri_peer import NriPeer

SLEEP = ["sleep", "1000"]


async def test_a_plugin_sees_every_step_in_its_order(crid: Crid, busybox: str) -> None:
    async with NriPlugin(crid, "10") as plugin:
        pod = await crid.run_pod(annotations={"of": "pod"})
        container = await crid.run(pod, busybox, SLEEP, labels={"of": "container"}, envs=[{"key": "A", "value": b"1"}])
        await crid.cri.UpdateContainerResources(container_id=container, linux={"cpu_shares": 512})
        await crid.cri.UpdatePodSandboxResources(pod_sandbox_id=pod[0], resources={"cpu_shares": 100})
        await crid.cri.StopContainer(container_id=container)
        await crid.cri.RemoveContainer(container_id=container)
        await crid.cri.StopPodSandbox(pod_sandbox_id=pod[0])
        await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
        assert plugin.told(pod[0]) == [
            "RunPodSandbox",
            "CreateContainer",
            "PostCreateContainer",
            "StartContainer",
            "PostStartContainer",
            "UpdateContainer",
            "PostUpdateContainer",
            "UpdatePodSandbox",
            "PostUpdatePodSandbox",
            "StopContainer",
            "RemoveContainer",
            "StopPodSandbox",
            "RemovePodSandbox",
        ]
        seen = plugin.last("PostStartContainer")
        assert seen["pod"]["name"] == pod[1].metadata.name and seen["pod"]["annotations"] == {"of": "pod"}
        assert seen["pod"]["ips"] and seen["pod"]["linux"]["namespaces"][0]["type"] == "network"
        assert seen["container"]["args"] == SLEEP and "A=1" in seen["container"]["env"]
        assert seen["container"]["state"] == "CONTAINER_RUNNING" and seen["container"]["labels"] == {"of": "container"}
        assert seen["container"]["pid"] > 1
        assert plugin.last("PostUpdateContainer")["container"]["linux"]["resources"]["cpu"]["shares"] == {
            "value": "512"
        }
        assert plugin.last("RemoveContainer")["container"]["state"] == "CONTAINER_STOPPED"


async def test_an_exit_by_itself_is_told_too_and_only_once(crid: Crid, busybox: str) -> None:
    async with NriPlugin(crid, "10") as plugin:
        pod = await crid.run_pod()
        container = await crid.run(pod, busybox, ["sh", "-c", "exit 7"])
        await crid.ended(container)
        await plugin.until("StopContainer")
        assert plugin.last("StopContainer")["container"]["exitCode"] == 7
        await crid.cri.StopContainer(container_id=container)
        await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
        assert plugin.told(container).count("StopContainer") == 1
        assert plugin.told(pod[0])[-3:] == ["StopPodSandbox", "RemoveContainer", "RemovePodSandbox"]


async def test_a_plugin_that_comes_later_is_told_what_there_is(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    running = await crid.run(pod, busybox, SLEEP, name="running")
    created = await crid.create(pod, busybox, SLEEP, name="created")
    await crid.ended(await crid.run(pod, busybox, ["true"], name="ended"))
    async with NriPlugin(crid, "10") as plugin:
        told = plugin.last("Synchronize")
        assert told["pods"] == [pod[0]] and sorted(told["containers"]) == sorted([running, created])
        await crid.cri.RemoveContainer(container_id=created)
        assert plugin.told(created) == ["StopContainer", "RemoveContainer"]


ADJUST: dict[str, Any] = {
    "annotations": {"note": "from a plugin"},
    "args": ["sh", "-c", "echo from-plugin; exec sleep 1000"],
    "env": [{"key": "NEW", "value": "1"}, {"key": "-FROM"}, {"key": "B", "value": "changed"}],
    "rlimits": [{"type": "RLIMIT_NOFILE", "hard": "777", "soft": "555"}],
    "mounts": [
        {"destination": "/from-plugin", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=700"]},
        {"destination": "-/etc/hosts"},
    ],
    "linux": {
        "devices": [{"path": "/dev/plugin", "type": "c", "major": "1", "minor": "7", "fileMode": {"value": 384}}],
        "resources": {
            "cpu": {"shares": {"value": "333"}, "cpus": "0"},
            "memory": {"limit": {"value": str(64 << 20)}},
            "pids": {"limit": "99"},
        },
        "oomScoreAdj": {"value": "987"},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 7},
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
        "sysctl": {"net.ipv4.ip_unprivileged_port_start": "123"},
        "seccompPolicy": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": {"value": 95}}],
        },
        "namespaces": [{"type": "uts"}],
    },
}


async def test_what_a_plugin_adjusts_is_what_the_kernel_does(crid: Crid, busybox: str) -> None:
    async with NriPlugin(crid, "10") as plugin:
        own_pids = {"security_context": {"namespace_options": {"pid": api.CONTAINER}}}
        pod = await crid.run_pod(linux=own_pids)
        plugin.script(adjust={"main": ADJUST})
        container = await crid.run(pod, busybox, ["false"], envs=[{"key": "B", "value": b"asked"}], linux=own_pids)
        seen = plugin.last("PostStartContainer")["container"]

        async def inside(command: str) -> str:
            code, out, err = await crid.exec(container, "sh", "-c", command)
            assert code == 0, err
            return out.strip()

        environment = (await inside("tr '\\0' '\\n' </proc/1/environ")).splitlines()
        assert {"NEW=1", "B=changed"} <= set(environment) and not any(line.startswith("FROM=") for line in environment)
        assert crid.log_of(pod[1]) == "from-plugin"
        assert "555 777" in " ".join((await inside("grep 'open files' /proc/1/limits")).split())
        assert (await inside("df /from-plugin | tail -1")).split()[1] == "64"
        assert await inside("stat -c %a /from-plugin") == "700"
        mounts = await inside("cat /proc/self/mountinfo")
        assert " /etc/hosts " not in mounts and " /etc/resolv.conf " in mounts
        assert await inside("stat -c '%t:%T %a' /dev/plugin") == "1:7 600"
        assert "No space left" in await inside("(echo x >/dev/plugin) 2>&1 || true")  # that one is /dev/full
        assert await inside("cat /proc/1/oom_score_adj") == "987"
        assert await inside("cat /proc/sys/net/ipv4/ip_unprivileged_port_start") == "123"
        assert (await inside("awk '{print $19, $41}' /proc/1/stat")).split() == ["5", "3"]  # nice, SCHED_BATCH
        assert "prio 7" in await inside("ionice -p 1")
        assert "not supported" in await inside("mkdir /tmp/x 2>&1 || true")
        assert await inside("readlink /proc/1/ns/uts") != await _uts_of_pod(crid, pod, busybox)
        resources = (await crid.status(container)).resources.linux
        assert (resources.cpu_shares, resources.memory_limit_in_bytes, resources.cpuset_cpus) == (333, 64 << 20, "0")
        assert seen["annotations"]["note"] == "from a plugin"
        assert seen["linux"]["resources"]["pids"] == {"limit": "99"}


async def _uts_of_pod(crid: Crid, pod: tuple[str, api.PodSandboxConfig], image: str) -> str:
    other = await crid.run(pod, image, SLEEP, name="other")
    return (await crid.exec(other, "readlink", "/proc/1/ns/uts"))[1].strip()


@pytest.mark.parametrize(
    ("adjust", "field", "why"),
    [
        ({"CDIDevices": [{"name": "vendor.com/none=1"}]}, "CdiDevices", "vendor.com/none=1"),
        ({"linux": {"resources": {"blockioClass": {"value": "gold"}}}}, "BlockioClass", "gold"),
        ({"linux": {"resources": {"rdtClass": {"value": "gold"}}}}, "RdtClass", "RDT"),
        ({"linux": {"rdt": {"closId": {"value": "x"}}}}, "RdtClosID", "RDT"),
        ({"linux": {"netDevices": {"eth7": {"name": "x"}}}}, "LinuxNetDevices", "eth7"),
        ({"linux": {"namespaces": [{"type": "pid"}]}}, "Namespace", "pid"),
        ({"linux": {"sysctl": {"kernel.panic": "1"}}}, "Sysctl", "kernel.panic"),
        ({"linux": {"cgroupsPath": "/nowhere/x"}}, "CgroupsPath", "/nowhere/x"),
        ({"linux": {"scheduler": {"policy": "SCHED_ISO"}}}, "LinuxSched", "SCHED_ISO"),
        ({"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "x"}}}, "MemoryPolicy", "'x'"),
        ({"linux": {"seccompPolicy": {"defaultAction": "BAD"}}}, "SeccompPolicy", "BAD"),
        ({"linux": {"oomScoreAdj": {"value": "5000"}}}, "OomScoreAdj", "5000"),
        ({"linux": {"resources": {"memory": {"kernel": {"value": "1"}}}}}, "MemKernelLimit", "kernel"),
        ({"linux": {"devices": [{"path": "relative", "type": "c"}]}}, "Devices", "relative"),
        ({"mounts": [{"destination": "/x", "type": "bind", "source": "/not/there"}]}, "Mounts", "/not/there"),
        ({"mounts": [{"destination": "/x", "type": "nfs", "source": "/"}]}, "Mounts", "nfs"),
        ({"rlimits": [{"type": "RLIMIT_BAD", "hard": "1", "soft": "1"}]}, "Rlimits", "RLIMIT_BAD"),
        ({"env": [{"key": "A=B", "value": "1"}]}, "Env", "A=B"),
        ({"hooks": {"prestart": [{"path": "/bin/true"}]}}, "OciHooks", "external runtime"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_plugin_and_field(
    crid: Crid, busybox: str, adjust: dict[str, Any], field: str, why: str
) -> None:
    async with NriPlugin(crid, "42") as plugin:
        pod = await crid.run_pod()
        plugin.script(adjust={"main": adjust})
        with pytest.raises(CriError) as refused:
            await crid.create(pod, busybox, SLEEP)
        words = refused.value.details
        assert "42-test" in words and field in words and why in words, words
        assert plugin.told(pod[0])[-3:] == ["CreateContainer", "StopContainer", "RemoveContainer"]
        assert not (await crid.cri.ListContainers()).containers


async def test_a_privileged_container_is_shown_unconfined_whatever_it_names(crid: Crid, busybox: str) -> None:
    async with NriPlugin(crid, "10") as plugin:
        pod = await crid.run_pod(linux={"security_context": {"privileged": True}})
        for attempt, profile in enumerate(({"profile_type": 7}, {"profile_type": 0})):
            context = {"privileged": True, "seccomp": profile}
            metadata = {"name": "main", "attempt": attempt}
            await crid.create(pod, busybox, SLEEP, metadata=metadata, linux={"security_context": context})
            shown = plugin.last("CreateContainer")["container"]["linux"]["seccompProfile"]
            assert shown == {"profileType": "UNCONFINED"}


async def test_plugins_go_by_their_index_and_may_not_disagree(crid: Crid, busybox: str) -> None:
    async with NriPlugin(crid, "20") as second, NriPlugin(crid, "10") as first:
        pod = await crid.run_pod()
        first.script(adjust={"main": {"env": [{"key": "A", "value": "first"}]}})
        second.script(adjust={"main": {"env": [{"key": "B", "value": "second"}]}})
        await crid.create(pod, busybox, SLEEP)
        assert "A=first" in second.last("CreateContainer")["container"]["env"]
        second.script(adjust={"main": {"env": [{"key": "A", "value": "second"}]}})
        with pytest.raises(CriError, match="10-test and 20-test both set Env A"):
            await crid.create(pod, busybox, SLEEP, metadata={"name": "main", "attempt": 1})
        second.script(adjust={"main": {"env": [{"key": "-A"}, {"key": "A", "value": "second"}]}})
        container = await crid.run(pod, busybox, SLEEP, metadata={"name": "main", "attempt": 2})
        assert (await crid.exec(container, "sh", "-c", "echo $A"))[1] == "second\n"


async def test_a_plugin_can_refuse_a_pod_and_a_start(crid: Crid, busybox: str) -> None:
    async with NriPlugin(crid, "10") as plugin:
        plugin.script(fail={"RunPodSandbox": "not today"})
        with pytest.raises(CriError, match=r"NRI plugin 10-test refuses RunPodSandbox: .*not today"):
            await crid.run_pod()
        assert [each["event"] for each in plugin.events()][-3:] == [
            "RunPodSandbox",
            "StopPodSandbox",
            "RemovePodSandbox",
        ]
        plugin.script(fail={"StartContainer": "nor now", "StopPodSandbox": "never"})
        pod = await crid.run_pod()
        container = await crid.create(pod, busybox, SLEEP)
        with pytest.raises(CriError, match=r"10-test refuses StartContainer: .*nor now"):
            await crid.cri.StartContainer(container_id=container)
        assert (await crid.status(container)).reason == "StartError"
        await plugin.until("StopContainer")
        await crid.cri.StopPodSandbox(pod_sandbox_id=pod[0])  # it was only told


async def test_a_validator_can_veto(crid: Crid, busybox: str) -> None:
    async with NriPlugin(crid, "50") as adjuster, NriPlugin(crid, "10", "-validate") as validator:
        pod = await crid.run_pod()
        adjuster.script(adjust={"main": {"env": [{"key": "A", "value": "1"}]}})
        validator.script(reject="no A here")
        with pytest.raises(CriError, match="NRI validator 10-test rejects it: no A here"):
            await crid.create(pod, busybox, SLEEP)
        request = validator.last("ValidateContainerAdjustment")["request"]
        assert request["adjust"]["env"] == [{"key": "A", "value": "1"}]
        [owners] = request["owners"]["owners"].values()
        assert owners["compound"]["6"]["owners"] == {"A": "50-test"}
        assert [each["index"] for each in request["plugins"]] == ["10", "50"]


async def test_updates_of_other_containers_reach_their_cgroups(crid: Crid, busybox: str) -> None:
    async with NriPlugin(crid, "10") as plugin:
        pod = await crid.run_pod()
        first = await crid.run(pod, busybox, SLEEP, name="first")

        def limits(shares: int) -> dict[str, Any]:
            return {"containerId": first, "linux": {"resources": {"cpu": {"shares": {"value": str(shares)}}}}}

        async def shares() -> int:
            return int((await crid.status(first)).resources.linux.cpu_shares)

        plugin.script(update={"CreateContainer": [limits(200)], "StopContainer": [limits(400)]})
        second = await crid.run(pod, busybox, SLEEP, name="second")
        assert await shares() == 200
        await crid.cri.StopContainer(container_id=second)
        assert await shares() == 400
        impossible = {"containerId": first, "linux": {"resources": {"rdtClass": {"value": "gold"}}}}
        gone = {"containerId": "0" * 64}
        plugin.script(update={"Unsolicited": [limits(300), impossible, {**impossible, "ignoreFailure": True}, gone]})
        answer = await plugin.update()
        assert answer["failed"] == [first] and answer["error"] == "<nil>"
        assert await shares() == 300
        seen = await _cpu_shares(crid, first)
        assert seen in (300, 11)  # cpu.shares, or the cpu.weight that is its like


async def test_an_update_that_the_kernel_takes_in_part_is_taken_back(crid: Crid, busybox: str) -> None:
    """Also of what only plugins can ask for, and nobody had asked for before."""
    async with NriPlugin(crid, "10") as plugin:
        container = await crid.run(await crid.run_pod(), busybox, SLEEP)
        files = "/sys/fs/cgroup/memory/memory.soft_limit_in_bytes /sys/fs/cgroup/memory.low"

        async def reservation() -> str:
            return (await crid.exec(container, "sh", "-c", f"cat {files} 2>/dev/null; :"))[1]

        before = await reservation()
        limits = {"memory": {"reservation": {"value": str(16 << 20)}}}
        no_such_pages = {"hugepageLimits": [{"pageSize": "3MB", "limit": "1"}]}
        for more, failed in ((no_such_pages, [container]), ({}, [])):
            assert await reservation() == before != ""
            update = {"containerId": container, "linux": {"resources": {**limits, **more}}}
            plugin.script(update={"Unsolicited": [update]})
            assert (await plugin.update())["failed"] == failed
        assert await reservation() == f"{16 << 20}\n"


async def _cpu_shares(crid: Crid, container: str) -> int:
    command = "cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || cat /sys/fs/cgroup/cpu.weight"
    return int((await crid.exec(container, "sh", "-c", command))[1])


async def test_an_update_of_limits_can_be_changed_on_its_way(crid: Crid, busybox: str) -> None:
    async with NriPlugin(crid, "10") as plugin:
        pod = await crid.run_pod()
        container = await crid.run(pod, busybox, SLEEP)
        update = {"containerId": container, "linux": {"resources": {"cpu": {"shares": {"value": "600"}}}}}
        plugin.script(update={"UpdateContainer": [update]})
        await crid.cri.UpdateContainerResources(
            container_id=container, linux={"cpu_shares": 512, "memory_limit_in_bytes": 128 << 20}
        )
        resources = (await crid.status(container)).resources.linux
        assert (resources.cpu_shares, resources.memory_limit_in_bytes) == (600, 128 << 20)
        assert await _cpu_shares(crid, container) in (600, 23)


async def test_events_while_many_plugins_come_and_pods_too(crid: Crid, busybox: str) -> None:
    """Nothing twice, nothing never: a plugin that connects while pods are made hears of each exactly once."""

    async def pods() -> list[str]:
        return [(await crid.run_pod())[0] for _ in range(6)]

    making = asyncio.create_task(pods())
    async with NriPlugin(crid, "10") as plugin:
        made = await making
        synchronized = plugin.last("Synchronize")["pods"]
        told = [each["pod"]["id"] for each in plugin.events() if each["event"] == "RunPodSandbox"]
        assert sorted([*synchronized, *told]) == sorted(made)


async def test_the_socket_is_for_root_only(daemon: Crid) -> None:
    assert Path(daemon.state, "nri.sock").stat().st_mode & 0o777 == 0o600


async def test_a_plugin_of_old_is_told_by_state_changes(crid: Crid) -> None:
    async with NriPeer(crid.state / "nri.sock") as peer:
        await peer.join(1 << nri.RUN_POD_SANDBOX - 1)
        making = asyncio.create_task(crid.run_pod())
        connection, frame = await peer.frame()
        await peer.send(mux.wrap(connection, ttrpc.response(frame.stream, b"", ttrpc.UNIMPLEMENTED, "no")))
        change = await peer.answer(nri.Empty())
        assert change.method == "StateChange"
        assert nri.StateChangeEvent.FromString(change.payload).event == nri.RUN_POD_SANDBOX
        await making
