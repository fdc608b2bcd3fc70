"""Names as the API constrains them. Source: k8s.io/apimachinery/pkg/util/validation, RFC 1123, RFC 6335.

Many of these end in paths (log directories, volume directories), so they also keep "/" and ".." out of those.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_UID = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9]{0,62}[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_ENV = re.compile(r"[!-<>-~][ -<>-~]{0,255}")
_SYSCTL = re.compile(r"[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)+")

#: What is wrong with a name, or None.
Check = Callable[[str], str | None]


def label(name: str) -> str | None:
    if _LABEL.fullmatch(name):
        return None
    return 'must be at most 63 lower case letters, digits or "-", starting and ending with a letter or digit'


def subdomain(name: str) -> str | None:
    if len(name) <= 253 and _SUBDOMAIN.fullmatch(name):
        return None
    return 'must be at most 253 lower case letters, digits, "-" or ".", starting and ending with a letter or digit'


def uid(name: str) -> str | None:
    return None if _UID.fullmatch(name) else 'must be at most 64 letters, digits or "-", such as a UUID'


def label_key(key: str) -> str | None:
    prefix, slash, name = key.rpartition("/")
    if slash and subdomain(prefix):
        return "its prefix must be a DNS subdomain"
    return label_value(name) if name else "must have a name after its prefix"


def label_value(value: str) -> str | None:
    if not value or _QUALIFIED.fullmatch(value):
        return None
    return 'must be at most 63 letters, digits, "-", "_" or ".", starting and ending with a letter or digit'


def port(name: str) -> str | None:
    if _PORT_NAME.fullmatch(name):
        return None
    return 'must be at most 15 lower case letters, digits or single "-", with at least one letter'


def env(name: str) -> str | None:
    return None if _ENV.fullmatch(name) else 'must be printable ASCII without "="'


def sysctl(name: str) -> str | None:
    return (
        None if len(name) <= 253 and _SYSCTL.fullmatch(name) else "must be a sysctl's name such as net.core.somaxconn"
    )
