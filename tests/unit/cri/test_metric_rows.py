"""Metrics as messages: told again they have their new values, and what comes and goes comes and goes."""

from __future__ import annotations

import pytest

from cri.proto import api_pb2 as api
from cri.server.usage.metric_rows import Rows, Sample

LABELS = ("/pod/id", "id", "image", "main", "pod", "default")
FIRST: list[Sample] = [("cpu_usage_seconds_total", 1, ("total",)), ("memory_swap", 0, ()), ("threads", 3, ())]


def told(rows: Rows, samples: list[Sample], labels: tuple[str, ...] = LABELS) -> list[api.Metric]:
    message = api.ContainerMetrics(container_id="id")
    rows.fill(message, labels, samples)
    assert message.container_id == "id"
    return list(message.metrics)


def metric(name: str, kind: api.MetricType, number: int, *own: str) -> api.Metric:
    value = api.UInt64Value(value=number)
    return api.Metric(name=f"container_{name}", metric_type=kind, label_values=[*LABELS, *own], value=value)


def test_every_answer_has_the_values_of_its_time() -> None:
    rows = Rows()
    cpu, swap, threads = FIRST
    for cpu_now, swap_now, threads_now in ((1, 0, 3), (7, 5, 3), (9, 0, 0), (1, 0, 3)):
        now = [(cpu[0], cpu_now, cpu[2]), (swap[0], swap_now, ()), (threads[0], threads_now, ())]
        assert told(rows, now) == [
            metric("cpu_usage_seconds_total", api.COUNTER, cpu_now, "total"),
            metric("memory_swap", api.GAUGE, swap_now),
            metric("threads", api.GAUGE, threads_now),
        ]


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(FIRST[1:], id="one-less"),
        pytest.param([*FIRST, ("processes", 2, ())], id="one-more"),
        pytest.param([("cpu_usage_seconds_total", 1, ("cpu0",)), *FIRST[1:]], id="another-label"),
        pytest.param([], id="nothing"),
    ],
)
def test_what_is_told_may_be_others_each_time(later: list[Sample]) -> None:
    rows = Rows()
    told(rows, FIRST)
    assert told(rows, later) == told(Rows(), later)
    assert told(rows, FIRST) == told(Rows(), FIRST)


def test_new_labels_replace_the_old_ones() -> None:
    rows, others = Rows(), (*LABELS[:-1], "kube-system")
    told(rows, FIRST)
    assert [list(each.label_values)[:6] for each in told(rows, FIRST, others)] == [list(others)] * 3


def test_a_zero_is_a_value_and_nothing_is_below_it() -> None:
    rows = Rows()
    for number in (0, -1, 4, -1):
        (only,) = told(rows, [("spec_cpu_quota", number, ())])
        assert only.HasField("value")
        assert only.value.value == max(0, number)
