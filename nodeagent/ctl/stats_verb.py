"""nodectl stats: what pods and containers use. CPU is a rate, so two samples are taken."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from typing import Any

from rich.live import Live

from cri.proto import api_pb2 as api
from nodeagent.ctl import amounts
from nodeagent.ctl.completers import completed, pods
from nodeagent.ctl.output import Column, Document, table
from nodeagent.ctl.session import CALL_SECONDS, Session
from nodeagent.ctl.targets import find_pod, short
from nodeagent.ctl.world import look

#: Seconds between the first two samples.
FIRST_SAMPLE = 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    completed(parser.add_argument("pod", nargs="?", default="", help="only this pod"), pods)
    parser.add_argument("-p", "--pods", action="store_true", help="pods as a whole, without their containers")
    parser.add_argument("-w", "--watch", action="store_true", help="again and again, until Ctrl-C")
    parser.add_argument("-d", "--delay", type=float, default=2.0, metavar="SECONDS", help="between two (default: 2)")


COLUMNS = [
    Column("POD", lambda row: f"{row['namespace']}/{row['pod']}"),
    Column("CONTAINER", "container"),
    Column("CPU", lambda row: None if row["milliCores"] is None else f"{row['milliCores']}m", right=True),
    Column("MEMORY", lambda row: amounts.size(row["memoryBytes"]), right=True),
    Column("LIMIT", lambda row: amounts.size(row["memoryLimitBytes"]) if row["memoryLimitBytes"] else None, right=True),
    Column("LAYER", lambda row: None if row["layerBytes"] is None else amounts.size(row["layerBytes"]), right=True),
    Column("PIDS", "processes", right=True),
    Column("RECEIVED", lambda row: None if row["rxBytes"] is None else amounts.size(row["rxBytes"]), right=True),
    Column("SENT", lambda row: None if row["txBytes"] is None else amounts.size(row["txBytes"]), right=True),
    Column("ID", lambda row: short(row["id"]), wide=True),
]


async def run(session: Session, given: argparse.Namespace) -> int:
    pod = find_pod(await look(session), given.pod).full_name if given.pod else ""
    before = await _sample(session)
    await asyncio.sleep(FIRST_SAMPLE)
    if not given.watch:
        session.output.items("StatsList", COLUMNS, _rows(await _sample(session), before, pod, given.pods))
        return 0
    await _watch(session, given, pod, before)
    return 0


async def _watch(session: Session, given: argparse.Namespace, pod: str, before: list[api.PodSandboxStats]) -> None:
    delay = max(given.delay, 0.2)
    live = session.output.console.is_terminal and session.output.format != "json"
    shown = [column for column in COLUMNS if not column.wide or session.output.format == "wide"]
    with Live(console=session.output.console, auto_refresh=False, screen=live) as screen:
        while True:
            now = await _sample(session)
            rows = _rows(now, before, pod, given.pods)
            if live:
                screen.update(table(shown, rows), refresh=True)
            else:
                session.output.items("StatsList", COLUMNS, rows)
            before = now
            await asyncio.sleep(delay)


async def _sample(session: Session) -> list[api.PodSandboxStats]:
    return list((await session.cri.ListPodSandboxStats(timeout=CALL_SECONDS)).stats)


def _rows(now: list[api.PodSandboxStats], before: list[api.PodSandboxStats], pod: str, whole: bool) -> list[Document]:
    earlier: dict[str, Any] = {}
    for each in before:
        earlier[each.attributes.id] = each.linux
        earlier.update({inside.attributes.id: inside for inside in each.linux.containers})
    ranked = sorted(now, key=lambda each: (each.attributes.metadata.namespace, each.attributes.metadata.name))
    rows = [row for each in ranked for row in _of_pod(each, earlier)]
    return [
        row
        for row in rows
        if pod in ("", f"{row['namespace']}/{row['pod']}") and not (whole and row["container"] is not None)
    ]


def _of_pod(stats: api.PodSandboxStats, earlier: dict[str, Any]) -> Iterator[Document]:
    """The pod's row, then its containers'."""
    linux, interface = stats.linux, stats.linux.network.default_interface
    names = {"namespace": stats.attributes.metadata.namespace, "pod": stats.attributes.metadata.name}
    has_network = bool(interface.name)
    yield {
        **_usage(stats.attributes.id, linux, earlier),
        **names,
        "container": None,
        "layerBytes": None,
        "processes": linux.process.process_count.value if linux.HasField("process") else None,
        "rxBytes": interface.rx_bytes.value if has_network else None,
        "txBytes": interface.tx_bytes.value if has_network else None,
    }
    for each in linux.containers:
        yield {
            **_usage(each.attributes.id, each, earlier),
            **names,
            "container": each.attributes.metadata.name,
            "layerBytes": each.writable_layer.used_bytes.value if each.HasField("writable_layer") else None,
            "processes": None,
            "rxBytes": None,
            "txBytes": None,
        }


def _usage(id: str, now: Any, earlier: dict[str, Any]) -> Document:
    used, available = now.memory.working_set_bytes.value, now.memory.available_bytes.value
    return {
        "id": id,
        "milliCores": milli_cores(now.cpu, earlier[id].cpu if id in earlier else None),
        "memoryBytes": used,
        "memoryLimitBytes": used + available if available else None,
    }


def milli_cores(now: api.CpuUsage, before: api.CpuUsage | None) -> int | None:
    """Thousandths of a core, as kubectl top has it; None for what was not there before."""
    if before is not None and now.timestamp > before.timestamp:
        spent = now.usage_core_nano_seconds.value - before.usage_core_nano_seconds.value
        return round(max(spent, 0) * 1000 / (now.timestamp - before.timestamp))
    return round(now.usage_nano_cores.value / 1e6) if now.HasField("usage_nano_cores") else None
