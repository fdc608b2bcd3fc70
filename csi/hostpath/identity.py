"""The Identity service: who this is and which services stand behind the socket."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue

from csi.proto import csi_pb2


class Identity:
    """Answers to who asks what this is; `name` is the driver's."""

    def __init__(self, name: str) -> None:
        self.name = name

    def answers(self) -> Mapping[str, Callable[[Any], Message]]:
        return {
            "GetPluginInfo": self.get_plugin_info,
            "GetPluginCapabilities": self.get_plugin_capabilities,
            "Probe": self.probe,
        }

    def get_plugin_info(self, request: csi_pb2.GetPluginInfoRequest) -> csi_pb2.GetPluginInfoResponse:
        version = importlib.metadata.version("nodeagent")
        return csi_pb2.GetPluginInfoResponse(name=self.name, vendor_version=version)

    def get_plugin_capabilities(
        self, request: csi_pb2.GetPluginCapabilitiesRequest
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        services = csi_pb2.PluginCapability.Service
        served = (services.CONTROLLER_SERVICE, services.VOLUME_ACCESSIBILITY_CONSTRAINTS)
        return csi_pb2.GetPluginCapabilitiesResponse(
            capabilities=[csi_pb2.PluginCapability(service=services(type=kind)) for kind in served]
        )

    def probe(self, request: csi_pb2.ProbeRequest) -> csi_pb2.ProbeResponse:
        return csi_pb2.ProbeResponse(ready=BoolValue(value=True))
