"""Services of a .proto file, read from its descriptors: what a client can call, and how a server answers.

There are no generated stubs; the descriptors already say everything that those would hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass


@dataclass(frozen=True, slots=True)
class Method:
    """One unary RPC; `path` is what stands on the wire: /csi.v1.Node/NodeGetInfo."""

    name: str
    path: str
    request: type[Message]
    response: type[Message]


def methods(service: ServiceDescriptor) -> Mapping[str, Method]:
    """The unary RPCs of a service by name; the streams of SnapshotMetadata have no user here."""
    return {
        method.name: Method(
            method.name,
            f"/{service.full_name}/{method.name}",
            GetMessageClass(method.input_type),
            GetMessageClass(method.output_type),
        )
        for method in service.methods
        if not method.server_streaming
    }


Answer = Callable[[Any, grpc.ServicerContext], Message]


def handler(service: ServiceDescriptor, answers: Mapping[str, Answer]) -> grpc.GenericRpcHandler:
    """A gRPC handler that answers the named RPCs of a service; the others are UNIMPLEMENTED, as gRPC has it.

    Raises KeyError for a name that the service does not have.
    """
    known = methods(service)
    return grpc.method_handlers_generic_handler(
        service.full_name,
        {
            name: grpc.unary_unary_rpc_method_handler(
                answer,
                request_deserializer=known[name].request.FromString,
                response_serializer=known[name].response.SerializeToString,
            )
            for name, answer in answers.items()
        },
    )
