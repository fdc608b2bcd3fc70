"""A crid of one's own: real daemon, real kernel, directories, bridge and subnet that nobody else has.

    async with running_crid() as crid:
        image = await crid.busybox(registry)    # crid.cri is a CriClient
        crid.kill()                             # SIGKILL, as a crash
        await crid.start()

Leaving the block stops and removes all pods, the daemon, and its network, also when the test failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from cri.client import CriClient, CriError
from cri.proto import api_pb2 as api
from runtime.linux.failpoints import VARIABLE as FAILPOINTS
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry

ROOT = Path(__file__).parents[2]
READY_SECONDS = 60.0
#: Descriptors that a crid has more some time after a pod: the channel to the shim that is forked in advance.
SPARE = 1
STOP_SECONDS = 30.0


#: A sandbox's id and its configuration, which CreateContainer wants again.
Sandbox = tuple[str, api.PodSandboxConfig]


class Crid:
    """One daemon and its directories. `cri` stays usable across restarts."""

    def __init__(self, base: Path, settings: str = "") -> None:
        """`settings` are lines of TOML for the top of its configuration."""
        self.base = base
        self.settings = settings
        self.root, self.state = base / "root", base / "state"
        self.socket = self.state / "cri.sock"
        token = secrets.token_hex(3)
        self.bridge = f"nat{token}"
        # 10.128/9, a /24 for each: far from the default network and, with this many, from each other.
        number = int(token, 16)
        self.subnet = f"10.{128 + (number >> 8) % 127}.{number % 256}.0/24"
        self.registries = base / "certs.d"
        self.log = base / "crid.log"
        self.config = base / "crid.toml"
        self.process: subprocess.Popen[bytes] | None = None
        self._write_config()
        self.cri = CriClient(self.socket)

    def _write_config(self) -> None:
        for name in ("net.d", "cni-bin", "certs.d"):
            (self.base / name).mkdir(exist_ok=True)
        self.config.write_text(
            f'{self.settings}\nroot = "{self.root}"\nstate = "{self.state}"\nlisten = "{self.socket}"\n'
            f'[network]\nconf_dir = "{self.base}/net.d"\nbin_dirs = ["{self.base}/cni-bin"]\n'
            f'cache_dir = "{self.root}/cni"\nbridge = "{self.bridge}"\nsubnet = "{self.subnet}"\n'
            f'[images]\nregistries = ["{self.registries}"]\n'
            f'[cgroup]\nparent = "/{self.bridge}"\n'
        )

    def trust_plain_http(self, host: str) -> None:
        """Let crid pull from a registry without TLS (containerd's hosts.toml)."""
        directory = self.registries / host
        directory.mkdir(exist_ok=True)
        (directory / "hosts.toml").write_text(f'server = "http://{host}"\n')

    async def busybox(self, registry: Registry) -> str:
        """Push busybox to a registry without TLS, and pull it from there: its reference."""
        self.trust_plain_http(registry.host)
        pushed = push_image(registry, "busybox:1", [busybox_rootfs()], {"Cmd": ["sh"]})
        await self.cri.PullImage(image={"image": pushed.ref})
        return pushed.ref

    async def start(self, failpoints: str = "", **environment: str) -> None:
        """Start it and wait until it answers and has undone what was left; raises AssertionError with its log."""
        self.spawn(failpoints, **environment)
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(CriError):
                if (await self.cri.Status(verbose=True, timeout=1)).info["tidied"] == "true":
                    return
            assert self.process is not None
            assert self.process.poll() is None, f"crid ended with {self.process.returncode}:\n{self.tail()}"
            await asyncio.sleep(0.02)
        raise AssertionError(f"crid does not answer within {READY_SECONDS:g} s:\n{self.tail()}")

    def spawn(self, failpoints: str = "", **environment: str) -> None:
        """Start it without waiting."""
        env = {**os.environ, FAILPOINTS: failpoints, **environment}
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "cri.server.main", "--config", str(self.config)]
            self.process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=log, stdout=log, start_new_session=True)

    async def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `crid reset` or another verb on its directories."""
        command = [sys.executable, "-m", "cri.server.main", *words, "--config", str(self.config)]
        return await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    def tail(self, size: int = 6000) -> str:
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    def kill(self) -> None:
        """SIGKILL and reap: a crash."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    async def died(self, seconds: float = 20.0) -> None:
        """Wait until it has ended by itself (a failpoint)."""
        assert self.process is not None
        await asyncio.to_thread(self.process.wait, seconds)

    async def terminate(self) -> int:
        """SIGTERM; its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, STOP_SECONDS)

    async def clean(self) -> None:
        """Remove all pods, containers and images, so that nothing of them is left in the kernel."""
        if self.process is None or self.process.poll() is not None:
            await self.start()
        for sandbox in (await self.cri.ListPodSandbox()).items:
            await self.cri.RemovePodSandbox(pod_sandbox_id=sandbox.id)

    async def close(self) -> None:
        try:
            await self.clean()
        finally:
            await self.cri.close()
            if self.process is not None and self.process.poll() is None:
                status = await self.terminate()
                assert status == 0, f"crid ended with {status}:\n{self.tail()}"
            assert not Path("/sys/class/net", self.bridge).exists(), f"the bridge is left:\n{self.tail()}"

    # What tests do all the time.

    def pod_config(self, name: str = "pod", **fields: Any) -> api.PodSandboxConfig:
        """A sandbox configuration with metadata of its own and a log directory."""
        token = secrets.token_hex(4)
        logs = self.base / "logs" / f"{name}-{token}"
        logs.mkdir(parents=True)
        metadata = api.PodSandboxMetadata(name=f"{name}-{token}", uid=f"uid-{token}", namespace="test")
        return api.PodSandboxConfig(
            **{"metadata": metadata, "hostname": name, "log_directory": str(logs), "linux": {}, **fields}
        )

    async def run_pod(self, config: api.PodSandboxConfig | None = None, **fields: Any) -> Sandbox:
        """Run a sandbox: (id, its configuration)."""
        config = config or self.pod_config(**fields)
        return (await self.cri.RunPodSandbox(config=config)).pod_sandbox_id, config

    async def create(self, sandbox: Sandbox, image: str, command: list[str], /, **fields: Any) -> str:
        """Create a container: its id."""
        sandbox_id, sandbox_config = sandbox
        name = fields.pop("name", "main")
        config = api.ContainerConfig(
            **{
                "metadata": {"name": name},
                "image": {"image": image},
                "command": command,
                "log_path": f"{name}.log",
                **fields,
            }
        )
        answer = await self.cri.CreateContainer(pod_sandbox_id=sandbox_id, config=config, sandbox_config=sandbox_config)
        return str(answer.container_id)

    async def run(self, sandbox: Sandbox, image: str, command: list[str], /, **fields: Any) -> str:
        """Create and start a container: its id."""
        id = await self.create(sandbox, image, command, **fields)
        await self.cri.StartContainer(container_id=id)
        return id

    async def status(self, container_id: str) -> api.ContainerStatus:
        return (await self.cri.ContainerStatus(container_id=container_id)).status

    async def pid_of(self, container_id: str) -> int:
        """The host's pid of a container's first process."""
        info = (await self.cri.ContainerStatus(container_id=container_id, verbose=True)).info
        return int(json.loads(info["info"])["pid"])

    async def ended(self, container_id: str, seconds: float = 20.0) -> api.ContainerStatus:
        """Wait until a container has exited: its status."""
        deadline = time.monotonic() + seconds
        while (status := await self.status(container_id)).state != api.CONTAINER_EXITED:
            assert time.monotonic() < deadline, (
                f"container still {api.ContainerState.Name(status.state)}\n{self.tail()}"
            )
            await asyncio.sleep(0.01)
        return status

    async def exec(self, container_id: str, *command: str, timeout: int = 20) -> tuple[int, str, str]:
        """ExecSync: exit code, stdout, stderr."""
        request = api.ExecSyncRequest(container_id=container_id, cmd=command, timeout=timeout)
        answer = await self.cri.ExecSync(request)
        return answer.exit_code, answer.stdout.decode(), answer.stderr.decode()

    async def exec_fails(self, container_id: str, *command: str) -> str:
        """ExecSync that cannot even begin: the error's words."""
        try:
            answer = await self.exec(container_id, *command)
        except CriError as error:
            return str(error)
        raise AssertionError(f"{command} ran: {answer}")

    def log_of(self, config: api.PodSandboxConfig, name: str = "main") -> str:
        """The messages of a container's log, without times and tags."""
        lines = Path(config.log_directory, f"{name}.log").read_text().splitlines()
        return "\n".join(line.split(" ", 3)[3] for line in lines)


@contextlib.asynccontextmanager
async def running_crid(environment: Mapping[str, str] | None = None, settings: str = "") -> AsyncIterator[Crid]:
    """A started crid; all that it made is gone when the block ends. `settings` is TOML for its configuration."""
    base = Path(tempfile.mkdtemp(dir="/tmp", prefix="na-"))
    crid = Crid(base, settings)
    try:
        await crid.start(**dict(environment or {}))
        yield crid
    except BaseException:
        print(crid.tail(), file=sys.stderr)
        raise
    finally:
        try:
            await crid.close()
        finally:
            shutil.rmtree(base)
