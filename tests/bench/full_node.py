"""A node with many idle pods: what they cost in memory and time, how long lists take, and a restart of the daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from cri.client import CriClientSync, CriError
from tests.bench import machine
from tests.bench.payload import SMALL
from tests.bench.pods import DEADLINE, Pods
from tests.bench.report import Row
from tests.bench.runtimes import START_TIMEOUT, Runtime
from tests.bench.scenarios import Samples, Scenario, seconds_of


class Full(Scenario):
    """One round has all of it; the pods of one runtime are gone before the other has its turn."""

    name = "full"
    #: How often each list is asked for, and for how long at the most: of some peers one answer takes ten seconds.
    calls, seconds = 40, 10.0

    def __init__(self, pods: int) -> None:
        self._pods = pods
        self.rows = (
            Row("pss_pod", f"PSS per idle pod, without the daemon ({pods} pods)", "MB"),
            Row("pss_daemon", f"PSS of the daemon at {pods} pods", "MB"),
            Row("idle_cpu", f"CPU of the runtime with {pods} idle pods, per second", "ms"),
            Row("list_containers", f"ListContainers at {pods} pods", "ms"),
            Row("list_sandboxes", f"ListPodSandbox at {pods} pods", "ms"),
            Row("list_stats", f"ListContainerStats at {pods} pods", "ms"),
            Row("list_metrics", f"ListPodSandboxMetrics at {pods} pods", "ms"),
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
            ("list_metrics", client.ListPodSandboxMetrics),
        ):
            with suppress(CriError):  # not every peer knows every call
                self._repeat(call, row, samples)

    def _repeat(self, call: Callable[..., object], row: str, samples: Samples) -> None:
        call(timeout=DEADLINE)
        end = time.monotonic() + self.seconds
        for _ in range(self.calls):
            samples.record(row, seconds_of(lambda: call(timeout=DEADLINE)))
            if time.monotonic() > end:
                break

    def _restart(self, runtime: Runtime, samples: Samples) -> None:
        if runtime.can_restart:
            runtime.disconnect()
            started = runtime.restart()
            _until_running(runtime, self._pods)
            samples.record("restart", time.monotonic() - started)
            runtime.connect()


def _beside_daemon(runtime: Runtime) -> set[int]:
    daemon = runtime.daemon_pid()
    return machine.runtime_processes(daemon, runtime.mark) - {daemon}


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
