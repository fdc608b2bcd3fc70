"""The fields of v1.Pod as tables, with what this agent makes of each. Source: k8s.io/api/core/v1/types.go (v1.36).

Fields that need an API server, a scheduler or a service network are accepted without effect; those whose absence
would change what the pod may do, or how it is isolated, are refused rather than forgotten.
"""

from __future__ import annotations

from typing import Any

from nodeagent.pods.shape import (
    BOOLEAN,
    INTEGER,
    QUANTITY,
    TEXT,
    Choice,
    Inert,
    Later,
    ListOf,
    MapOf,
    Refused,
    Shape,
)

INERT = Inert()
_ALONE = "needs an API server, which this agent does not talk to"
_NO_FILES = Refused(f"{_ALONE}; put the files into a directory of the node and use hostPath")
_NO_VALUE = Refused(f"{_ALONE}; write the value into the variable's value")

METADATA: dict[str, Shape] = {
    "name": TEXT,
    "namespace": TEXT,
    "uid": TEXT,
    "labels": MapOf(TEXT),
    "annotations": MapOf(TEXT),
    "generateName": Refused("a pod from a manifest needs a name of its own"),
    **dict.fromkeys(
        ("creationTimestamp", "resourceVersion", "generation", "managedFields", "selfLink", "ownerReferences"), INERT
    ),
    **dict.fromkeys(("finalizers", "deletionTimestamp", "deletionGracePeriodSeconds"), INERT),
}

_SECCOMP = {"type": Choice(("RuntimeDefault", "Unconfined", "Localhost")), "localhostProfile": TEXT}
_SELINUX = dict.fromkeys(("user", "role", "type", "level"), TEXT)

POD_SECURITY: dict[str, Shape] = {
    "runAsUser": INTEGER,
    "runAsGroup": INTEGER,
    "runAsNonRoot": BOOLEAN,
    "fsGroup": INTEGER,
    "fsGroupChangePolicy": Choice(("Always", "OnRootMismatch")),
    "supplementalGroups": ListOf(INTEGER),
    "supplementalGroupsPolicy": Choice(("Merge", "Strict")),
    "seccompProfile": _SECCOMP,
    "appArmorProfile": _SECCOMP,
    "seLinuxOptions": _SELINUX,
    "sysctls": ListOf({"name": TEXT, "value": TEXT}),
    "seLinuxChangePolicy": INERT,
    "windowsOptions": INERT,
}

SECURITY: dict[str, Shape] = {
    "runAsUser": INTEGER,
    "runAsGroup": INTEGER,
    "runAsNonRoot": BOOLEAN,
    "privileged": BOOLEAN,
    "readOnlyRootFilesystem": BOOLEAN,
    "allowPrivilegeEscalation": BOOLEAN,
    "capabilities": {"add": ListOf(TEXT), "drop": ListOf(TEXT)},
    "procMount": Choice(("Default", "Unmasked")),
    "seccompProfile": _SECCOMP,
    "appArmorProfile": _SECCOMP,
    "seLinuxOptions": _SELINUX,
    "windowsOptions": INERT,
}

ENV: dict[str, Shape] = {
    "name": TEXT,
    "value": TEXT,
    "valueFrom": {
        "fieldRef": {"fieldPath": TEXT, "apiVersion": Choice(("v1",))},
        "resourceFieldRef": {"containerName": TEXT, "resource": TEXT, "divisor": QUANTITY},
        "configMapKeyRef": _NO_VALUE,
        "secretKeyRef": _NO_VALUE,
        "fileKeyRef": Refused("is not supported by this agent; write the value into the variable's value"),
    },
}

RESOURCES: dict[str, Shape] = {
    "limits": MapOf(QUANTITY),
    "requests": MapOf(QUANTITY),
    "claims": Refused("device claims need an API server"),
}

_ON_HOOK = {
    "exec": {"command": ListOf(TEXT)},
    "sleep": {"seconds": INTEGER},
    "httpGet": Refused("only exec and sleep hooks are supported by this agent"),
    "tcpSocket": Refused("only exec and sleep hooks are supported by this agent"),
}

_WHOLE = "a part of a volume is not mounted by this agent; mount all of it, or name the part in the hostPath"

MOUNT: dict[str, Shape] = {
    "name": TEXT,
    "mountPath": TEXT,
    "readOnly": BOOLEAN,
    "recursiveReadOnly": Choice(("Disabled", "IfPossible", "Enabled")),
    "mountPropagation": Choice(("None", "HostToContainer", "Bidirectional")),
    "subPath": Refused(_WHOLE),
    "subPathExpr": Refused(_WHOLE),
}

PORT: dict[str, Shape] = {
    "name": TEXT,
    "containerPort": INTEGER,
    "hostPort": INTEGER,
    "hostIP": TEXT,
    "protocol": Choice(("TCP", "UDP", "SCTP")),
}

CONTAINER: dict[str, Shape] = {
    "name": TEXT,
    "image": TEXT,
    "imagePullPolicy": Choice(("Always", "IfNotPresent", "Never")),
    "command": ListOf(TEXT),
    "args": ListOf(TEXT),
    "workingDir": TEXT,
    "env": ListOf(ENV),
    "envFrom": Refused(f"{_ALONE}; list the variables in env"),
    "ports": ListOf(PORT),
    "resources": RESOURCES,
    "volumeMounts": ListOf(MOUNT),
    "volumeDevices": Refused("block volumes are not supported by this agent; mount the volume with volumeMounts"),
    "securityContext": SECURITY,
    "lifecycle": {"postStart": _ON_HOOK, "preStop": _ON_HOOK, "stopSignal": TEXT},
    "terminationMessagePath": TEXT,
    "terminationMessagePolicy": Choice(("File", "FallbackToLogsOnError")),
    "tty": BOOLEAN,
    "stdin": BOOLEAN,
    "stdinOnce": BOOLEAN,
    "livenessProbe": Later("probes are not acted upon by this agent"),
    "readinessProbe": Later("probes are not acted upon by this agent: a running container counts as ready"),
    "startupProbe": Later("probes are not acted upon by this agent"),
    "restartPolicy": Choice(("Always",)),
    "restartPolicyRules": Refused(),
    "resizePolicy": INERT,
}

_ELSEWHERE = Refused("is not mounted by this agent; use csi with its driver, or mount it on the node (hostPath)")
#: Sources that the kubelet has, or had, built in.
IN_TREE = (
    *("awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "fc", "flexVolume", "flocker"),
    *("gcePersistentDisk", "gitRepo", "glusterfs", "iscsi", "nfs", "photonPersistentDisk", "portworxVolume"),
    *("quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume"),
)

VOLUME: dict[str, Any] = {
    "name": TEXT,
    "emptyDir": {"medium": Choice(("", "Memory")), "sizeLimit": QUANTITY},
    "hostPath": {"path": TEXT, "type": TEXT},
    "csi": {
        "driver": TEXT,
        "readOnly": BOOLEAN,
        "fsType": TEXT,
        "volumeAttributes": MapOf(TEXT),
        "nodePublishSecretRef": Refused(f"{_ALONE}; a driver that needs a secret has to find it on the node"),
    },
    "persistentVolumeClaim": {"claimName": TEXT, "readOnly": BOOLEAN},
    "configMap": _NO_FILES,
    "secret": _NO_FILES,
    "projected": Refused(f"{_ALONE}; drop the service account's token, and put other files into a hostPath"),
    "downwardAPI": Refused("is not written by this agent; take the values as variables (env[].valueFrom.fieldRef)"),
    "ephemeral": Refused(f"{_ALONE}; use csi, or a claim and a PersistentVolume in the manifest directory"),
    "image": Refused("is not mounted by this agent; copy the files to an emptyDir in an init container of that image"),
    **dict.fromkeys(IN_TREE, _ELSEWHERE),
}
VOLUME_SOURCES = tuple(name for name in VOLUME if name != "name")
#: Of spec.volumes[].hostPath.type.
HOST_PATH_TYPES = ("", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice")

_SCHEDULING = ("affinity", "nodeSelector", "tolerations", "topologySpreadConstraints", "schedulerName", "nodeName")
_PRIORITY = ("priority", "priorityClassName", "preemptionPolicy", "readinessGates", "schedulingGates", "os")
_SERVICES = ("enableServiceLinks", "serviceAccount", "serviceAccountName", "automountServiceAccountToken")

SPEC: dict[str, Shape] = {
    "containers": ListOf(CONTAINER),
    "initContainers": ListOf(CONTAINER),
    "volumes": ListOf(VOLUME),
    "restartPolicy": Choice(("Always", "OnFailure", "Never")),
    "terminationGracePeriodSeconds": INTEGER,
    "activeDeadlineSeconds": INTEGER,
    "securityContext": POD_SECURITY,
    "hostNetwork": BOOLEAN,
    "hostPID": BOOLEAN,
    "hostIPC": BOOLEAN,
    "shareProcessNamespace": BOOLEAN,
    "hostname": TEXT,
    "subdomain": TEXT,
    "setHostnameAsFQDN": Later(),
    "hostnameOverride": Later(),
    "hostAliases": ListOf({"ip": TEXT, "hostnames": ListOf(TEXT)}),
    "dnsPolicy": Choice(("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")),
    "dnsConfig": {
        "nameservers": ListOf(TEXT),
        "searches": ListOf(TEXT),
        "options": ListOf({"name": TEXT, "value": TEXT}),
    },
    "imagePullSecrets": Later("needs an API server; images are pulled without these credentials"),
    "hostUsers": BOOLEAN,
    "ephemeralContainers": Refused(),
    "resourceClaims": Refused("device claims need an API server"),
    "runtimeClassName": Refused(),
    "resources": Refused("resources of a whole pod are not supported by this agent"),
    "overhead": INERT,
    **dict.fromkeys((*_SCHEDULING, *_PRIORITY, *_SERVICES), INERT),
}

POD: dict[str, Shape] = {
    "apiVersion": Choice(("v1",)),
    "kind": Choice(("Pod",)),
    "metadata": METADATA,
    "spec": SPEC,
    "status": INERT,
}
