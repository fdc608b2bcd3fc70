"""nodectl stats: what containers use. CPU is a rate, so where the runtime gives none two samples are taken."""

from __future__ import annotations

import argparse
import time

from cri.client import CriClientSync
from cri.proto import api_pb2
from nodeagent.ctl.connect import QUICK, connect
from nodeagent.ctl.find import POD_NAME, POD_NAMESPACE
from nodeagent.ctl.output import emit_json, plain, size, table

HEAD = ("NAMESPACE", "POD", "CONTAINER", "CPU", "MEMORY", "LIMIT", "LAYER")
SAMPLE = 1.0
"""Seconds between two samples."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pod", nargs="?", default="", help="only of this pod")


def run(given: argparse.Namespace) -> int:
    with connect(given) as cri:
        before = sample(cri, given.pod)
        if given.output == "json":
            emit_json({"items": [plain(each) for each in before]})
            return 0
        if not all(each.cpu.HasField("usage_nano_cores") for each in before):
            time.sleep(SAMPLE)
            print(render(sample(cri, given.pod), before))
        else:
            print(render(before, []))
    return 0


def sample(cri: CriClientSync, pod: str) -> list[api_pb2.ContainerStats]:
    """Of all containers, or of those of a pod (name or namespace/name)."""
    found = cri.ListContainerStats(timeout=QUICK).stats
    mine = [each for each in found if pod in ("", _pod(each), f"{_namespace(each)}/{_pod(each)}")]
    return sorted(mine, key=lambda each: (_namespace(each), _pod(each), each.attributes.metadata.name))


def render(now: list[api_pb2.ContainerStats], before: list[api_pb2.ContainerStats]) -> str:
    earlier = {each.attributes.id: each for each in before}
    return table(HEAD, (_row(each, earlier.get(each.attributes.id)) for each in now))


def _row(each: api_pb2.ContainerStats, before: api_pb2.ContainerStats | None) -> tuple[str, ...]:
    memory = each.memory
    used = memory.working_set_bytes.value
    limit = used + memory.available_bytes.value if memory.available_bytes.value else 0
    return (
        _namespace(each),
        _pod(each),
        each.attributes.metadata.name,
        milli_cores(each, before),
        size(used),
        size(limit) if limit else "-",
        size(each.writable_layer.used_bytes.value),
    )


def milli_cores(now: api_pb2.ContainerStats, before: api_pb2.ContainerStats | None) -> str:
    """Thousandths of a core, as kubectl top has it."""
    elapsed = now.cpu.timestamp - before.cpu.timestamp if before is not None else 0
    if before is not None and elapsed > 0:
        spent = now.cpu.usage_core_nano_seconds.value - before.cpu.usage_core_nano_seconds.value
        return f"{max(spent, 0) * 1000 / elapsed:.0f}m"
    if now.cpu.HasField("usage_nano_cores"):
        return f"{now.cpu.usage_nano_cores.value / 1e6:.0f}m"
    return "-"


def _namespace(each: api_pb2.ContainerStats) -> str:
    return each.attributes.labels.get(POD_NAMESPACE, "-")


def _pod(each: api_pb2.ContainerStats) -> str:
    return each.attributes.labels.get(POD_NAME, "-")
