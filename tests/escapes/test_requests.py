"""Words in requests and images that steered other runtimes: sysctls, annotations, labels, sizes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.escapes.conftest import Forge
from tests.support.attacker import namespaces, security
from tests.support.crid import Crid, Sandbox

# What containerd, CRI-O, runc, crun, systemd, NRI and CDI obey in annotations and labels, with the words of attacks.
POWERFUL = {
    "io.kubernetes.cri.container-log": "binary:///bin/sh?-c=touch%20{canary}/ran",
    "containerd.io/restart.loguri": "binary:///bin/touch?{canary}/ran=",
    "io.containerd.runc.v2.group": "../../..",
    "io.containerd.image.config.stop-signal": "SIGKILL",
    "io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel": "true",
    "io.kubernetes.cri-o.userns-mode": "auto:size=65536",
    "io.kubernetes.cri-o.Devices": "/dev/mem:/dev/mem:rwm",
    "io.kubernetes.cri-o.UnifiedCgroup": "memory.max=max",
    "io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw": "true",
    "io.kubernetes.cri-o.umask": "0000",
    "io.kubernetes.cri-o.seccompNotifierAction": "stop",
    "cpu-load-balancing.crio.io": "disable",
    "org.systemd.property.ExecStopPost": "[('/bin/touch', ['touch', '{canary}/ran'], false)]",
    "org.systemd.property.DeviceAllow": "[('/dev/mem', 'rwm')]",
    "run.oci.hooks.prestart": "/bin/touch {canary}/ran",
    "run.oci.mount_context_type": "rootcontext",
    "run.oci.keep_original_groups": "1",
    "run.oci.handler": "krun",
    "module.wasm.image/variant": "compat-smart",
    "io.katacontainers.config.hypervisor.path": "/bin/touch",
    "cdi.k8s.io/any": "vendor.example/device=all",
    "org.criu.config": "{canary}/file",
    "security.alpha.kubernetes.io/sysctls": "kernel.core_pattern=|{canary}/file",
    "container.seccomp.security.alpha.kubernetes.io/main": "unconfined",
    "container.apparmor.security.beta.kubernetes.io/main": "unconfined",
}

#: Of a container's own annotations these are the interface to CDI; of anything else they are notes like the others.
OBEYED = "cdi.k8s.io/"


def powerful(canary: Path) -> dict[str, str]:
    return {name: value.replace("{canary}", str(canary)) for name, value in POWERFUL.items()}


async def facts(crid: Crid, pod: Sandbox, id: str) -> tuple[str, str]:
    """What of a container an annotation has changed elsewhere, as the kernel has it; names of its own left out."""
    script = (
        "umask; grep -E '^(Cap|Seccomp|NoNew|Groups)' /proc/self/status; ls /dev; cut -d' ' -f5- /proc/self/mountinfo"
    )
    inside = (await crid.exec(id, "sh", "-c", f"{script} | sed 's/lowerdir.*//'"))[1]
    cgroups = Path(f"/proc/{await crid.pid_of(id)}/cgroup").read_text()
    return inside.replace(pod[0], ""), cgroups.replace(pod[1].metadata.uid, "").replace(id, "")


async def test_annotations_and_labels_are_inert(crid: Crid, forge: Forge, canary: Path) -> None:
    """O4, C14: CVE-2023-6476, CVE-2024-3154, CVE-2026-53488. Of a pod, of a container, and of an image."""
    words = powerful(canary)
    plain, marked = await forge.image(), await forge.image(Labels=words)
    quiet = await crid.run_pod(hostname="same")
    one = await crid.run(quiet, plain, ["sleep", "100"])
    loud = await crid.run_pod(hostname="same", annotations=words, labels=words)
    notes = {name: value for name, value in words.items() if not name.startswith(OBEYED)}
    two = await crid.run(loud, marked, ["sleep", "100"], annotations=notes, labels=words)
    assert await facts(crid, quiet, one) == await facts(crid, loud, two)
    status = await crid.status(two)
    assert (dict(status.labels), dict(status.annotations)) == (words, notes)
    await crid.cri.RemoveContainer(container_id=two)
    assert (await crid.status(one)).labels == {}, "an image's labels are not its containers'"


async def test_labels_of_an_image_stay_the_images(crid: Crid, forge: Forge, canary: Path) -> None:
    """C14: nothing of an image comes into the labels of a container."""
    image = await forge.image(Labels=powerful(canary))
    id = await crid.run(await crid.run_pod(), image, ["sleep", "100"])
    status = await crid.status(id)
    assert (dict(status.labels), dict(status.annotations)) == ({}, {})


@pytest.mark.parametrize("value", ["1+kernel.core_pattern=|/bin/x", "1,kernel.shmmax=1", "1\nkernel.x=1", "a=b", "1;2"])
async def test_values_of_sysctls_set_nothing_else(crid: Crid, value: str) -> None:
    """O1, CVE-2022-0811."""
    with pytest.raises(CriError, match="no namespaced sysctl takes"):
        await crid.run_pod(linux=api.LinuxPodSandboxConfig(sysctls={"kernel.shm_rmid_forced": value}))


@pytest.mark.parametrize(
    "name",
    [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "kernel.shm../core_pattern",
        "net.ipv4/../../kernel/core_pattern",
        "kernel.shmmax/../core_pattern",
        "fs.mqueue/../suid_dumpable",
        "vm.overcommit_memory",
        "kernel.sysrq",
        "",
    ],
)
async def test_names_of_sysctls_are_the_pods_own(crid: Crid, name: str) -> None:
    """O1, R14: the host's are refused by name, and no name climbs to them."""
    with pytest.raises(CriError) as refused:
        await crid.run_pod(linux=api.LinuxPodSandboxConfig(sysctls={name: "1"}))
    assert refused.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [("network", "net.ipv4.ip_unprivileged_port_start", "0"), ("ipc", "kernel.shmmax", "1")],
)
async def test_a_pod_in_the_hosts_namespace_sets_nothing_there(crid: Crid, kind: str, name: str, value: str) -> None:
    """O2, CVE-2022-0532."""
    linux = namespaces(**{kind: api.NODE})
    linux.sysctls[name] = value
    with pytest.raises(CriError, match="would change the host"):
        await crid.run_pod(linux=linux)


async def test_more_mounts_than_a_16_bit_length_holds(crid: Crid, hostile: str, canary: Path, tmp_path: Path) -> None:
    """R6, CVE-2021-43784: what is too long is refused, or is exactly what was asked for; never other words."""
    pod = await crid.run_pod()
    sources = [tmp_path / f"{number:03d}-{'x' * 200}" for number in range(200)]
    for source in sources:
        source.mkdir()
        (source / source.name[:3]).touch()
    mounts = [api.Mount(host_path=str(source), container_path=f"/v/{source.name[:3]}") for source in sources]
    assert sum(len(mount.host_path) for mount in mounts) > 1 << 15
    id = await crid.run(pod, hostile, ["sleep", "100"], mounts=mounts)
    assert (await crid.exec(id, "sh", "-c", "for d in /v/*; do [ -e $d/${d#/v/} ] || echo $d; done"))[1] == ""


async def test_words_that_are_too_long(crid: Crid, hostile: str) -> None:
    """R6: arguments, environment, hostnames, annotations."""
    pod = await crid.run_pod()
    for fields in (
        {"args": ["x" * (2 << 20)]},
        {"envs": [api.KeyValue(key="X", value=b"y" * (2 << 20))]},
        {"annotations": {"a": "b" * (5 << 20)}},
        {"mounts": [api.Mount(host_path="/tmp", container_path="/" + "a/" * 3000)]},
        {"working_dir": "/" + "w" * 5000},
    ):
        with pytest.raises(CriError):
            await crid.run(pod, hostile, ["true"], name="long", **fields)
        for container in (await crid.cri.ListContainers()).containers:
            await crid.cri.RemoveContainer(container_id=container.id)


MANAGEMENT = ("procs", "threads", "kill", "freeze", "type", "subtree_control")


@pytest.fixture
def bystander() -> Iterator[int]:
    """A process of the host."""
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process.pid
        process.kill()


async def test_limits_by_file_name_take_no_process_of_the_host(crid: Crid, hostile: str, bystander: int) -> None:
    """The files by which a cgroup is managed are no limits: cgroup.procs takes any process of the host into the
    container's cgroup, and there it is killed with the container.
    """
    pod = await crid.run_pod()
    id = await crid.run(pod, hostile, ["sleep", "100"])
    before = Path(f"/proc/{bystander}/cgroup").read_text()
    for key in MANAGEMENT:
        limits = api.LinuxContainerResources(unified={f"cgroup.{key}": str(bystander)})
        with pytest.raises(CriError, match="is no limit"):
            await crid.create(pod, hostile, ["true"], linux=api.LinuxContainerConfig(resources=limits), name=key)
        with pytest.raises(CriError, match="is no limit"):
            await crid.cri.UpdateContainerResources(container_id=id, linux=limits)
    assert Path(f"/proc/{bystander}/cgroup").read_text() == before


async def test_hooks_come_from_nowhere(crid: Crid, hostile: str, canary: Path) -> None:
    """V1: CVE-2024-0132, CVE-2025-23266. No request and no image can name a program that runs on the host."""
    environment = [api.KeyValue(key=name, value=b"/evil.so") for name in ("LD_PRELOAD", "LD_AUDIT", "PYTHONSTARTUP")]
    id = await crid.run(await crid.run_pod(), hostile, ["sleep", "100"], envs=environment, linux=security())
    pid = await crid.pid_of(id)
    shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    for process in (shim, crid.process.pid if crid.process else shim):
        assert b"evil.so" not in Path(f"/proc/{process}/environ").read_bytes()
