"""The built-in validator: what this node's operator does not let plugins do ([nri.default_validator]).

It follows github.com/containerd/nri, plugins/default-validator, as containerd configures it. Pods can name plugins of
their own that must have been there, so that a pod that needs its device plugin is not started without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cri.proto import nri_pb2 as nri
from cri.server.nri.config import ValidatorConfig
from cri.server.nri.errors import NriFault
from cri.server.nri.owners import Owners

REQUIRED: Final = "required-plugins.noderesource.dev"
#: A YAML list of plain names, in a line or as lines; nothing else is meant by the interface.
_FLOW: Final = re.compile(r"\s*\[(.*)\]\s*", re.DOTALL)
_NAME: Final = re.compile(r"""\s*(["']?)([A-Za-z0-9_.+-]+)\1\s*""")


@dataclass(frozen=True, slots=True)
class Validator:
    """Answers like a plugin would, but cannot be disconnected."""

    config: ValidatorConfig

    def check(self, request: nri.ValidateContainerAdjustmentRequest, owners: Owners) -> None:
        """Raises NriFault for what is not allowed."""
        try:
            self._hooks(request.container.id, owners)
            self._seccomp(request.container, owners)
            self._namespaces(request.container.id, owners)
            self._sysctls(request.container.id, owners)
            self._required(request)
        except _Rejected as error:
            raise NriFault(f"NRI's default validator rejects container {request.container.name}: {error}") from None

    def _hooks(self, id: str, owners: Owners) -> None:
        if self.config.reject_oci_hook_adjustment and (names := owners.of(id, nri.OciHooks)):
            raise _Rejected(f"plugin {names} attempted restricted OCI hook injection")

    def _seccomp(self, container: nri.Container, owners: Owners) -> None:
        kinds = nri.SecurityProfile
        name = owners.of(container.id, nri.SeccompPolicy)
        forbidden, what = {
            kinds.UNCONFINED: (self.config.reject_unconfined_seccomp_adjustment, "unconfined"),
            kinds.RUNTIME_DEFAULT: (self.config.reject_runtime_default_seccomp_adjustment, "runtime default"),
            kinds.LOCALHOST: (self.config.reject_custom_seccomp_adjustment, "custom"),
        }[container.linux.seccomp_profile.profile_type]
        if name and forbidden:
            raise _Rejected(f"plugin {name} attempted restricted {what} seccomp policy adjustment")

    def _namespaces(self, id: str, owners: Owners) -> None:
        if self.config.reject_namespace_adjustment and (found := owners.keys(id, nri.Namespace)):
            names = ", ".join(f"{plugin} ({kind})" for kind, plugin in found.items())
            raise _Rejected(f"plugin {names} attempted restricted namespace adjustment")

    def _sysctls(self, id: str, owners: Owners) -> None:
        if self.config.reject_sysctl_adjustment and (found := owners.keys(id, nri.Sysctl)):
            names = ", ".join(sorted(set(found.values())))
            raise _Rejected(f"plugin {names} attempted restricted sysctl adjustment")

    def _required(self, request: nri.ValidateContainerAdjustmentRequest) -> None:
        pod, name = request.pod.annotations, request.container.name
        tolerated = _effective(pod, self.config.tolerate_missing_plugins_annotation, name)
        if tolerated is not None and _truth(tolerated):
            return
        required = [*self.config.required_plugins, *_names(_effective(pod, REQUIRED, name))]
        there = {each.name for each in request.plugins} | {f"{each.index}-{each.name}" for each in request.plugins}
        if missing := [plugin for plugin in required if plugin not in there]:
            raise _Rejected(f"required plugins {', '.join(missing)} are not present")


class _Rejected(Exception):
    pass


def _effective(annotations: Mapping[str, str], key: str, container: str) -> str | None:
    """The value for one container (KEY/container.NAME), else for the pod (KEY/pod), else of the bare key."""
    places = (f"{key}/container.{container}", f"{key}/pod", key) if key else ()
    return next((annotations[place] for place in places if place in annotations), None)


def _truth(text: str) -> bool:
    words = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
    if text.lower() not in words:
        raise _Rejected(f"the annotation that tolerates missing plugins is {text[:80]!r}, neither true nor false")
    return words[text.lower()]


def _names(text: str | None) -> list[str]:
    if text is None:
        return []
    if flow := _FLOW.fullmatch(text):
        parts = [part for part in flow[1].split(",") if part.strip()]
    else:
        parts = [line.removeprefix("-") for line in text.strip().splitlines() if line.startswith("- ")]
    names = [match[2] for part in parts if (match := _NAME.fullmatch(part))]
    if len(names) != len(parts) or not (flow or names):
        raise _Rejected(f"annotation {REQUIRED} is {text[:200]!r}, but must be a list of plugin names")
    return names
