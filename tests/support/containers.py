"""Containers for tests of the runtime: a busybox root, an OCI config with the usual mounts, a runtime to run it."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from runtime.client import Event, Exited, Pod, Runtime
from runtime.linux.overlay import OverlayRootfs
from runtime.spec import ContainerSpec, ExecSpec, SandboxSpec
from tests.support.processes import eventually

BUSYBOX = "/bin/busybox"
_DEFAULTS = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
)
CAPABILITIES = [f"CAP_{name}" for name in f"{_DEFAULTS} AUDIT_WRITE".split()]
APPLETS = (
    "cat dd echo env false grep head hostname id kill ln ls mkdir mount mv nc ps readlink rm sed setsid sh sleep sort "
    "stat stty touch tr true tty umask usleep wc yes"
)
MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/interrupts", "/proc/timer_list", "/sys/firmware"]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def mount(destination: str, kind: str, *options: str, source: str = "") -> dict[str, Any]:
    """One entry of an OCI config's mounts."""
    return {"destination": destination, "type": kind, "source": source or kind, "options": list(options)}


def bind(source: str | Path, destination: str, *options: str) -> dict[str, Any]:
    """A bind mount entry."""
    return mount(destination, "bind", "rbind", *options, source=str(source))


def usual_mounts(shm: str) -> list[dict[str, Any]]:
    """What containers of every CRI runtime have."""
    return [
        mount("/proc", "proc", "nosuid", "noexec", "nodev"),
        mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
        bind(shm, "/dev/shm", "nosuid", "nodev", "noexec"),
    ]


def process(*args: str, **fields: Any) -> dict[str, Any]:
    """An OCI process document with the default capabilities."""
    sets = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
    user = {"uid": 0, "gid": 0}
    return {"args": list(args), "env": ["PATH=/bin"], "cwd": "/", "user": user, "capabilities": sets} | fields


def busybox_root(directory: Path) -> Path:
    """A root filesystem of busybox and its applets, as hard links."""
    (directory / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    for applet in APPLETS.split():
        os.link(directory / "bin/busybox", directory / "bin" / applet)
    return directory


class Node:
    """A Runtime with a state directory of its own; cleanup() ends everything that was started through it."""

    def __init__(self, directory: Path, state: Path) -> None:
        self.directory = directory
        self.state = state
        self.parent = f"/na-test-{secrets.token_hex(4)}"
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.exits: dict[str, Exited] = {}
        self.runtime = Runtime(state, on_event=self.on_event)
        self.pods: list[Pod] = []
        self.userns: dict[str, dict[str, list[list[int]]]] = {}
        self.root = busybox_root(directory / "root")
        self._number = 0

    def sandbox(self, **fields: Any) -> SandboxSpec:
        """A spec with a directory made for it."""
        self._number += 1
        id = f"sandbox{self._number}"
        directory = self.state / "sandboxes" / id
        directory.mkdir(parents=True, mode=0o700)
        return SandboxSpec(**{"id": id, "state_dir": str(directory), "cgroup_parent": f"{self.parent}/{id}"} | fields)

    async def pod(self, **fields: Any) -> Pod:
        """A running sandbox."""
        spec = self.sandbox(**fields)
        pod = await self.runtime.create_sandbox(spec)
        self.pods.append(pod)
        if spec.userns is not None:
            self.userns[pod.id] = spec.userns
        return pod

    def container(self, pod: Pod, *args: str, **fields: Any) -> ContainerSpec:
        """A container's spec; `process`, `mounts` (added to the usual ones), `linux` change its OCI config."""
        self._number += 1
        id = f"c{self._number}"
        work = self.directory / id
        for name in ("upper", "work"):
            (work / name).mkdir(parents=True)
        linux: dict[str, Any] = {
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY,
            "cgroupsPath": f"{self.parent}/{pod.id}/{id}",
        }
        if userns := self.userns.get(pod.id):
            for kind, lines in userns.items():
                linux[f"{kind}Mappings"] = [
                    {"containerID": first, "hostID": outside, "size": length} for first, outside, length in lines
                ]
        oci = {
            "ociVersion": "1.3.0",
            "process": process(*args, **fields.pop("process", {})),
            "mounts": fields.pop("all_mounts", None) or [*usual_mounts(pod.shm_path), *fields.pop("mounts", [])],
            "linux": linux | fields.pop("linux", {}),
        }
        rootfs = OverlayRootfs((str(self.root),), str(work / "upper"), str(work / "work"))
        known = {"id": id, "sandbox_id": pod.id, "oci": oci, "rootfs": rootfs, "log_path": str(work / "log")}
        return ContainerSpec(**known | fields)

    def on_event(self, event: Event) -> None:
        """Remember exits; everything can also be awaited in `events`."""
        if isinstance(event, Exited):
            self.exits[event.container_id] = event
        self.events.put_nowait(event)

    async def exited(self, spec: ContainerSpec) -> Exited:
        """How a container has ended, as soon as it has."""
        await eventually(lambda: spec.id in self.exits)
        return self.exits[spec.id]

    async def run(self, pod: Pod, *args: str, **fields: Any) -> tuple[int, str]:
        """Run a container to its end: its exit code and what it has written."""
        spec = self.container(pod, *args, **fields)
        await pod.start_container(spec)
        event = await self.exited(spec)
        return event.exit_code, logged(spec)

    async def sh(self, pod: Pod, script: str, **fields: Any) -> str:
        """The output of a shell script that must succeed."""
        code, output = await self.run(pod, "sh", "-ec", script, **fields)
        assert code == 0, output
        return output

    async def idle(self, pod: Pod, **fields: Any) -> ContainerSpec:
        """A running container that does nothing."""
        spec = self.container(pod, "sleep", "1000", **fields)
        await pod.start_container(spec)
        return spec

    async def cleanup(self) -> None:
        """End pods and zygote."""
        for pod in self.pods:
            await pod.stop()
        await self.runtime.close()


def logged(spec: ContainerSpec) -> str:
    """The content of a container's log, without the CRI format around it."""
    lines = Path(spec.log_path).read_bytes().split(b"\n")[:-1]
    return b"".join(content(line) for line in lines).decode(errors="replace")


def content(line: bytes) -> bytes:
    """One log line's content, with its newline when it was a whole line."""
    _, _, tag, text = line.split(b" ", 3)
    return text + (b"\n" if tag == b"F" else b"")


async def exec_output(pod: Pod, spec: ContainerSpec, *args: str, **fields: Any) -> tuple[int, str]:
    """Run a command in a container: exit code, and stdout with stderr."""
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            started = await pod.exec(
                spec.id, ExecSpec(id=secrets.token_hex(4), args=list(args), **fields), -1, write, write
            )
        finally:
            os.close(write)
        output = await asyncio.to_thread(_read_all, read)
        return await started.wait(), output
    finally:
        os.close(read)


def _read_all(fd: int) -> str:
    chunks = []
    while chunk := os.read(fd, 65536):
        chunks.append(chunk)
    return b"".join(chunks).decode(errors="replace")
