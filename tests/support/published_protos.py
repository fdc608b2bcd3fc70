"""The interfaces as their owners publish them, to hold our own .proto files against.

We write our .proto files ourselves from an interface's facts, so a slip (a number, a type, a missing method) would only
show when a foreign peer fails to talk to us. The owners publish theirs as Go modules; here such a module is fetched
through the Go module proxy, compiled by the same protoc as ours, and both are reduced to a flat table of facts that can
be compared message by message.

    theirs = published(CRI)                       # skips the test, with the reason, without Go or the proxy
    assert differences(compiled(path_of_ours), theirs) == []
"""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

DOWNLOAD_TIMEOUT = 180.0
COMPILE_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Published:
    """One published .proto: its Go module, the version that we follow, its path inside the module."""

    module: str
    version: str
    path: str

    def __str__(self) -> str:
        return f"{self.module}@{self.version}/{self.path}"


CRI = Published("k8s.io/cri-api", "v0.37.2", "pkg/apis/runtime/v1/api.proto")
CSI = Published("github.com/container-storage-interface/spec", "v1.12.0", "csi.proto")
NRI = Published("github.com/containerd/nri", "v0.12.5", "pkg/api/api.proto")
DEVICE_PLUGIN = Published("k8s.io/kubelet", "v0.37.2", "pkg/apis/deviceplugin/v1beta1/api.proto")
PLUGIN_REGISTRATION = Published("k8s.io/kubelet", "v0.37.2", "pkg/apis/pluginregistration/v1/api.proto")


def published(proto: Published) -> FileDescriptorProto:
    """The published descriptor; skips the running test, with the reason, where it cannot be had."""
    directory = _module_directory(proto.module, proto.version)
    if isinstance(directory, str):
        pytest.skip(f"{proto} cannot be fetched: {directory}")
    return compiled(directory / proto.path)


@functools.cache
def _module_directory(module: str, version: str) -> Path | str:
    """Where the Go module cache holds the module's files, or the reason why it does not."""
    if (go := shutil.which("go")) is None:
        return "go is not installed"
    with tempfile.TemporaryDirectory(prefix="na-go-") as scratch:  # outside any module: no go.mod is touched
        try:
            done = subprocess.run(
                [go, "mod", "download", "-json", f"{module}@{version}"],
                cwd=scratch,
                capture_output=True,
                text=True,
                timeout=DOWNLOAD_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"the Go module proxy did not answer within {DOWNLOAD_TIMEOUT:g} s"
    if done.returncode != 0:
        return (done.stderr or done.stdout).strip()[-400:]
    return Path(json.loads(done.stdout)["Dir"])


def compiled(proto: Path) -> FileDescriptorProto:
    """What protoc makes of one .proto file whose only imports are google's own.

    Raises AssertionError with protoc's words if it does not compile.
    """
    with tempfile.TemporaryDirectory(prefix="na-protoc-") as scratch:
        output = Path(scratch) / "set.pb"
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "grpc_tools.protoc",
                f"--proto_path={proto.parent}",
                f"--proto_path={_wellknown_protos()}",
                f"--descriptor_set_out={output}",
                str(proto),
            ],
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"protoc refuses {proto}: {done.stderr.strip()}"
        return FileDescriptorSet.FromString(output.read_bytes()).file[0]


def _wellknown_protos() -> Path:
    spec = importlib.util.find_spec("grpc_tools")
    assert spec is not None and spec.origin is not None, "grpcio-tools is not installed"
    return Path(spec.origin).parent / "_proto"


def differences(ours: FileDescriptorProto, theirs: FileDescriptorProto) -> list[str]:
    """Every fact that the two files do not share, one line each; empty when they say the same.

    Compared: package, syntax, messages and nested ones, fields (name, number, type, label, oneof, presence, JSON name,
    options), enums and their numbers, extensions, services, methods with their
    streaming sides and options. Not compared: comments, order, and file options, which are a language's own business.
    """
    a, b = dict(facts(ours)), dict(facts(theirs))
    lines = [f"missing in ours: {key}: {b[key]}" for key in b.keys() - a.keys()]
    lines += [f"only in ours: {key}: {a[key]}" for key in a.keys() - b.keys()]
    lines += [f"differs: {key}: ours {a[key]}; published {b[key]}" for key in a.keys() & b.keys() if a[key] != b[key]]
    return sorted(lines)


def facts(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """A file as (what, how) pairs: ("field csi.v1.Volume 1", "LABEL_OPTIONAL TYPE_INT64 capacity_bytes ...")."""
    yield "package", file.package
    yield "syntax", file.syntax
    for message in file.message_type:
        yield from _message_facts(file.package, message)
    for enum in file.enum_type:
        yield from _enum_facts(file.package, enum)
    for extension in file.extension:
        yield f"extension of {extension.extendee} {extension.number}", _field_fact(extension, [])
    for service in file.service:
        yield from _service_facts(file.package, service)


def _message_facts(scope: str, message: DescriptorProto) -> Iterator[tuple[str, str]]:
    name = f"{scope}.{message.name}"
    yield f"message {name}", _options(message.options)
    oneofs = [oneof.name for oneof in message.oneof_decl]
    for field in message.field:
        yield f"field {name} {field.number}", _field_fact(field, oneofs)
    for nested in message.nested_type:
        yield from _message_facts(name, nested)
    for enum in message.enum_type:
        yield from _enum_facts(name, enum)


def _field_fact(field: FieldDescriptorProto, oneofs: list[str]) -> str:
    words = [
        FieldDescriptorProto.Label.Name(field.label),
        FieldDescriptorProto.Type.Name(field.type),
        field.type_name,
        field.name,
        f"json={field.json_name}",
    ]
    if field.HasField("oneof_index"):
        words.append(f"oneof={oneofs[field.oneof_index]}")
    if field.proto3_optional:
        words.append("presence=explicit")
    return " ".join(filter(None, [*words, _options(field.options)]))


def _enum_facts(scope: str, enum: EnumDescriptorProto) -> Iterator[tuple[str, str]]:
    yield f"enum {scope}.{enum.name}", _options(enum.options)
    for value in enum.value:
        yield f"enum value {scope}.{enum.name} {value.number} {value.name}", _options(value.options)


def _service_facts(scope: str, service: ServiceDescriptorProto) -> Iterator[tuple[str, str]]:
    yield f"service {scope}.{service.name}", _options(service.options)
    for method in service.method:
        sides = [
            ("stream " if method.client_streaming else "") + method.input_type,
            ("stream " if method.server_streaming else "") + method.output_type,
        ]
        fact = " -> ".join(sides)
        yield f"method {scope}.{service.name}/{method.name}", " ".join(filter(None, [fact, _options(method.options)]))


_Options = (
    descriptor_pb2.MessageOptions
    | descriptor_pb2.FieldOptions
    | descriptor_pb2.EnumOptions
    | descriptor_pb2.EnumValueOptions
    | descriptor_pb2.ServiceOptions
    | descriptor_pb2.MethodOptions
)


def _options(options: _Options) -> str:
    """Options by their wire form: extensions such as csi.v1.csi_secret have no name in protoc's own descriptors."""
    wire = options.SerializeToString(deterministic=True)
    return f"options={wire.hex()}" if wire else ""
