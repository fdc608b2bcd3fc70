"""The Registration service, on a socket of its own in plugins_registry: how the agent learns of the driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from csi.hostpath.refusal import log
from csi.proto import pluginregistration_pb2 as registration_pb2

#: The versions of CSI that are spoken, in the form that agents compare (they take the major number).
VERSIONS = ("1.0.0",)


class Registration:
    """Answers to the agent; `endpoint` is the socket of the driver itself."""

    def __init__(self, name: str, endpoint: Path) -> None:
        self._name = name
        self._endpoint = endpoint

    def answers(self) -> Mapping[str, Callable[[Any], Message]]:
        return {"GetInfo": self.get_info, "NotifyRegistrationStatus": self.notify_registration_status}

    def get_info(self, request: registration_pb2.InfoRequest) -> registration_pb2.PluginInfo:
        return registration_pb2.PluginInfo(
            type="CSIPlugin", name=self._name, endpoint=str(self._endpoint), supported_versions=VERSIONS
        )

    def notify_registration_status(
        self, request: registration_pb2.RegistrationStatus
    ) -> registration_pb2.RegistrationStatusResponse:
        if request.plugin_registered:
            log.info("registered with the agent as %s", self._name)
        else:
            log.error("the agent refuses %s: %s", self._name, request.error)
        return registration_pb2.RegistrationStatusResponse()
