"""What is done to a runtime, and which times and sizes are taken.

A scenario is prepared once for each runtime and then goes round by round, the runtimes taking turns; what it returns
are samples by row: seconds, bytes, or pods per second.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cri.client import CriClientSync, CriError
from cri.proto import api_pb2 as api
from tests.bench import machine
from tests.bench.payload import LARGE, SMALL
from tests.bench.pods import DEADLINE, Pod, Pods
from tests.bench.report import Row
from tests.bench.runtimes import START_TIMEOUT, Runtime

SETTLE = 0.15  # seconds for a container's shell to have set its trap


class Samples(defaultdict[str, list[float]]):
    """Of one runtime, by row."""

    def __init__(self) -> None:
        super().__init__(list)

    def record(self, row: str, value: float) -> None:
        self[row].append(value)


class Scenario(ABC):
    """`rounds` are measured, after `warm_up` rounds that are not."""

    name: str
    rows: tuple[Row, ...]
    rounds = 1
    warm_up = 0

    def prepare(self, runtime: Runtime) -> None:
        """Once, before the first round."""
        return

    @abstractmethod
    def round(self, runtime: Runtime, samples: Samples) -> None:
        """The work of which the times are taken."""

    def finish(self, runtime: Runtime) -> None:
        """Once, after the last round, also after a failure."""
        return


class Cycle(Scenario):
    """One pod after the other, from RunPodSandbox to RemovePodSandbox."""

    name = "cycle"
    rounds, warm_up = 40, 3
    rows = (
        Row("start", "pod start: RunPodSandbox + CreateContainer + StartContainer", "ms"),
        Row("run_sandbox", "- RunPodSandbox, bridge network", "ms"),
        Row("create", "- CreateContainer", "ms"),
        Row("start_container", "- StartContainer", "ms"),
        Row("stop_container", "StopContainer (ends on SIGTERM)", "ms"),
        Row("stop_sandbox", "StopPodSandbox", "ms"),
        Row("remove", "RemoveContainer + RemovePodSandbox", "ms"),
    )

    def round(self, runtime: Runtime, samples: Samples) -> None:
        pods = runtime.pods(SMALL)
        pod = pods.start(samples.record)
        time.sleep(SETTLE)
        pods.end(pod, samples.record)


class Exec(Scenario):
    """ExecSync of `true`, in one container."""

    name = "exec"
    rounds, warm_up = 100, 5
    rows = (Row("exec", "ExecSync of `true`", "ms"),)

    def __init__(self) -> None:
        self._pods: dict[str, Pod] = {}

    def prepare(self, runtime: Runtime) -> None:
        self._pods[runtime.mark] = runtime.pods(SMALL).start()

    def round(self, runtime: Runtime, samples: Samples) -> None:
        runtime.pods(SMALL).exec_true(self._pods[runtime.mark], samples.record)

    def finish(self, runtime: Runtime) -> None:
        runtime.pods(SMALL).remove_all()


class Throughput(Scenario):
    """Pods started by eight clients at a time."""

    name = "throughput"
    rounds, warm_up = 3, 1
    rows = (Row("pods_per_second", "pods started per second, 8 at a time", "/s"),)
    clients, pods = 8, 48

    def round(self, runtime: Runtime, samples: Samples) -> None:
        pods = runtime.pods(SMALL)
        try:
            with ThreadPoolExecutor(self.clients) as pool:
                started = time.perf_counter()
                list(pool.map(lambda _: pods.start(), range(self.pods)))
                samples.record("pods_per_second", self.pods / (time.perf_counter() - started))
        finally:
            pods.remove_all()


class Cpu(Scenario):
    """What all processors work for one pod from start to removal, beyond what the machine does anyway."""

    name = "cpu"
    rounds, warm_up = 5, 1
    rows = (Row("cpu", "machine CPU per pod, start to removal", "ms"),)
    pods = 15

    def round(self, runtime: Runtime, samples: Samples) -> None:
        load = machine.background_load() / 2
        spent, elapsed = self._cycles(runtime.pods(SMALL))
        load += machine.background_load() / 2
        samples.record("cpu", (spent - load * elapsed) / self.pods)

    def _cycles(self, pods: Pods) -> tuple[float, float]:
        """CPU seconds of the machine, and the time that it took."""
        before, started = machine.busy_seconds(), time.monotonic()
        for _ in range(self.pods):
            pod = pods.start()
            time.sleep(SETTLE)
            pods.end(pod)
        return machine.busy_seconds() - before, time.monotonic() - started


class Full(Scenario):
    """A node with many idle pods: memory, lists, statistics, and a restart of the daemon."""

    name = "full"
    calls = 40

    def __init__(self, pods: int) -> None:
        self._pods = pods
        self.rows = (
            Row("pss_pod", f"PSS per idle pod, without the daemon ({pods} pods)", "MB"),
            Row("pss_daemon", f"PSS of the daemon at {pods} pods", "MB"),
            Row("idle_cpu", f"CPU of the runtime with {pods} idle pods, per second", "ms"),
            Row("list_containers", f"ListContainers at {pods} pods", "ms"),
            Row("list_sandboxes", f"ListPodSandbox at {pods} pods", "ms"),
            Row("list_stats", f"ListContainerStats at {pods} pods", "ms"),
            Row("restart", f"daemon restart until ListContainers is right, {pods} pods", "s"),
        )

    def round(self, runtime: Runtime, samples: Samples) -> None:
        pods = runtime.pods(SMALL)
        empty = machine.proportional_set_size(_beside_daemon(runtime))
        try:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda _: pods.start(), range(self._pods)))
            time.sleep(3.0)
            self._weigh(runtime, samples, empty)
            self._list(runtime.client, samples)
            self._restart(runtime, samples)
        finally:
            runtime.pods(SMALL).remove_all()

    def _weigh(self, runtime: Runtime, samples: Samples, empty: int) -> None:
        beside = _beside_daemon(runtime)
        samples.record("pss_pod", (machine.proportional_set_size(beside) - empty) / self._pods)
        samples.record("pss_daemon", machine.proportional_set_size([runtime.daemon_pid()]))
        everything = {*beside, runtime.daemon_pid()}
        before = machine.cpu_seconds(everything)
        time.sleep(5.0)
        samples.record("idle_cpu", (machine.cpu_seconds(everything) - before) / 5.0)

    def _list(self, client: CriClientSync, samples: Samples) -> None:
        for row, call in (
            ("list_containers", client.ListContainers),
            ("list_sandboxes", client.ListPodSandbox),
            ("list_stats", client.ListContainerStats),
        ):
            call(timeout=DEADLINE)
            for _ in range(self.calls):
                samples.record(row, _seconds(lambda call=call: call(timeout=DEADLINE)))  # type: ignore[misc]

    def _restart(self, runtime: Runtime, samples: Samples) -> None:
        if runtime.can_restart:
            runtime.disconnect()
            started = runtime.restart()
            _until_running(runtime, self._pods)
            samples.record("restart", time.monotonic() - started)
            runtime.connect()


class Pull(Scenario):
    """PullImage of a large image that the runtime does not have, to its last unpacked file."""

    name = "pull"
    rounds = 3
    rows = (Row("pull", "PullImage, pull and unpack", "s"),)

    def round(self, runtime: Runtime, samples: Samples) -> None:
        image = api.ImageSpec(image=runtime.image(LARGE))
        runtime.client.RemoveImage(image=image, timeout=DEADLINE)
        pull = api.PullImageRequest(image=image)
        samples.record("pull", _seconds(lambda: runtime.client.PullImage(pull, timeout=DEADLINE)))

    def finish(self, runtime: Runtime) -> None:
        runtime.client.RemoveImage(image=api.ImageSpec(image=runtime.image(LARGE)), timeout=DEADLINE)


def all_scenarios(pods: int) -> list[Scenario]:
    return [Cycle(), Exec(), Throughput(), Cpu(), Full(pods), Pull()]


def _beside_daemon(runtime: Runtime) -> set[int]:
    daemon = runtime.daemon_pid()
    return machine.runtime_processes(daemon, runtime.mark) - {daemon}


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _until_running(runtime: Runtime, expected: int) -> None:
    """Asks with a new connection each time: an old one would wait before it tries again. Raises TimeoutError."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        with CriClientSync(runtime.address) as client:
            try:
                if Pods(client, "", "", runtime.mark).running() == expected:
                    return
            except CriError:
                time.sleep(0.005)
    raise TimeoutError(f"{runtime.name} does not list its {expected} containers after a restart{runtime.last_words()}")
