"""The calls of the CRI, read from the descriptors: what a client binds and a server has to answer."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from cri.proto import api_pb2


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC. `path` is what stands on the wire: /runtime.v1.RuntimeService/Version."""

    name: str
    service: str
    request: type[Message]
    response: type[Message]
    #: Whether the server answers with a stream; no CRI client sends one.
    streams: bool

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


@functools.cache
def methods() -> Mapping[str, Method]:
    """All RPCs of RuntimeService and ImageService by name; no name is in both."""
    table: dict[str, Method] = {}
    for service in api_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
            table[method.name] = Method(method.name, service.full_name, request, response, method.server_streaming)
    return table
