"""A street of pods, one of which hangs: crid, an image with everything that attacks need, and a stuck container.

All tests of bad containers and bad clients run while that container hangs in the kernel, in a file system that does not
answer: what is shared between pods and could wait for it, does. Its stop is under way all the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from cri.proto import api_pb2 as api
from tests.support.attacker import hostile_rootfs, said
from tests.support.crid import Crid, Sandbox, running_crid
from tests.support.images import push_image
from tests.support.registry import Registry
from tests.support.stuck_filesystem import StuckFilesystem, stuck_filesystem


@dataclass
class Neighbourhood:
    """A crid, an image with everything that the tests need, and the container that hangs."""

    crid: Crid
    image: str
    stuck: StuckFilesystem
    stuck_pod: Sandbox
    stuck_id: str
    stopping: asyncio.Task[object]

    async def serves(self) -> None:
        """A pod of somebody else lives and dies as ever."""
        pod = await self.crid.run_pod(name="witness")
        id = await self.crid.run(pod, self.image, ["sleep", "100"])
        assert (await self.crid.exec(id, "echo", "well"))[1] == "well\n"
        await self.crid.cri.StopContainer(api.StopContainerRequest(container_id=id, timeout=0), timeout=15)
        await self.crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])

    async def clean(self) -> None:
        for sandbox in (await self.crid.cri.ListPodSandbox()).items:
            if sandbox.id != self.stuck_pod[0]:
                await self.crid.cri.RemovePodSandbox(pod_sandbox_id=sandbox.id)

    def memory(self, *more: int) -> int:
        """Resident bytes of crid and of the processes `more`."""
        assert self.crid.process is not None
        return sum(resident(pid) for pid in (self.crid.process.pid, *more))

    async def shim_of(self, id: str) -> int:
        stat = Path(f"/proc/{await self.crid.pid_of(id)}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[1])


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@contextlib.asynccontextmanager
async def neighbours(registry: Registry, place: Path) -> AsyncIterator[Neighbourhood]:
    """The street, with a stuck file system mounted at `place`, which is made."""
    pushed = push_image(registry, "neighbours:1", [hostile_rootfs()], {"Cmd": ["sh"]})
    place.mkdir()
    async with running_crid() as crid:
        crid.trust_plain_http(registry.host)
        await crid.cri.PullImage(image={"image": pushed.ref})
        with stuck_filesystem(place) as stuck:
            pod = await crid.run_pod(name="stuck")
            mounts = [api.Mount(host_path=str(place), container_path="/stuck")]
            id = await crid.run(pod, pushed.ref, ["attacker", "stuck", "/stuck/file"], mounts=mounts)
            await said(crid, pod, "ready")
            async with asyncio.timeout(10):
                while not stuck.reads:  # noqa: ASYNC110 - counted by a thread
                    await asyncio.sleep(0.01)
            request = api.StopContainerRequest(container_id=id, timeout=1)
            stopping = asyncio.ensure_future(crid.cri.StopContainer(request, timeout=120))
            yield Neighbourhood(crid, pushed.ref, stuck, pod, id, stopping)
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
