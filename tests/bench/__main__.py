"""The command line of the bench."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.bench.containerd import Containerd
from tests.bench.crid import Crid
from tests.bench.full_node import Full
from tests.bench.payload import SMALL, STORAGE, push_large, push_small
from tests.bench.pods import DEADLINE
from tests.bench.report import table
from tests.bench.runtimes import External, Runtime
from tests.bench.scenarios import Cpu, Cycle, Exec, Pull, Samples, Scenario, Throughput
from tests.support.peers import PeerUnavailable
from tests.support.registry import Registry

CHOICES = "crid, containerd, containerd+crun (each started here), or unix:///path/of/a.sock of one that runs"


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    if os.geteuid() != 0:
        print("bench: runtimes make namespaces, mounts and cgroups: run it as root", file=sys.stderr)
        return 1
    # Ended from outside it must still take its daemons and networks away.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    scenarios = [scenario for scenario in all_scenarios(options.pods) if scenario.name in options.only]
    with ExitStack() as stack:
        registry = stack.enter_context(Registry(STORAGE))
        _say("images are made")
        push_small(registry)
        large = push_large(registry) if "pull" in options.only else ""
        samples: dict[Runtime, Samples] = {}
        for runtime in _runtimes(options, registry.host):
            stack.enter_context(runtime)
            stack.callback(_clean, runtime)
            runtime.client.PullImage(image=api.ImageSpec(image=runtime.image(SMALL)), timeout=DEADLINE)
            samples[runtime] = Samples()
        for scenario in scenarios:
            _run(scenario, samples, options.rounds)
        results = {f"{runtime.name} ({runtime.version()})": found for runtime, found in samples.items()}
    rows = [row for scenario in scenarios for row in scenario.rows]
    print(f"{_machine()}; p50 / p90 / p99\n\n{table(rows, results)}")
    if large:
        print(f"\nThe image that is pulled: {large}.")
    if options.json:
        options.json.write_text(json.dumps(results))
    return 0


def all_scenarios(pods: int) -> list[Scenario]:
    """In the order of the table; `pods` are those of the full node."""
    return [Cycle(), Exec(), Throughput(), Cpu(), Full(pods), Pull()]


def _run(scenario: Scenario, samples: dict[Runtime, Samples], rounds: int | None) -> None:
    """The runtimes take turns, so that a noisy minute of the machine is noisy for both."""
    try:
        for runtime in samples:
            scenario.prepare(runtime)
        for number in range(-scenario.warm_up, rounds or scenario.rounds):
            _say(f"{scenario.name} {number + 1}/{rounds or scenario.rounds}")
            for runtime, found in samples.items():
                scenario.round(runtime, found if number >= 0 else Samples())
    finally:
        for runtime in samples:
            scenario.finish(runtime)


def _runtimes(options: argparse.Namespace, registry: str) -> Iterator[Runtime]:
    yield _runtime(options.socket, registry, options.restart_command)
    if options.vs == "auto":
        try:
            yield Containerd(registry)
        except (PeerUnavailable, FileNotFoundError) as reason:
            print(f"bench: without a second runtime: {reason}", file=sys.stderr)
    elif options.vs != "none":
        yield _runtime(options.vs, registry, options.vs_restart_command)


def _runtime(choice: str, registry: str, restart_command: str | None) -> Runtime:
    match choice:
        case "crid":
            return Crid(registry)
        case "containerd":
            return Containerd(registry)
        case _ if choice.startswith("containerd+"):
            return Containerd(registry, choice.partition("+")[2])
    return External(registry, choice, restart_command)


def _clean(runtime: Runtime) -> None:
    try:
        runtime.pods(SMALL).remove_all()
    except CriError as error:
        print(f"bench: {runtime.name} keeps pods: {error}", file=sys.stderr)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    names = [scenario.name for scenario in all_scenarios(1)]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measures CRI runtimes.")
    parser.add_argument("--socket", default="crid", help=f"the runtime to measure: {CHOICES}")
    parser.add_argument(
        "--vs", default="auto", help="a second one, likewise; none; auto is containerd if it can be built"
    )
    parser.add_argument("--restart-command", help="shell command that restarts the daemon behind --socket")
    parser.add_argument("--vs-restart-command", help="the same for --vs")
    parser.add_argument("--pods", type=int, default=100, help="pods of the full node (default 100)")
    parser.add_argument(
        "--rounds", type=int, help="measured rounds of every scenario, in place of each one's own number"
    )
    parser.add_argument("--only", type=lambda text: text.split(","), default=names, help=f"some of {','.join(names)}")
    parser.add_argument("--json", type=Path, help="file for all samples")
    options = parser.parse_args(argv)
    if unknown := set(options.only) - set(names):
        parser.error(f"--only knows {', '.join(names)}, not {', '.join(unknown)}")
    return options


def _machine() -> str:
    return (
        f"{os.cpu_count()} CPUs, Linux {platform.release()}, {platform.machine()}, Python {platform.python_version()}"
    )


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
