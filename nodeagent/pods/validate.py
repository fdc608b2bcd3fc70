"""Is this document a pod that the agent can run? Every finding names its field; nothing here stops at the first.

Source of the rules: pkg/apis/core/validation in Kubernetes. The shape is checked first (shape.py), and what follows
may rely on it: with a shape error nothing further is checked, since a wrong type would make the rest meaningless.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from nodeagent.pods import names
from nodeagent.pods.fields import POD
from nodeagent.pods.problems import Findings, Path
from nodeagent.pods.shape import check
from nodeagent.pods.validate_containers import check_containers
from nodeagent.pods.validate_security import check_pod_security
from nodeagent.pods.validate_volumes import check_volumes

#: Bytes of all annotations together, as in the API.
ANNOTATIONS_LIMIT = 256 << 10


def check_pod(document: Any) -> Findings:
    findings = Findings()
    check(document, POD, (), findings)
    if findings.errors:
        return findings
    check_metadata(document.get("metadata") or {}, findings)
    spec = document.get("spec")
    if not spec:
        findings.required(("spec",))
        return findings
    volumes = check_volumes(spec, findings)
    check_containers(spec, volumes, findings)
    check_pod_security(spec, findings)
    _check_times(spec, findings)
    _check_host(spec, findings)
    _check_dns(spec, findings)
    return findings


def check_metadata(metadata: dict[str, Any], findings: Findings) -> None:
    path: Path = ("metadata",)
    if not metadata.get("name"):
        findings.required((*path, "name"))
    for key, wrong in (("name", names.subdomain), ("namespace", names.label), ("uid", names.uid)):
        value = metadata.get(key)
        if value and (why := wrong(value)):
            findings.invalid((*path, key), value, why)
    for key, value in (metadata.get("labels") or {}).items():
        if why := names.label_key(key) or names.label_value(value or ""):
            findings.invalid((*path, "labels", key), value, why)
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        if why := names.label_key(key.lower()):
            findings.invalid((*path, "annotations", key), key, why)
    size = sum(len(key) + len(value or "") for key, value in annotations.items())
    if size > ANNOTATIONS_LIMIT:
        findings.error((*path, "annotations"), f"Too long: {size} bytes: must have at most {ANNOTATIONS_LIMIT}")


def _check_times(spec: dict[str, Any], findings: Findings) -> None:
    for key, least in (("terminationGracePeriodSeconds", 0), ("activeDeadlineSeconds", 1)):
        value = spec.get(key)
        if value is not None and not least <= value < 2**31:
            findings.invalid(("spec", key), value, f"must be from {least} to 2147483647 seconds")


def _check_host(spec: dict[str, Any], findings: Findings) -> None:
    for key in ("hostname", "subdomain"):
        value = spec.get(key)
        if value and (why := names.label(value)):
            findings.invalid(("spec", key), value, why)
    if spec.get("hostUsers") is False:
        findings.error(("spec", "hostUsers"), "Forbidden: user namespaces of pods are not supported by this agent")
    for index, alias in enumerate(spec.get("hostAliases") or []):
        path = ("spec", "hostAliases", index)
        _check_ip(alias.get("ip"), (*path, "ip"), findings)
        for place, hostname in enumerate(alias.get("hostnames") or []):
            if why := names.subdomain(hostname):
                findings.invalid((*path, "hostnames", place), hostname, why)


def _check_dns(spec: dict[str, Any], findings: Findings) -> None:
    config = spec.get("dnsConfig") or {}
    path: Path = ("spec", "dnsConfig")
    servers = config.get("nameservers") or []
    if spec.get("dnsPolicy") == "None" and not servers:
        findings.required((*path, "nameservers"), 'at least one, since dnsPolicy is "None"')
    if len(servers) > 3:
        findings.invalid((*path, "nameservers"), servers, "must not have more than 3 nameservers")
    for index, server in enumerate(servers):
        _check_ip(server, (*path, "nameservers", index), findings)
    searches = config.get("searches") or []
    if len(searches) > 32 or sum(map(len, searches)) + len(searches) > 2048:
        findings.invalid((*path, "searches"), len(searches), "must be at most 32 domains and 2048 characters")
    for index, domain in enumerate(searches):
        if domain != "." and (why := names.subdomain(domain.rstrip(".").replace("_", "x"))):
            findings.invalid((*path, "searches", index), domain, why)
    for index, option in enumerate(config.get("options") or []):
        if not option.get("name") or any(c.isspace() for c in option["name"] + (option.get("value") or "")):
            findings.invalid((*path, "options", index), option.get("name") or "", "must be one word")


def _check_ip(value: str | None, path: Path, findings: Findings) -> None:
    if not value:
        return findings.required(path)
    try:
        ipaddress.ip_address(value)
    except ValueError:
        findings.invalid(path, value, "must be an IP address such as 10.0.0.1 or fd00::1")
