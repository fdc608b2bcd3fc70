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

from cri.proto import api_pb2 as api
from tests.bench import machine
from tests.bench.payload import LARGE, SMALL
from tests.bench.pods import DEADLINE, Pod
from tests.bench.report import Row
from tests.bench.runtimes import Runtime

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
    """What one pod costs the processors, from start to removal.

    The machine's figure has the kernel's own threads in it, and is only worth something while nothing else runs;
    that of the runtime's processes, containers included, holds on a busy machine too.
    """

    name = "cpu"
    rounds, warm_up = 9, 1
    rows = (
        Row("cpu", "machine CPU per pod, start to removal", "ms"),
        Row("runtime_cpu", "- of it, processes of the runtime", "ms"),
    )
    pods = 15

    def round(self, runtime: Runtime, samples: Samples) -> None:
        load = machine.background_load() / 2
        spent, own, elapsed = self._cycles(runtime)
        load += machine.background_load() / 2
        samples.record("cpu", (spent - load * elapsed) / self.pods)
        if own is not None:
            samples.record("runtime_cpu", own / self.pods)

    def _cycles(self, runtime: Runtime) -> tuple[float, float | None, float]:
        """CPU seconds of the machine, those of the runtime, and the time that it took."""
        pods = runtime.pods(SMALL)
        own = runtime.cpu_seconds()
        before, started = machine.busy_seconds(), time.monotonic()
        running = [pods.start() for _ in range(self.pods)]
        time.sleep(SETTLE)
        for pod in running:
            pods.end(pod)
        spent, elapsed = machine.busy_seconds() - before, time.monotonic() - started
        return spent, None if own is None else (runtime.cpu_seconds() or own) - own, elapsed


class Pull(Scenario):
    """PullImage of a large image that the runtime does not have, to its last unpacked file."""

    name = "pull"
    rounds = 3
    rows = (Row("pull", "PullImage, pull and unpack", "s"),)

    def round(self, runtime: Runtime, samples: Samples) -> None:
        image = api.ImageSpec(image=runtime.image(LARGE))
        runtime.client.RemoveImage(image=image, timeout=DEADLINE)
        pull = api.PullImageRequest(image=image)
        samples.record("pull", seconds_of(lambda: runtime.client.PullImage(pull, timeout=DEADLINE)))

    def finish(self, runtime: Runtime) -> None:
        runtime.client.RemoveImage(image=api.ImageSpec(image=runtime.image(LARGE)), timeout=DEADLINE)


def seconds_of(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
