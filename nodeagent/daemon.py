"""`nodeagent run`: the agent as a process. One per state directory; SIGTERM and SIGINT end it, and pods go on."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
import sys
from collections.abc import Iterator, Sequence

from cri.client import CriClient, CriError
from cri.proto import api_pb2
from nodeagent.agent import Agent
from nodeagent.config import Config, parse_arguments
from nodeagent.node import Node, this_node
from runtime.linux.database import DatabaseError
from runtime.linux.exclusive import locked
from runtime.linux.journal import log_to_stderr
from runtime.linux.notify import notify

log = logging.getLogger("nodeagent")

#: Seconds that the agent waits at its start for a runtime; then it ends, for whoever started it to see.
PATIENCE = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    log_to_stderr()
    config = parse_arguments(argv)
    try:
        with exclusive(config):
            return asyncio.run(_run(config))
    except (OSError, CriError, DatabaseError) as error:
        print(f"nodeagent: {error}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def exclusive(config: Config) -> Iterator[None]:
    """Make the agent's directories and hold them. Raises Taken, OSError."""
    for path in (config.root, config.state):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    config.manifests.mkdir(mode=0o755, parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        for path in (config.root, config.state):
            held.enter_context(locked(path / "agent.lock", "give this agent --root and --state"))
        yield


async def _run(config: Config) -> int:
    async with CriClient(config.cri) as cri:
        node = await meet_runtime(config, cri)
        agent = asyncio.create_task(Agent(config, node, cri).run(lambda: notify("READY=1")), name="agent")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.cancel)
        log.info("node %s: manifests in %s, status on %s", node.name, config.manifests, config.socket)
        try:
            await agent
        except ExceptionGroup as failed:
            # One of the agent's parts cannot go on, such as for want of inotify instances; the others were stopped.
            raise failed.exceptions[0] from failed
        except asyncio.CancelledError:
            notify("STOPPING=1")
            log.info("the agent stops; pods go on")
    return 0


async def meet_runtime(config: Config, cri: CriClient) -> Node:
    """The node, with what its runtime says of itself. Raises CriError when it does not answer for PATIENCE seconds."""
    version = await cri.Version(timeout=PATIENCE, wait_for_ready=True)
    log.info("runtime: %s %s on %s", version.runtime_name, version.runtime_version, config.cri)
    status = await cri.Status()
    default = next((each for each in status.runtime_handlers if not each.name), None)
    node = dataclasses.replace(
        this_node(config.node_name),
        kubelet_root=config.kubelet_root,
        log_root=config.log_root,
        cgroup_root=config.cgroup_root,
        recursive_read_only=bool(default and default.features.recursive_read_only_mounts),
    )
    try:
        driver = (await cri.RuntimeConfig()).linux.cgroup_driver
    except CriError as error:
        if error.code != "UNIMPLEMENTED":
            raise
        driver = api_pb2.CGROUPFS
    return dataclasses.replace(node, systemd_cgroups=driver == api_pb2.SYSTEMD)


if __name__ == "__main__":
    raise SystemExit(main())
