"""From v1.Pod to CRI messages."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cri.proto import api_pb2
from nodeagent.node import Node, this_node
from nodeagent.pods.pod import Pod
from nodeagent.translate import marks, network
from nodeagent.translate.container import ContainerRefused, Image, Surroundings, container_config
from nodeagent.translate.env import environment, expand
from nodeagent.translate.network import dns_config, hostname, hosts_file
from nodeagent.translate.resources import container_resources, pod_resources
from nodeagent.translate.sandbox import sandbox_config
from nodeagent.translate.security import MASKED, ImageUser, SecurityRefused, container_security
from tests.support.pods import container, manifest, pod

GIB = 1 << 30
NODE = Node("node-1", ("192.0.2.7",), cpus=4, memory=8 * GIB)


def config_of(made: Pod, *, user: ImageUser | None = None, **volumes: Any) -> api_pb2.ContainerConfig:
    image = Image("sha256:1", "localhost/busybox:1", user or ImageUser())
    around = Surroundings(NODE, image, volumes, ("10.0.0.1",), Path("/h"), Path("/m"))
    return container_config(made, made.containers[0], 2, 20.0, around)


def one(**fields: Any) -> Pod:
    return pod("web", container(**fields))


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "a"),
        ("$(A)-$(B)", "a-$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$a"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("$(A)$(A)", "aa"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert expand(text, {"A": "a"}) == expanded


def test_environment_in_order_with_fields_and_resources() -> None:
    made = one(
        resources={"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}},
        env=[
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)$(C)"},
            {"name": "C", "value": "3"},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}},
            {"name": "MCPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
    )
    assert environment(made, made.containers[0], NODE, ("10.0.0.1", "fd00::1")) == {
        "A": "1", "B": "1$(C)", "C": "3", "POD": "web", "IP": "10.0.0.1", "HOST": "192.0.2.7", "NODE": "node-1",
        "L": "", "MEM": "64", "CPU": "1", "MCPU": "250", "CPUS": "4",
    }  # fmt: skip


def test_command_and_arguments_are_expanded() -> None:
    made = config_of(one(command=["sh", "-c"], args=["echo $(X)"], env=[{"name": "X", "value": "hi"}]))
    assert (list(made.command), list(made.args)) == (["sh", "-c"], ["echo hi"])


def test_what_a_restarted_agent_needs_travels_as_labels_and_annotations() -> None:
    hook = {"exec": {"command": ["bye"]}}
    made = pod("web", container(lifecycle={"preStop": hook}), terminationGracePeriodSeconds=5)
    labels = dict(config_of(made).labels)
    assert labels == {
        "io.kubernetes.pod.name": "web",
        "io.kubernetes.pod.namespace": "default",
        "io.kubernetes.pod.uid": made.uid,
        "io.kubernetes.container.name": "main",
        "io.nodeagent.node": "node-1",
    }
    annotations = config_of(made).annotations
    assert json.loads(annotations[marks.PRE_STOP]) == hook
    assert (annotations[marks.GRACE], annotations[marks.RESTARTS], annotations[marks.BACKOFF]) == ("5", "2", "20")


def test_a_pods_own_labels_cannot_pass_for_the_agents() -> None:
    document = manifest()
    document["metadata"] |= {
        "labels": {marks.NODE: "other", "app": "x"},
        "annotations": {marks.DIGEST: "fake", marks.GRACE: "99999", "mine": "1"},
    }
    made = Pod.of(document, "f", "n")
    sandbox = sandbox_config(made, 0, NODE)
    assert (sandbox.labels[marks.NODE], sandbox.labels["app"]) == ("node-1", "x")
    assert (sandbox.annotations[marks.DIGEST], sandbox.annotations[marks.GRACE]) == (made.digest, "30")
    assert sandbox.annotations["mine"] == "1"


def test_mounts() -> None:
    mounts = [
        {"name": "a", "mountPath": "/a", "readOnly": True, "recursiveReadOnly": "Enabled"},
        {"name": "b", "mountPath": "/b", "mountPropagation": "HostToContainer"},
        {"name": "a", "mountPath": "/etc/hosts"},
    ]
    volume = {"a": SimpleNamespace(host_path=Path("/v/a"), read_only=False)}
    volume["b"] = SimpleNamespace(host_path=Path("/v/b"), read_only=True)
    found = {mount.container_path: mount for mount in config_of(one(volumeMounts=mounts), **volume).mounts}
    assert (found["/a"].host_path, found["/a"].readonly, found["/a"].recursive_read_only) == ("/v/a", True, True)
    assert found["/b"].readonly, "a volume that is read-only makes its mounts so"
    assert found["/b"].propagation == api_pb2.PROPAGATION_HOST_TO_CONTAINER
    assert found["/etc/hosts"].host_path == "/v/a", "a mount of the manifest wins over the agent's own"
    assert found["/dev/termination-log"].host_path == "/m"
    with pytest.raises(ContainerRefused, match='volume "a" is not mounted'):
        config_of(one(volumeMounts=mounts))


def test_stop_signals() -> None:
    assert config_of(one(lifecycle={"stopSignal": "SIGUSR1"})).stop_signal == api_pb2.SIGNAL_SIGUSR1
    with pytest.raises(ContainerRefused, match="SIGNOPE"):
        config_of(one(lifecycle={"stopSignal": "SIGNOPE"}))


def test_resources_of_a_container() -> None:
    made = one(
        resources={"requests": {"cpu": "250m"}, "limits": {"cpu": "1500m", "memory": "64Mi", "hugepages-2Mi": "4Mi"}}
    )
    resources = container_resources(made, made.containers[0], NODE)
    assert (resources.cpu_shares, resources.cpu_quota, resources.cpu_period) == (256, 150_000, 100_000)
    assert resources.memory_limit_in_bytes == 64 << 20
    assert [(page.page_size, page.limit) for page in resources.hugepage_limits] == [("2MB", 4 << 20)]
    bare = container_resources(pod(), pod().containers[0], NODE)
    assert (bare.cpu_shares, bare.cpu_quota, bare.memory_limit_in_bytes, bare.oom_score_adj) == (2, 0, 0, 1000)


def test_resources_of_a_pod_are_the_sum_or_the_largest_init_container() -> None:
    half = {"limits": {"cpu": "500m", "memory": "1Gi"}}
    big = container("init", resources={"limits": {"cpu": "2", "memory": "1Gi"}})
    both = (container("a", resources=half), container("b", resources=half))
    resources = pod_resources(pod("web", *both))
    assert (resources.cpu_quota, resources.memory_limit_in_bytes, resources.cpu_shares) == (100_000, 2 * GIB, 1024)
    assert pod_resources(pod("web", *both, initContainers=[big])).cpu_quota == 200_000
    unlimited = pod_resources(pod("web", *both, container("c")))
    assert (unlimited.cpu_quota, unlimited.memory_limit_in_bytes) == (0, 0)


def test_an_init_container_runs_beside_the_sidecars_before_it() -> None:
    def using(name: str, cpu: str, **fields: Any) -> dict[str, Any]:
        return container(name, resources={"limits": {"cpu": cpu, "memory": "1Gi"}}, **fields)

    first, last = (using(name, "1", restartPolicy="Always") for name in ("first", "last"))
    heavy, main = using("heavy", "3"), using("main", "500m")
    assert pod_resources(pod("web", main, initContainers=[first, heavy, last])).cpu_quota == 400_000
    assert pod_resources(pod("web", main, initContainers=[heavy, first, last])).cpu_quota == 300_000
    assert pod_resources(pod("web", main, initContainers=[first, last])).cpu_quota == 250_000
    assert pod_resources(pod("web", main, initContainers=[using("free", "0")])).cpu_quota == 0


def security(made: Pod, user: ImageUser | None = None) -> api_pb2.LinuxContainerSecurityContext:
    return container_security(made, made.containers[0], user or ImageUser(), NODE)


def test_a_containers_security_wins_over_the_pods() -> None:
    made = pod(
        "web",
        container(securityContext={"runAsUser": 5, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}),
        securityContext={"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]},
    )
    found = security(made)
    assert (found.run_as_user.value, found.run_as_group.value) == (5, 2)
    assert sorted(found.supplemental_groups) == [3, 4]
    assert list(found.capabilities.drop_capabilities) == ["ALL"]


def test_a_container_is_confined_unless_it_says_otherwise() -> None:
    plain = security(pod())
    assert plain.seccomp.profile_type == api_pb2.SecurityProfile.RuntimeDefault
    assert list(plain.masked_paths) == list(MASKED)
    assert not plain.HasField("run_as_user")
    privileged = security(one(securityContext={"privileged": True}))
    assert privileged.seccomp.profile_type == api_pb2.SecurityProfile.Unconfined
    assert list(privileged.masked_paths) == []
    assert list(security(one(securityContext={"procMount": "Unmasked"})).readonly_paths) == []
    assert security(one(securityContext={"allowPrivilegeEscalation": False})).no_new_privs
    local = one(securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"}})
    assert security(local).seccomp.localhost_ref == "/var/lib/kubelet/seccomp/p.json"


def test_a_group_alone_takes_the_images_user() -> None:
    made = one(securityContext={"runAsGroup": 7})
    assert security(made, ImageUser(9)).run_as_user.value == 9
    assert security(made, ImageUser(None, "www")).run_as_username == "www"


@pytest.mark.parametrize(
    ("context", "user", "refused"),
    [
        ({}, ImageUser(), True),
        ({}, ImageUser(0), True),
        ({}, ImageUser(None, "root"), True),
        ({}, ImageUser(1000), False),
        ({"runAsUser": 0}, ImageUser(1000), True),
        ({"runAsUser": 1}, ImageUser(), False),
    ],
)
def test_run_as_non_root(context: dict[str, Any], user: ImageUser, refused: bool) -> None:
    made = one(securityContext={"runAsNonRoot": True} | context)
    if not refused:
        security(made, user)
        return
    with pytest.raises(SecurityRefused, match="runAsNonRoot is set"):
        security(made, user)


def test_the_sandbox() -> None:
    made = pod(
        "web",
        container(ports=[{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]),
        securityContext={"sysctls": [{"name": "net/core/somaxconn", "value": "99"}]},
        shareProcessNamespace=True,
    )
    sandbox = sandbox_config(made, 3, NODE)
    assert (sandbox.metadata.attempt, sandbox.metadata.uid, sandbox.hostname) == (3, made.uid, "web")
    assert sandbox.log_directory == f"/var/log/pods/default_web_{made.uid}"
    assert [(port.container_port, port.host_port) for port in sandbox.port_mappings] == [(80, 8080)]
    assert dict(sandbox.linux.sysctls) == {"net.core.somaxconn": "99"}
    assert sandbox.linux.cgroup_parent == f"/kubepods/besteffort/pod{made.uid}"
    assert sandbox.linux.security_context.namespace_options.pid == api_pb2.POD


def test_the_nodes_namespaces() -> None:
    made = pod(
        "web", container(ports=[{"containerPort": 80, "hostPort": 80}]), hostNetwork=True, hostPID=True, hostIPC=True
    )
    sandbox = sandbox_config(made, 0, NODE)
    options = sandbox.linux.security_context.namespace_options
    assert {options.network, options.pid, options.ipc} == {api_pb2.NODE}
    assert (sandbox.hostname, list(sandbox.port_mappings)) == ("", [])


def test_hostnames_fit_the_kernel() -> None:
    assert hostname(pod("a" * 62 + ".b")) == "a" * 62
    assert hostname(pod("web", hostname="other")) == "other"


def test_hosts_file() -> None:
    made = pod("web", hostAliases=[{"ip": "192.0.2.1", "hostnames": ["a", "b"]}])
    text = hosts_file(made, ("10.0.0.1",))
    assert "127.0.0.1\tlocalhost\n" in text
    assert "10.0.0.1\tweb\n" in text
    assert "192.0.2.1\ta b\n" in text


def test_resolver_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("# c\nnameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:2 rotate\n")
    monkeypatch.setattr(network, "RESOLV_CONFS", (tmp_path / "absent", conf))
    extra = {"searches": ["c.example"], "options": [{"name": "ndots", "value": "5"}, {"name": "edns0"}]}
    made = dns_config(pod("web", dnsConfig=extra))
    assert list(made.servers) == ["192.0.2.53"]
    assert list(made.searches) == ["a.example", "b.example", "c.example"]
    assert list(made.options) == ["rotate", "ndots:5", "edns0"]
    alone = dns_config(pod("web", dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.1"]}))
    assert (list(alone.servers), list(alone.searches)) == (["192.0.2.1"], [])


def test_this_node_knows_itself() -> None:
    node = this_node("x")
    assert node.name == "x"
    assert node.memory > 1 << 20
    assert node.cpus > 0
    assert node.addresses
