"""Our CSI, registration and device plugin descriptors against the published ones, fact by fact."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from csi.proto import csi_pb2
from csi.proto.services import handler, methods
from tests.support.published_protos import (
    CSI,
    DEVICE_PLUGIN,
    PLUGIN_REGISTRATION,
    Published,
    compiled,
    differences,
    facts,
    published,
)

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param("csi/proto/csi.proto", CSI, id="csi"),
        pytest.param("csi/proto/pluginregistration.proto", PLUGIN_REGISTRATION, id="pluginregistration"),
        pytest.param("nodeagent/proto/deviceplugin.proto", DEVICE_PLUGIN, id="deviceplugin"),
    ],
)
def test_descriptors_say_what_the_published_interface_says(ours: str, theirs: Published) -> None:
    assert differences(compiled(ROOT / ours), published(theirs)) == []


def _without_field(file: FileDescriptorProto) -> None:
    del file.message_type[1].field[0]


def _with_another_number(file: FileDescriptorProto) -> None:
    file.message_type[1].field[0].number = 77


def _streaming(file: FileDescriptorProto) -> None:
    file.service[0].method[0].server_streaming = True


def _without_secret_mark(file: FileDescriptorProto) -> None:
    message = next(m for m in file.message_type if m.name == "CreateVolumeRequest")
    next(f for f in message.field if f.name == "secrets").ClearField("options")


@pytest.mark.parametrize("spoil", [_without_field, _with_another_number, _streaming, _without_secret_mark])
def test_the_comparison_sees_a_slip(spoil) -> None:  # type: ignore[no-untyped-def]
    whole, spoilt = (compiled(ROOT / "csi/proto/csi.proto") for _ in range(2))
    assert differences(whole, whole) == []
    spoil(spoilt)
    assert differences(whole, spoilt)


def test_csi_has_all_its_services() -> None:
    rpcs = [key for key, _ in facts(compiled(ROOT / "csi/proto/csi.proto")) if key.startswith("method ")]
    assert len(rpcs) == 32


def test_services_are_bound_from_descriptors() -> None:
    node = methods(csi_pb2.DESCRIPTOR.services_by_name["Node"])
    assert node["NodeGetInfo"].path == "/csi.v1.Node/NodeGetInfo"
    assert node["NodeStageVolume"].request is csi_pb2.NodeStageVolumeRequest
    with pytest.raises(KeyError):
        handler(csi_pb2.DESCRIPTOR.services_by_name["Node"], {"NodeDance": lambda request, context: request})
