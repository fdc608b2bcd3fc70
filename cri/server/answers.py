"""Which coroutine answers which RPC."""

from __future__ import annotations

from collections.abc import Mapping

from cri.server.calls import image_calls, metrics, pod_sandbox_stats, runtime_info, streams
from cri.server.calls.checkpoint_container import checkpoint_container
from cri.server.calls.checkpoint_pod import checkpoint_pod
from cri.server.calls.container_stats import container_stats, list_container_stats, stream_container_stats
from cri.server.calls.container_status import status_of_container
from cri.server.calls.create_container import create_container
from cri.server.calls.exec_sync import exec_sync
from cri.server.calls.get_container_events import get_container_events
from cri.server.calls.list_containers import list_containers, stream_containers
from cri.server.calls.list_pod_sandboxes import list_pod_sandbox, stream_pod_sandboxes
from cri.server.calls.pod_sandbox_status import pod_sandbox_status
from cri.server.calls.remove_container import remove_container
from cri.server.calls.remove_pod_sandbox import remove_pod_sandbox
from cri.server.calls.reopen_container_log import reopen_container_log
from cri.server.calls.restore_pod import restore_pod
from cri.server.calls.run_pod_sandbox import run_pod_sandbox
from cri.server.calls.start_container import start_container
from cri.server.calls.stop_container import stop_container
from cri.server.calls.stop_pod_sandbox import stop_pod_sandbox
from cri.server.calls.update_container_resources import update_container_resources
from cri.server.calls.update_pod_sandbox_resources import update_pod_sandbox_resources
from cri.server.service import Stream, Unary

ANSWERS: Mapping[str, Unary | Stream] = {
    "Version": runtime_info.version,
    "Status": runtime_info.status,
    "RuntimeConfig": runtime_info.runtime_config,
    "UpdateRuntimeConfig": runtime_info.update_runtime_config,
    "RunPodSandbox": run_pod_sandbox,
    "StopPodSandbox": stop_pod_sandbox,
    "RemovePodSandbox": remove_pod_sandbox,
    "PodSandboxStatus": pod_sandbox_status,
    "ListPodSandbox": list_pod_sandbox,
    "StreamPodSandboxes": stream_pod_sandboxes,
    "UpdatePodSandboxResources": update_pod_sandbox_resources,
    "CreateContainer": create_container,
    "StartContainer": start_container,
    "StopContainer": stop_container,
    "RemoveContainer": remove_container,
    "ListContainers": list_containers,
    "StreamContainers": stream_containers,
    "ContainerStatus": status_of_container,
    "UpdateContainerResources": update_container_resources,
    "ReopenContainerLog": reopen_container_log,
    "ExecSync": exec_sync,
    "Exec": streams.exec,
    "Attach": streams.attach,
    "PortForward": streams.port_forward,
    "ContainerStats": container_stats,
    "ListContainerStats": list_container_stats,
    "StreamContainerStats": stream_container_stats,
    "PodSandboxStats": pod_sandbox_stats.pod_sandbox_stats,
    "ListPodSandboxStats": pod_sandbox_stats.list_pod_sandbox_stats,
    "StreamPodSandboxStats": pod_sandbox_stats.stream_pod_sandbox_stats,
    "ListMetricDescriptors": metrics.list_metric_descriptors,
    "ListPodSandboxMetrics": metrics.list_pod_sandbox_metrics,
    "StreamPodSandboxMetrics": metrics.stream_pod_sandbox_metrics,
    "GetContainerEvents": get_container_events,
    "CheckpointContainer": checkpoint_container,
    "CheckpointPod": checkpoint_pod,
    "RestorePod": restore_pod,
    "ListImages": image_calls.list_images,
    "StreamImages": image_calls.stream_images,
    "ImageStatus": image_calls.image_status,
    "PullImage": image_calls.pull_image,
    "RemoveImage": image_calls.remove_image,
    "ImageFsInfo": image_calls.image_fs_info,
}
