"""The events that plugins can subscribe to, and the call that tells each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from google.protobuf.message import Message

from cri.proto import nri_pb2 as nri

ALL_EVENTS: Final = (1 << (nri.LAST - 1)) - 1


class Call(NamedTuple):
    """How the plugin is told of an event; `old` plugins may know it as a StateChange instead."""

    method: str
    response: type[Message]
    old: bool


CALLS: Final[Mapping[int, Call]] = {
    nri.RUN_POD_SANDBOX: Call("RunPodSandbox", nri.RunPodSandboxResponse, True),
    nri.UPDATE_POD_SANDBOX: Call("UpdatePodSandbox", nri.UpdatePodSandboxResponse, False),
    nri.POST_UPDATE_POD_SANDBOX: Call("PostUpdatePodSandbox", nri.PostUpdatePodSandboxResponse, True),
    nri.STOP_POD_SANDBOX: Call("StopPodSandbox", nri.StopPodSandboxResponse, True),
    nri.REMOVE_POD_SANDBOX: Call("RemovePodSandbox", nri.RemovePodSandboxResponse, True),
    nri.CREATE_CONTAINER: Call("CreateContainer", nri.CreateContainerResponse, False),
    nri.POST_CREATE_CONTAINER: Call("PostCreateContainer", nri.PostCreateContainerResponse, True),
    nri.START_CONTAINER: Call("StartContainer", nri.StartContainerResponse, True),
    nri.POST_START_CONTAINER: Call("PostStartContainer", nri.PostStartContainerResponse, True),
    nri.UPDATE_CONTAINER: Call("UpdateContainer", nri.UpdateContainerResponse, False),
    nri.POST_UPDATE_CONTAINER: Call("PostUpdateContainer", nri.PostUpdateContainerResponse, True),
    nri.STOP_CONTAINER: Call("StopContainer", nri.StopContainerResponse, False),
    nri.REMOVE_CONTAINER: Call("RemoveContainer", nri.RemoveContainerResponse, True),
    nri.VALIDATE_CONTAINER_ADJUSTMENT: Call(
        "ValidateContainerAdjustment", nri.ValidateContainerAdjustmentResponse, False
    ),
}
