"""One worker for each pod: woken, it looks at the pod, does the next thing, says how it stands, and sleeps.

    woken by   a changed manifest, an event of the runtime, an image that is there, the end of a pause
    a step     observe -> end what is not (or no longer) wanted -> plan -> stop, create, start -> status

A worker serves a namespace/name. When its manifest changes, the old life of the pod is ended before the new one
begins; when the manifest goes, or never was there (an orphan of an earlier run), it ends what it finds and is done.
Workers share nothing but tools, so what hangs in one pod hangs nobody else's.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from cri.client import CriError
from nodeagent.pods.pod import Key, Pod
from nodeagent.sync.backoff import Backoff
from nodeagent.sync.ending import remove_container, remove_sandbox, stop_container, stop_sandbox
from nodeagent.sync.last_words import LastWords
from nodeagent.sync.observed import SECOND, Observed, State, observe
from nodeagent.sync.plan import Over, Plan, Waiting, decide
from nodeagent.sync.starting import Failed, Starter
from nodeagent.sync.status import View, document_of, pod_status, timestamp
from nodeagent.sync.tools import Tools
from runtime.linux.failpoints import failpoint

EVICTED = "Evicted"
#: Seconds, as in the kubelet: what fills the disk is not left to go on.
EVICTION_GRACE = 1


class PodWorker:
    """What `key` names, whatever manifests and lives it has; run() until it is released."""

    def __init__(self, key: Key, tools: Tools) -> None:
        self.key = key
        #: The v1.Pod with its status, as it was after the last step.
        self.document: dict[str, Any] = _unknown(key)
        self._tools = tools
        self._pod: Pod | None = None
        self._evicted: Over | None = None
        self._starter: Starter | None = None
        self._last_words = LastWords(tools.files)
        self._held: dict[str, Waiting] = {}
        self._backed_off: dict[str, int] = {}
        self._trouble: Waiting | None = None
        self._trouble_backoff = Backoff(first=1.0, longest=120.0)
        self._runtime_backoff = Backoff(first=1.0, longest=30.0)
        self._woken = asyncio.Event()
        self._released = False

    def want(self, pod: Pod | None) -> None:
        """Another manifest, or none any more."""
        if pod is not None and self._pod is not None and pod.digest == self._pod.digest:
            return
        self._pod = pod
        self._evicted = None
        self._held.clear()
        self._trouble = None
        self._released = False
        if self._starter is not None:
            self._starter.close()
        self._starter = Starter(pod, self._tools, self.wake) if pod is not None else None
        if pod is not None:
            self._evicted = self._former_eviction(pod)
        self.wake()

    def _former_eviction(self, pod: Pod) -> Over | None:
        try:
            return _eviction(self._tools.files.read_eviction(pod))
        except OSError as error:
            self._tools.journal.warn(self.key, "NodeError", f"whether it was evicted cannot be read: {error}")
            return None

    def wake(self) -> None:
        self._woken.set()

    @property
    def alive(self) -> Pod | None:
        """The pod, unless it has ended for good or is not wanted."""
        return None if self._released else self._pod

    async def evict(self, pod: Pod, message: str) -> None:
        """End it for good, at once. Raises OSError; nothing is done then."""
        await asyncio.to_thread(self._tools.files.write_eviction, pod, message)
        if self._pod is pod:
            self._tools.journal.warn(self.key, EVICTED, message)
            self._evicted = _eviction(message)
            self.wake()

    def retry_now(self) -> None:
        """What kept the pod from starting may be over, such as a driver that was not there."""
        self._trouble = None
        self.wake()

    async def run(self) -> None:
        """Until there is nothing left of a pod that is not wanted."""
        try:
            while True:
                self._woken.clear()
                if await self._guarded_step():
                    return
        finally:
            if self._starter is not None:
                self._starter.close()

    async def _guarded_step(self) -> bool:
        try:
            again = await self._step()
            self._runtime_backoff.succeeded()
        except CriError as error:
            again = self._runtime_backoff.failed(time.time_ns())
            self._tools.journal.warn(self.key, "RuntimeError", str(error))
        except OSError as error:
            again = self._runtime_backoff.failed(time.time_ns())
            self._tools.journal.warn(self.key, "NodeError", str(error))
        if again is None:
            # A manifest that came meanwhile is the next life of this worker.
            return not self._woken.is_set()
        await self._sleep(again)
        return False

    async def _sleep(self, until: int) -> None:
        """Until woken; or until a time in ns since the epoch, where that is not 0."""
        pause = max(until - time.time_ns(), 0) / SECOND if until else None
        try:
            async with asyncio.timeout(pause):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _step(self) -> int | None:
        """When to look again (0: when woken), or None when there is nothing left. Raises CriError."""
        observed = await observe(self._tools.cri, self.key, self._tools.node)
        if self._pod is not None:
            await self._last_words.learn(self._pod.uid, observed.life_of(self._pod).containers)
        pod = self._pod
        others = observed.others_than(pod)
        if others.sandboxes:
            self.document = _ending(self.document, others)
            await self._end(others)
            return time.time_ns()
        self._tools.teardown.begin_all_but(self.key, pod.uid if pod else "")
        if pod is None or self._starter is None:
            return None
        life = observed.life_of(pod)
        self._held = {name: each for name, each in self._held.items() if each.until}
        plan = decide(pod, life, time.time_ns(), self._held, self._evicted)
        self._tell_back_offs(plan)
        self._say(pod, life, plan)
        if await self._carry_out(plan, life, self._starter):
            return time.time_ns()
        self._say(pod, life, plan)
        return self._next(plan)

    def _tell_back_offs(self, plan: Plan) -> None:
        """Each of them once."""
        for name, waiting in plan.waiting.items():
            if waiting.reason == "CrashLoopBackOff" and self._backed_off.get(name) != waiting.until:
                self._backed_off[name] = waiting.until
                self._tools.journal.warn(self.key, "BackOff", waiting.message)

    def _next(self, plan: Plan) -> int:
        times = [plan.wake, *(each.until for each in self._held.values())]
        if self._trouble is not None:
            times.append(self._trouble.until)
        return min((each for each in times if each), default=0)

    async def _carry_out(self, plan: Plan, life: Observed, starter: Starter) -> bool:
        """Whether something changed, so that the pod is to be looked at again."""
        grace = plan.over.grace if plan.over else None
        for sandbox in plan.retire:
            await stop_sandbox(self._tools.cri, self._tools.journal, sandbox, life, grace)
        if plan.over:
            await self._release(plan)
            return bool(plan.retire)
        if plan.new_sandbox is not None:
            return await self._new_sandbox(plan.new_sandbox, life, starter)
        assert plan.sandbox is not None
        for container in plan.stop:
            await stop_container(self._tools.cri, self._tools.journal, plan.sandbox, container, time.monotonic())
            await remove_container(self._tools.cri, container)
        changed = bool(plan.stop)
        for start in plan.start:
            waiting = await starter.container(start, plan.sandbox)
            if waiting is None:
                changed = True
            else:
                self._held[start.container["name"]] = waiting
        if not changed:
            await self._tidy(life)
        return changed

    async def _new_sandbox(self, attempt: int, life: Observed, starter: Starter) -> bool:
        if self._trouble is not None and self._trouble.until > time.time_ns():
            return False
        for before in life.sandboxes[:1]:
            # It is not ready; what it still has, such as its address, is given back before the next one asks.
            await stop_sandbox(self._tools.cri, self._tools.journal, before, life)
        try:
            await starter.sandbox(attempt)
        except Failed as error:
            self._tools.journal.warn(self.key, error.reason, error.message)
            self._trouble = Waiting(error.reason, error.message, self._trouble_backoff.failed(time.time_ns()))
            return False
        self._trouble = None
        self._trouble_backoff.succeeded()
        return True

    async def _end(self, observed: Observed) -> None:
        """Stop and remove every sandbox in it, and begin to undo what their pods had."""
        uids = {sandbox.uid for sandbox in observed.sandboxes}
        for uid in uids:
            self._tools.teardown.hold(self.key, uid)
        for sandbox in observed.sandboxes:
            await stop_sandbox(self._tools.cri, self._tools.journal, sandbox, observed)
            failpoint("agent.end.after_stop")
            await remove_sandbox(self._tools.cri, sandbox)
            failpoint("agent.end.after_remove")
        for uid in uids:
            self._tools.teardown.begin(self.key, uid)

    async def _release(self, plan: Plan) -> None:
        """A pod that is over gives its volumes back; its containers stay for their logs."""
        if self._released or self._pod is None or plan.over is None:
            return
        self._released = True
        self._tools.journal.tell(self.key, plan.over.phase, plan.over.message or "all containers have ended")
        self._tools.teardown.begin_volumes(self.key, self._pod.uid)

    async def _tidy(self, life: Observed) -> None:
        """Of the dead, the last of each name stays for its logs; sandboxes that hold nothing any more go."""
        kept = {sandbox.id for sandbox in life.sandboxes[:1]}
        for name in {container.name for container in life.containers}:
            dead = [each for each in life.all_of(name) if each.state is State.EXITED]
            for container in dead[1:]:
                await remove_container(self._tools.cri, container)
                await asyncio.to_thread(
                    self._tools.files.forget_attempt,
                    life.sandboxes[0].uid, name, container.attempt, container.log_path,
                )  # fmt: skip
            kept |= {each.sandbox_id for each in life.all_of(name) if each not in dead[1:]}
        for sandbox in life.sandboxes:
            if sandbox.id not in kept and not sandbox.ready:
                await remove_sandbox(self._tools.cri, sandbox)

    def _say(self, pod: Pod, life: Observed, plan: Plan) -> None:
        waiting = plan.waiting | self._held
        view = View(pod, self._tools.node, life, plan, self._last_words.of, self._trouble, waiting)
        self.document = document_of(pod, pod_status(view))


def _unknown(key: Key) -> dict[str, Any]:
    metadata = {"namespace": key.namespace, "name": key.name}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": {"phase": "Pending"}}


def _eviction(message: str) -> Over | None:
    return Over("Failed", EVICTED, message, EVICTION_GRACE) if message else None


def _ending(document: dict[str, Any], observed: Observed) -> dict[str, Any]:
    """What is shown while a pod is ended, whose manifest may be long gone."""
    metadata = document["metadata"] | {"uid": observed.sandboxes[0].uid}
    metadata["deletionTimestamp"] = metadata.get("deletionTimestamp") or timestamp(time.time_ns())
    return document | {"metadata": metadata}
