"""Validation of pods: each finding names its field and says why."""

from __future__ import annotations

from typing import Any

import pytest

from nodeagent.pods.validate import check_pod
from tests.support.pods import container, manifest

VOLUME = {"name": "data", "emptyDir": {}}


def errors(document: Any) -> list[str]:
    return [str(problem) for problem in check_pod(document).errors]


def of_container(**fields: Any) -> dict[str, Any]:
    return manifest("web", container(**fields), volumes=[VOLUME])


def of_spec(**fields: Any) -> dict[str, Any]:
    return manifest("web", **fields)


def of_metadata(**fields: Any) -> dict[str, Any]:
    return manifest() | {"metadata": {"name": "web"} | fields}


def test_a_plain_pod_has_no_findings() -> None:
    findings = check_pod(manifest())
    assert findings.errors == findings.warnings == []


MISTAKES: list[tuple[Any, str]] = [
    ([], "(document): Invalid value: []: must be an object"),
    ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}, "spec: Required value"),
    (manifest() | {"apiVersion": "v2"}, 'apiVersion: Unsupported value: "v2": supported values: "v1"'),
    (manifest() | {"metadata": {}}, "metadata.name: Required value"),
    (of_metadata(name="Web"), 'metadata.name: Invalid value: "Web": must be at most 253 lower case'),
    (of_metadata(name="../../etc"), "metadata.name: Invalid value"),
    (of_metadata(namespace="a/b"), "metadata.namespace: Invalid value"),
    (of_metadata(uid="../x"), "metadata.uid: Invalid value"),
    (of_metadata(labels={"app": "a b"}), "metadata.labels.app: Invalid value"),
    (of_metadata(labels={"app": 1}), "metadata.labels.app: Invalid value: 1: must be a string (quote it)"),
    (of_metadata(annotations={"a/b/c": "x"}), "metadata.annotations[a/b/c]: Invalid value"),
    (of_metadata(annotations={"a": "x" * (257 << 10)}), "metadata.annotations.a: Invalid value"),
    (of_metadata(annotations={str(i): "x" * (60 << 10) for i in range(5)}), "metadata.annotations: Too long"),
    (of_spec(containers=[]), "spec.containers: Required value"),
    (of_spec(containers={}), "spec.containers: Invalid value: {}: must be a list"),
    (of_spec(containers=[None]), "spec.containers[0]: Required value"),
    (of_spec(containers=[{"name": "a"}]), "spec.containers[0].image: Required value"),
    (of_spec(containers=[{"image": "a"}]), "spec.containers[0].name: Required value"),
    (of_spec(containers=[container("a"), container("a")]), 'spec.containers[1].name: Duplicate value: "a"'),
    (of_spec(initContainers=[container("main")]), 'spec.containers[0].name: Duplicate value: "main"'),
    (
        of_spec(restartPolicy="Sometimes"),
        'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always"',
    ),
    (of_spec(hostUsers=False), "spec.hostUsers: Forbidden"),
    (of_spec(runtimeClassName="gvisor"), "spec.runtimeClassName: Forbidden"),
    (of_spec(resourceClaims=[{"name": "gpu"}]), "spec.resourceClaims: Forbidden"),
    (of_spec(terminationGracePeriodSeconds=-1), "spec.terminationGracePeriodSeconds: Invalid value: -1"),
    (of_spec(activeDeadlineSeconds=0), "spec.activeDeadlineSeconds: Invalid value: 0"),
    (of_spec(hostAliases=[{"ip": "x"}]), 'spec.hostAliases[0].ip: Invalid value: "x": must be an IP address'),
    (of_spec(dnsPolicy="None"), "spec.dnsConfig.nameservers: Required value"),
    (of_spec(dnsConfig={"nameservers": ["dns"]}), "spec.dnsConfig.nameservers[0]: Invalid value"),
    (of_spec(dnsConfig={"searches": ["a\nnameserver 6.6.6.6"]}), "spec.dnsConfig.searches[0]: Invalid value"),
    (of_spec(dnsConfig={"options": [{"name": "a b"}]}), "spec.dnsConfig.options[0]: Invalid value"),
    (of_spec(hostname="a.b"), "spec.hostname: Invalid value"),
    (of_spec(volumes=[{"name": "a"}]), "spec.volumes[0]: Required value: must specify a volume type"),
    (of_spec(volumes=[VOLUME, VOLUME]), 'spec.volumes[1].name: Duplicate value: "data"'),
    (of_spec(volumes=[VOLUME | {"hostPath": {"path": "/"}}]), "spec.volumes[0].hostPath: Forbidden"),
    (of_spec(volumes=[{"name": "a", "gitRepo": {}}]), "spec.volumes[0].gitRepo: Forbidden"),
    (of_spec(volumes=[{"name": "a", "hostPath": {"path": "/a/../b"}}]), "spec.volumes[0].hostPath.path: Invalid value"),
    (of_spec(volumes=[{"name": "a", "hostPath": {}}]), "spec.volumes[0].hostPath.path: Required value"),
    (of_spec(volumes=[{"name": "a", "csi": {}}]), "spec.volumes[0].csi.driver: Required value"),
    (of_spec(volumes=[{"name": "a", "persistentVolumeClaim": {}}]), "persistentVolumeClaim.claimName: Required value"),
    (of_spec(volumes=[{"name": "a", "emptyDir": {"sizeLimit": "1x"}}]), "emptyDir.sizeLimit: Invalid value"),
    (of_container(image="a b"), "spec.containers[0].image: Invalid value"),
    (of_container(command="sh"), 'spec.containers[0].command: Invalid value: "sh": must be a list'),
    (of_container(args=[1]), "spec.containers[0].args[0]: Invalid value: 1: must be a string (quote it)"),
    (of_container(args=["a\0b"]), "spec.containers[0].args[0]: Invalid value"),
    (of_container(tty="yes"), "spec.containers[0].tty: Invalid value"),
    (of_container(imagePullPolicy="never"), "spec.containers[0].imagePullPolicy: Unsupported value"),
    (of_container(restartPolicy="Always"), "spec.containers[0].restartPolicy: Forbidden"),
    (of_container(env=[{"value": "x"}]), "spec.containers[0].env[0].name: Required value"),
    (of_container(env=[{"name": "A=B"}]), "spec.containers[0].env[0].name: Invalid value"),
    (of_container(env=[{"name": "A", "valueFrom": {}}]), "spec.containers[0].env[0].valueFrom: Required value"),
    (
        of_container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]),
        "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value",
    ),
    (
        of_container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]),
        "spec.containers[0].env[0].valueFrom.secretKeyRef: Forbidden",
    ),
    (of_container(ports=[{}]), "spec.containers[0].ports[0].containerPort: Required value"),
    (of_container(ports=[{"containerPort": 70000}]), "ports[0].containerPort: Invalid value: 70000"),
    (of_container(ports=[{"containerPort": True}]), "ports[0].containerPort: Invalid value: True: must be a whole"),
    (of_container(ports=[{"containerPort": 1, "hostPort": 80}] * 2), "ports[1].hostPort: Duplicate value: 80"),
    (of_container(ports=[{"containerPort": 1, "hostIP": "h"}]), "ports[0].hostIP: Invalid value"),
    (of_container(volumeMounts=[{"name": "no", "mountPath": "/a"}]), 'volumeMounts[0].name: Not found: "no"'),
    (of_container(volumeMounts=[{"name": "data"}]), "volumeMounts[0].mountPath: Required value"),
    (of_container(volumeMounts=[{"name": "data", "mountPath": "/a/../../b"}]), "mountPath: Invalid value"),
    (of_container(volumeMounts=[{"name": "data", "mountPath": "/a"}] * 2), "volumeMounts[1].mountPath: Invalid value"),
    (of_container(volumeMounts=[{"name": "data", "mountPath": "/a", "subPath": "x"}]), "subPath: Forbidden"),
    (of_container(resources={"limits": {"cpu": "fast"}}), "resources.limits.cpu: Invalid value"),
    (of_container(resources={"limits": {"memory": "-1"}}), "resources.limits.memory: Invalid value"),
    (of_container(resources={"limits": {"gpu": "1"}}), "resources.limits.gpu: Unsupported value"),
    (
        of_container(resources={"requests": {"cpu": 2}, "limits": {"cpu": 1}}),
        "resources.requests.cpu: Invalid value: 2: must be less than or equal to the cpu limit of 1",
    ),
    (of_container(lifecycle={"preStop": {}}), "lifecycle.preStop: Required value"),
    (of_container(lifecycle={"preStop": {"httpGet": {"port": 80}}}), "lifecycle.preStop.httpGet: Forbidden"),
    (of_container(securityContext={"runAsUser": -1}), "securityContext.runAsUser: Invalid value: -1"),
    (of_container(securityContext={"runAsUser": 1 << 31}), "securityContext.runAsUser: Invalid value: 2147483648"),
    (of_container(securityContext={"capabilities": {"add": ["A,B"]}}), "capabilities.add[0]: Invalid value"),
    (
        of_container(securityContext={"privileged": True, "allowPrivilegeEscalation": False}),
        "securityContext.allowPrivilegeEscalation: Invalid value: False",
    ),
    (
        of_container(securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": ""}}),
        "seccompProfile.localhostProfile: Required value",
    ),
    (
        of_container(securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}),
        "seccompProfile.localhostProfile: Invalid value",
    ),
    (of_spec(securityContext={"sysctls": [{"name": "vm.swappiness", "value": "1"}]}), "sysctls[0].name: Forbidden"),
    (
        of_spec(hostNetwork=True, securityContext={"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}),
        "sysctls[0].name: Forbidden",
    ),
    (
        of_spec(securityContext={"sysctls": [{"name": "net.core.somaxconn", "value": "1\nkernel.core_pattern=x"}]}),
        "sysctls[0].value: Invalid value",
    ),
    (of_spec(securityContext={"sysctls": [{"name": "net.a+b", "value": "1"}]}), "sysctls[0].name: Invalid value"),
]


@pytest.mark.parametrize(("document", "expected"), MISTAKES)
def test_a_mistake_is_named(document: Any, expected: str) -> None:
    found = errors(document)
    assert any(expected in error for error in found), found


VARIABLE = "spec.containers[0].env[0].valueFrom"
MOUNTED = {"name": "data", "mountPath": "/a"}
#: (document, the field, what to do instead)
REMEDIES: list[tuple[Any, str, str]] = [
    (of_spec(volumes=[{"name": "a", "secret": {"secretName": "x"}}]), "spec.volumes[0].secret", "use hostPath"),
    (of_spec(volumes=[{"name": "a", "configMap": {"name": "x"}}]), "spec.volumes[0].configMap", "use hostPath"),
    (of_spec(volumes=[{"name": "a", "projected": {"sources": []}}]), "spec.volumes[0].projected", "drop the service"),
    (of_spec(volumes=[{"name": "a", "downwardAPI": {"items": []}}]), "spec.volumes[0].downwardAPI", "fieldRef"),
    (of_spec(volumes=[{"name": "a", "ephemeral": {}}]), "spec.volumes[0].ephemeral", "PersistentVolume"),
    (of_spec(volumes=[{"name": "a", "image": {"reference": "x"}}]), "spec.volumes[0].image", "init container"),
    (of_spec(volumes=[{"name": "a", "nfs": {"server": "x"}}]), "spec.volumes[0].nfs", "use csi"),
    (of_spec(volumes=[{"name": "a", "azureDisk": {}}]), "spec.volumes[0].azureDisk", "use csi"),
    (
        of_spec(volumes=[{"name": "a", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "x"}}}]),
        "spec.volumes[0].csi.nodePublishSecretRef",
        "find it on the node",
    ),
    (of_container(volumeDevices=[{"name": "data"}]), "spec.containers[0].volumeDevices", "volumeMounts"),
    (
        of_container(volumeMounts=[MOUNTED | {"subPath": "x"}]),
        "spec.containers[0].volumeMounts[0].subPath",
        "all of it",
    ),
    (of_container(envFrom=[{"secretRef": {"name": "x"}}]), "spec.containers[0].envFrom", "in env"),
    (of_container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {}}}]), f"{VARIABLE}.secretKeyRef", "value"),
    (of_container(env=[{"name": "A", "valueFrom": {"configMapKeyRef": {}}}]), f"{VARIABLE}.configMapKeyRef", "value"),
]


@pytest.mark.parametrize(("document", "field", "remedy"), REMEDIES, ids=[field for _, field, _ in REMEDIES])
def test_what_is_refused_has_its_field_and_a_remedy(document: Any, field: str, remedy: str) -> None:
    [error] = errors(document)
    assert error.startswith(f"{field}: Forbidden: ")
    assert remedy in error.partition("; ")[2]


def test_all_findings_are_told_at_once() -> None:
    assert len(errors(of_spec(containers=[{"name": "A"}, {"name": "b"}], hostname="_"))) == 4


def test_unknown_and_unused_fields_are_warnings() -> None:
    document = of_container(livenessProbe={"exec": {}}, Image="x", imagePullPolicies="Never")
    findings = check_pod(document)
    assert findings.errors == []
    assert [str(problem) for problem in findings.warnings] == [
        "spec.containers[0].livenessProbe: probes are not acted upon by this agent",
        'spec.containers[0].Image: unknown field (did you mean "image"?)',
        "spec.containers[0].imagePullPolicies: unknown field",
    ]


def test_a_null_is_an_absent_field() -> None:
    assert errors(of_container(command=None, resources={"limits": None})) == []


def test_what_an_exported_pod_carries_is_accepted() -> None:
    document = of_metadata(creationTimestamp="2026-01-01T00:00:00Z", resourceVersion="1", managedFields=[{}])
    document["status"] = {"phase": "Running"}
    document["spec"] |= {"nodeName": "n", "tolerations": [{}], "enableServiceLinks": True, "priority": 0}
    findings = check_pod(document)
    assert findings.errors == findings.warnings == []
