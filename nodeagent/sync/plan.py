"""What to do next for a pod: a pure function of its manifest, of what is observed, and of the time.

    no sandbox  --> create one
    sandbox     --> init containers one after the other, sidecars among them left running --> containers
    an end      --> by restartPolicy: start it again after its back-off, or leave it
    all ended   --> the pod is over: its sandbox is stopped, its containers stay for their logs

It looks at everything each time and remembers nothing, so it does not matter who crashed or what was missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nodeagent.pods.pod import Pod, is_sidecar
from nodeagent.sync.backoff import after_end, next_backoff
from nodeagent.sync.observed import SECOND, Container, Observed, Sandbox, State


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run. `until` in ns since the epoch; 0 where an event will tell."""

    reason: str
    message: str = ""
    until: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """A container to create; or, with `created`, one to start that was created before. `backoff` in seconds."""

    container: dict[str, Any]
    attempt: int
    backoff: float
    created: str = ""


@dataclass(frozen=True, slots=True)
class Over:
    """The pod has ended for good. `grace` in seconds is what its containers have yet; None: what the manifest says."""

    phase: str
    reason: str = ""
    message: str = ""
    grace: int | None = None


@dataclass(slots=True)
class Plan:
    """What to do now, and when to look again; nothing in it is done yet."""

    over: Over | None = None
    #: The one to work in.
    sandbox: Sandbox | None = None
    #: The attempt of a sandbox to create.
    new_sandbox: int | None = None
    #: Sandboxes of earlier attempts, to be stopped.
    retire: list[Sandbox] = field(default_factory=list)
    start: list[Start] = field(default_factory=list)
    stop: list[Container] = field(default_factory=list)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    #: When to look again, in ns since the epoch; 0: at the next event.
    wake: int = 0


def decide(pod: Pod, observed: Observed, now: int, held: Mapping[str, Waiting], evicted: Over | None = None) -> Plan:
    """`observed` is this life of the pod only; `held` are containers that something else keeps from starting."""
    plan = Plan(over=evicted or over(pod, observed, now))
    ready = [sandbox for sandbox in observed.sandboxes if sandbox.ready]
    if plan.over:
        plan.retire = ready
        return plan
    plan.sandbox, plan.retire = (ready[0], ready[1:]) if ready else (None, [])
    if plan.sandbox is None:
        plan.new_sandbox = observed.sandboxes[0].attempt + 1 if observed.sandboxes else 0
    else:
        _Starts(pod, observed, plan.sandbox, now, held, plan).go()
    plan.wake = min((each for each in _times(pod, observed, plan, now)), default=0)
    return plan


def over(pod: Pod, observed: Observed, now: int) -> Over | None:
    latest = [observed.latest(container["name"]) for container in pod.containers]
    if all(each and each.state is State.EXITED and not should_restart(pod, each) for each in latest):
        return _ended(pod, [each for each in latest if each], observed)
    if pod.restart_policy == "Never":
        for container in pod.init_containers:
            view = observed.latest(container["name"])
            if view and view.state is State.EXITED and view.exit_code and not is_sidecar(container):
                return Over("Failed", "InitContainerFailed", f"init container {view.name} {how_it_ended(view)}")
        if observed.sandboxes and not any(sandbox.ready for sandbox in observed.sandboxes) and any(latest):
            return Over("Failed", "SandboxLost", "the pod's sandbox is gone and its restartPolicy is Never")
    deadline = deadline_of(pod, observed)
    if deadline and now >= deadline:
        return _deadline_exceeded(pod)
    return None


def deadline_of(pod: Pod, observed: Observed) -> int:
    """When activeDeadlineSeconds are over, counted from the first sandbox; 0 without a deadline."""
    seconds = pod.spec.get("activeDeadlineSeconds")
    if seconds is None or not observed.sandboxes:
        return 0
    return min(sandbox.created_at for sandbox in observed.sandboxes) + int(seconds) * SECOND


def should_restart(pod: Pod, ended: Container) -> bool:
    if pod.restart_policy == "OnFailure":
        return ended.exit_code != 0
    return pod.restart_policy == "Always"


def how_it_ended(view: Container) -> str:
    text = f"exited with code {view.exit_code}"
    return f"{text} ({view.reason})" if view.reason not in ("", "Completed", "Error") else text


def _ended(pod: Pod, latest: list[Container], observed: Observed) -> Over:
    deadline = deadline_of(pod, observed)
    failed = [each for each in latest if each.exit_code]
    if failed and deadline and max(each.finished_at for each in latest) >= deadline:
        return _deadline_exceeded(pod)
    if failed:
        return Over("Failed", message="; ".join(f"container {each.name} {how_it_ended(each)}" for each in failed))
    return Over("Succeeded")


def _deadline_exceeded(pod: Pod) -> Over:
    seconds = pod.spec["activeDeadlineSeconds"]
    return Over("Failed", "DeadlineExceeded", f"the pod ran longer than activeDeadlineSeconds: {seconds}")


def _times(pod: Pod, observed: Observed, plan: Plan, now: int) -> Iterator[int]:
    yield from (waiting.until for waiting in plan.waiting.values() if waiting.until)
    deadline = deadline_of(pod, observed)
    if deadline > now:
        yield deadline


class _Starts:
    """Which containers to start in the sandbox, filled into the plan."""

    def __init__(
        self, pod: Pod, observed: Observed, sandbox: Sandbox, now: int, held: Mapping[str, Waiting], plan: Plan
    ) -> None:
        self._pod = pod
        self._observed = observed
        self._here = observed.of([sandbox])
        self._now = now
        self._held = held
        self._plan = plan

    def go(self) -> None:
        if self._init_containers():
            for container in self._pod.containers:
                self._main(container)
        else:
            for container in self._pod.containers:
                self._plan.waiting[container["name"]] = Waiting("PodInitializing")

    def _init_containers(self) -> bool:
        """Whether the containers may start. Once one was started here, only sidecars are looked after."""
        started = any(self._here.latest(container["name"]) for container in self._pod.containers)
        for place, container in enumerate(self._pod.init_containers):
            view = self._here.latest(container["name"])
            if is_sidecar(container):
                if not self._keep_running(container, view) and not started:
                    return self._later(place + 1)
            elif not started and not (view and view.state is State.EXITED and view.exit_code == 0):
                self._keep_running(container, view)
                return self._later(place + 1)
        return True

    def _later(self, place: int) -> bool:
        for container in self._pod.init_containers[place:]:
            self._plan.waiting[container["name"]] = Waiting("PodInitializing")
        return False

    def _main(self, container: dict[str, Any]) -> None:
        latest = self._observed.latest(container["name"])
        if latest and latest.state is State.EXITED and not should_restart(self._pod, latest):
            return
        self._keep_running(container, self._here.latest(container["name"]))

    def _keep_running(self, container: dict[str, Any], here: Container | None) -> bool:
        """Whether it runs; if not, plans its start, or says what it waits for."""
        name = container["name"]
        latest = here or self._observed.latest(name)
        if here and here.state is State.RUNNING:
            return True
        if here and here.state is State.UNKNOWN:
            self._plan.stop.append(here)
            self._plan.waiting[name] = Waiting("ContainerStatusUnknown", "the runtime lost track of the container")
        elif name in self._held and (not self._held[name].until or self._held[name].until > self._now):
            self._plan.waiting[name] = self._held[name]
        elif here and here.state is State.CREATED:
            self._plan.start.append(Start(container, here.attempt, here.backoff, here.id))
        elif latest is None:
            self._plan.start.append(Start(container, 0, 0.0))
        elif (due := after_end(latest)) > self._now:
            self._plan.waiting[name] = _crash_loop(self._pod, latest, due)
        else:
            self._plan.start.append(Start(container, latest.attempt + 1, next_backoff(latest)))
        return False


def _crash_loop(pod: Pod, view: Container, due: int) -> Waiting:
    message = (
        f"back-off {view.backoff:.0f}s restarting failed container={view.name} pod={pod.key}; "
        f"last {how_it_ended(view)}; see: nodectl logs --previous {pod.key.name} -c {view.name}"
    )
    return Waiting("CrashLoopBackOff", message, due)
