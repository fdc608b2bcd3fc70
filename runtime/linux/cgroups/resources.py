"""OCI `linux.resources` (config-linux.md, "Control groups") as a list of file settings for this host.

The whole document is translated before anything is written: a limit that no controller of this host can enforce
raises MissingController while nothing has happened yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from runtime.linux.cgroups import settings_v1, settings_v2
from runtime.linux.cgroups.errors import MissingController
from runtime.linux.cgroups.layout import Layout
from runtime.linux.cgroups.setting import Setting, Settings


class Section(NamedTuple):
    """A part of the document that one controller serves, with its translation for either version."""

    key: str
    v1_controller: str
    v2_controller: str
    v1: Callable[[Any], Settings]
    v2: Callable[[Any], Settings]


SECTIONS = (
    Section("cpu", "cpu", "cpu", settings_v1.cpu, settings_v2.cpu),
    Section("cpu", "cpuset", "cpuset", settings_v1.cpuset, settings_v1.cpuset),
    Section("memory", "memory", "memory", settings_v1.memory, settings_v2.memory),
    Section("pids", "pids", "pids", settings_v1.pids, settings_v1.pids),
    Section("blockIO", "blkio", "io", settings_v1.block_io, settings_v2.block_io),
    Section("hugepageLimits", "hugetlb", "hugetlb", settings_v1.hugepages, settings_v2.hugepages),
    Section("rdma", "rdma", "rdma", settings_v2.rdma, settings_v2.rdma),
    Section("network", "net_cls", "net_cls", settings_v1.network, settings_v1.network),
)


def plan(resources: Mapping[str, Any], layout: Layout) -> list[Setting]:
    """The settings in the order in which to make them; raises MissingController, InvalidResources."""
    settings: list[Setting] = []
    for section in SECTIONS:
        if resources.get(section.key):
            settings += _translated(section, resources[section.key], layout)
    if resources.get("unified"):
        settings += _unified(resources["unified"], layout)
    return settings


def _translated(section: Section, content: Any, layout: Layout) -> Iterator[Setting]:
    if layout.version(section.v1_controller) == 1:
        yield from section.v1(content)
    elif layout.version(section.v2_controller) == 2:
        yield from section.v2(content)
    else:
        for setting in section.v1(content):
            if not setting.tolerant:
                raise MissingController(section.v2_controller, setting.field)


def _unified(content: Mapping[str, str], layout: Layout) -> Iterator[Setting]:
    for setting in settings_v2.unified(content):
        version = layout.version(setting.controller)
        if version != 2:
            raise MissingController(
                f"{setting.controller} (cgroup v2)" if version else setting.controller, setting.field
            )
        yield setting
