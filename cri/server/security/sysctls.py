"""Sysctls of a pod: only those that belong to a namespace which the pod has for itself (CVE-2022-0532)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest
from runtime.linux.namespaces import sysctl_namespace

# A value is one line of one file here. The characters that made cr8escape (CVE-2022-0811) separate entries elsewhere.
_VALUE = re.compile(r"[A-Za-z0-9_./:, \t-]{0,1024}")


def checked_sysctls(sysctls: Mapping[str, str], namespaces: api.NamespaceOption) -> dict[str, str]:
    """The sysctls of a pod as they are; raises InvalidRequest for any that is not the pod's own."""
    for name, value in sysctls.items():
        _check_name(name, namespaces)
        if not _VALUE.fullmatch(value):
            raise InvalidRequest(
                f"sysctl {name}: the value {value[:80]!r} holds characters that no namespaced sysctl takes"
            )
    return dict(sysctls)


def _check_name(name: str, namespaces: api.NamespaceOption) -> None:
    try:
        owner = sysctl_namespace(name)
    except ValueError as error:
        raise InvalidRequest(f"{error}; a pod can set the sysctls of its own namespaces only") from error
    if (namespaces.network if owner == "net" else namespaces.ipc) == api.NODE:
        raise InvalidRequest(f"sysctl {name!r} would change the host: the pod uses the host's {owner} namespace")
