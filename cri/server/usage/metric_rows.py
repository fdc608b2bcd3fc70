"""Samples as the interface's messages.

Between two questions few values change, and nothing else. Naming and labelling the metrics of a hundred pods, nearly
six thousand, took longer than reading the kernel's files for them; so whatever has metrics keeps its first ones in
their wire form, and an answer is a copy of those with the values that are other ones by now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cri.proto import api_pb2 as api
from cri.server.usage.metric_table import KINDS

#: Name without `container_`, value, values of the metric's own labels.
Sample = tuple[str, int, tuple[str, ...]]
#: Values of metric_table.COMMON_LABELS.
Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Told:
    """Samples in columns, with `labels` on all of them, and what they are as messages."""

    names: tuple[str, ...]
    own: tuple[tuple[str, ...], ...]
    labels: Labels
    numbers: tuple[int, ...]
    #: The field `metrics`, which has the same number in a container's message and in a pod's.
    wire: bytes


class Rows:
    """The metrics of one container or pod."""

    __slots__ = ("_first",)

    def __init__(self) -> None:
        self._first = _Told((), (), (), (), b"")

    def fill(
        self, message: api.ContainerMetrics | api.PodSandboxMetrics, labels: Labels, samples: Iterable[Sample]
    ) -> None:
        """Add the samples to a message that has no metrics yet. Threads may do so at the same time."""
        names, numbers, own = tuple(zip(*samples, strict=True)) or ((), (), ())
        first = self._first
        if (names, own, labels) != (first.names, first.own, first.labels):
            first = self._first = _Told(names, own, labels, numbers, _wire(names, own, labels, numbers))
        message.MergeFromString(first.wire)
        for index, (number, former) in enumerate(zip(numbers, first.numbers, strict=True)):
            if number != former:
                message.metrics[index].value.value = max(0, number)


def _wire(names: Iterable[str], own: Iterable[tuple[str, ...]], labels: Labels, numbers: Iterable[int]) -> bytes:
    """A timestamp of 0 says that the value was read just now (api.proto, Metric)."""
    message = api.ContainerMetrics()
    for short, others, number in zip(names, own, numbers, strict=True):
        name, kind = KINDS[short]
        value = api.UInt64Value(value=max(0, number))
        message.metrics.add(name=name, metric_type=kind, label_values=[*labels, *others], value=value)
    return message.SerializeToString()
