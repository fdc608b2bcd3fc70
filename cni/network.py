"""The pods' network, as crid sees it: attach a pod, detach it, ask whether all is well.

Everything that blocks (plugins, netlink, nftables, files) runs in threads, but for a look at the configuration
directory, a few calls of stat(2). Networks of built-in plugins share one thread: they need the same kernel lock and the
same directories anyway, and beside a busy event loop a second thread makes each pod four times as dear, by the
interpreter's lock. Programs, which may hang, get a thread for each operation.

An operation that was begun is carried to its end whatever happens to the one who asked: a thread inside a system call
cannot be stopped, and half an ADD that nobody waits for would be a leak. So a caller that is cancelled, or gives up
after the deadline, can simply call delete(): it waits for its turn behind the operation that it no longer sees.

Order of writing, so that kill -9 at any point can be undone (cni.recovery):

    add       ledger: attachment, link, address, host ports  ->  effects  ->  result cache
    delete    effects undone  ->  result cache  ->  ledger struck out
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from cni.attachment import Attachment
from cni.builtin import BUILTIN
from cni.conf import NetworkConf
from cni.confdir import ConfDir, Problem
from cni.default import parse_default
from cni.errors import CniError, NetworkNotReady, TryAgainLater
from cni.gate import Gate
from cni.mending import add
from cni.plugin import Plugin
from cni.podnetns import refuse_own
from cni.recovery import recover, teardown
from cni.result import Result
from cni.runner import DEFAULT_TIMEOUT_S
from cni.worker import Worker
from runtime.linux.ledger import Ledger

THREADS: Final = 64
NETLINK_TIMEOUT_S: Final = 10.0
#: After DEL, a link is given this long to go with its pod's namespace before it is removed.
LINGER_S: Final = 0.5

T = TypeVar("T")
log = logging.getLogger(__name__)


class Cni:
    """The networks of one configuration directory."""

    def __init__(
        self,
        conf_dir: Path,
        bin_dirs: Sequence[Path],
        cache_dir: Path,
        ledger: Ledger,
        *,
        default_conflist: Mapping[str, Any] | None = None,
        builtin: Mapping[str, Plugin] = BUILTIN,
        plugin_timeout: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        """`default_conflist` is the network while the directory has no file; its leases are in the cache directory."""
        self._conf_dir = ConfDir(conf_dir)
        self._leases = cache_dir / "networks"
        self._default = parse_default(default_conflist, self._leases) if default_conflist is not None else None
        self._worker = Worker(cache_dir, ledger, tuple(map(str, bin_dirs)), builtin, plugin_timeout)
        self._timeout = plugin_timeout
        self._gate = Gate()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="cni-program")
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="cni")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._removal: asyncio.TimerHandle | None = None
        self._loaded = False
        self._loading = asyncio.Lock()

    def set_default(self, conflist: Mapping[str, Any]) -> None:
        """Another network for pods to come while the directory has no file (CRI, UpdateRuntimeConfig)."""
        self._default = parse_default(conflist, self._leases)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Configuration files that could not be used, as of the last look."""
        return self._conf_dir.problems

    def network(self) -> NetworkConf:
        """The network that pods get now; raises NetworkNotReady when there is none."""
        if self._conf_dir.refresh():
            for problem in self._conf_dir.problems:
                log.warning("network configuration passed over: %s", problem)
        if self._conf_dir.networks:
            return self._conf_dir.networks[0]
        directory = self._conf_dir.directory
        if self.problems:  # somebody has decided on a network here: pods in another one would not reach its pods
            raise NetworkNotReady(f"no usable network configuration in {directory}", "; ".join(map(str, self.problems)))
        if self._default is None:
            raise NetworkNotReady(
                f"no network configuration in {directory}", "install a network plugin's .conflist there"
            )
        return self._default

    async def status(self) -> None:
        """Return when pods can be given a network; raises NetworkNotReady with the reason."""
        network = self.network()
        try:
            await self._carry_out(self._in_thread(network, self._worker.status, network), network)
        except CniError as error:
            raise NetworkNotReady(f"network {network.name!r} is not ready: {error}") from error

    async def add(self, attachment: Attachment) -> Result:
        """Attach a pod to the network; raises CniError, with everything undone that could be."""
        attachment.validate()
        refuse_own(attachment.netns_path)
        network = self.network()
        work = self._with_pod(network, add, self._worker, network, attachment)
        return await self._carry_out(work, network)

    async def delete(self, attachment: Attachment) -> None:
        """Detach a pod; what is unknown or gone already is fine. Raises CniError when a plugin fails: call it again."""
        attachment.validate()
        await self._carry_out(self._delete(attachment))

    async def check(self, attachment: Attachment) -> None:
        """Raise CniError when a pod's network is not any more what ADD has made."""
        attachment.validate()
        work = self._with_pod(self._network_of(attachment), self._worker.check, attachment)
        await self._carry_out(work)

    async def gc(self, valid: Iterable[Attachment]) -> None:
        """Free everything on the network that belongs to other attachments than the valid; raises CniError."""
        network = self.network()
        keep = {(attachment.container_id, attachment.ifname) for attachment in valid}
        await self._carry_out(self._alone(network, self._worker.gc, network, keep), network)

    async def recover(self, live_holders: Iterable[str]) -> list[str]:
        """At start: undo what belongs to pods (container ids) that are not live. Returns what could not be undone."""
        failed = await self._carry_out(self._alone(None, recover, self._worker, frozenset(live_holders)))
        try:
            network = self.network()
        except NetworkNotReady:
            return failed
        try:
            keep = self._worker.attached()
            await self._carry_out(self._alone(network, self._worker.gc, network, keep), network)
        except CniError as error:
            failed.append(str(error))
        return failed

    async def teardown(self) -> list[str]:
        """Remove what networks have for all their pods (bridges, rules, settings), unless pods are attached.

        Returns what was left, and why.
        """
        return await self._carry_out(self._alone(None, teardown, self._worker))

    async def close(self) -> None:
        """Finish what is under way and let go of sockets and threads; attachments stay."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._timeout)
        if self._removal is not None:
            self._removal.cancel()
            self._removal = None
        if self._worker.has_cut_links():
            await self._in_thread(None, self._worker.remove_links)
        for threads in (self._threads, self._lane):
            threads.shutdown(wait=False)
        self._worker.close()

    async def _delete(self, attachment: Attachment) -> None:
        async with self._gate.for_container(attachment.container_id):
            network = self._network_of(attachment)
            if network is not None:
                await self._in_thread(network, self._worker.delete, network, attachment)

    def _network_of(self, attachment: Attachment) -> NetworkConf | None:
        """What it is attached to; of one that nothing is known of, the network that it would get today."""
        known = self._worker.network_of(attachment)
        if known is not None:
            return known
        try:
            return self.network()
        except NetworkNotReady:
            return None

    async def _with_pod(self, network: NetworkConf | None, work: Callable[..., T], *arguments: Any) -> T:
        """Run work on an attachment, the last argument, with a socket in its pod, which is closed afterwards."""
        attachment: Attachment = arguments[-1]
        async with self._gate.for_container(attachment.container_id):
            sock = None
            if attachment.netlink is not None:
                sock = await _patiently(attachment.netlink())
            try:
                return await self._in_thread(network, work, *arguments, sock)
            finally:
                if sock is not None:
                    sock.close()

    async def _alone(self, network: NetworkConf | None, work: Callable[..., T], *arguments: Any) -> T:
        async with self._gate.alone():
            return await self._in_thread(network, work, *arguments)

    async def _in_thread(self, network: NetworkConf | None, work: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        if not self._loaded:
            await self._load(loop)
        threads = self._lane if network is not None and self._worker.is_builtin(network) else self._threads
        return await loop.run_in_executor(threads, work, *arguments)

    async def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once, and by one thread: modules that import each other, as pyroute2's do, deadlock when two begin."""
        async with self._loading:
            if not self._loaded:
                await loop.run_in_executor(self._threads, self._worker.load)
                self._loaded = True

    async def _carry_out(self, work: Coroutine[Any, Any, T], network: NetworkConf | None = None) -> T:
        """Wait for work that goes on even if the waiting ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._settled)
        # Every plugin may take its time, twice where a failed ADD is followed by DEL.
        patience = self._timeout * (2 * len(network.programs) + 1 if network else 8)
        done, _ = await asyncio.wait({task}, timeout=patience)
        if not done:
            raise TryAgainLater(
                f"the network did not answer within {patience:g} s", "the operation goes on; delete the pod"
            )
        return task.result()

    def _settled(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if self._removal is None and self._worker.has_cut_links():
            self._removal = asyncio.get_running_loop().call_later(LINGER_S, self._start_removal)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report what nobody waited for

    def _start_removal(self) -> None:
        self._removal = None
        task = asyncio.get_running_loop().create_task(self._remove_links())
        self._tasks.add(task)
        task.add_done_callback(self._settled)

    async def _remove_links(self) -> None:
        try:
            await self._in_thread(None, self._worker.remove_links)
        except OSError as error:
            log.warning("links of deleted pods could not be removed, tried again later: %s", error)


async def _patiently(opening: Awaitable[socket.socket]) -> socket.socket:
    try:
        return await asyncio.wait_for(opening, NETLINK_TIMEOUT_S)
    except TimeoutError as error:
        raise TryAgainLater(
            f"no netlink socket of the pod within {NETLINK_TIMEOUT_S:g} s", "is its shim alive?"
        ) from error
