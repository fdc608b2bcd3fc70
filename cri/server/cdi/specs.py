"""One specification file, as JSON or YAML: its devices, or why it cannot be used.

Everything is checked when the file is read, so that a device which is found can be applied: fields of a later version
than the file says, unknown fields (SPEC.md: "spec loading fails on unknown fields"), names, paths, and shapes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cri.server.cdi.names import DEVICE, split_kind
from runtime.linux.files import read_limited

SIZE_MAX = 4 << 20
DEVICES_MAX = 4096
VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
Edits = dict[str, Any]
Check = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Specification:
    """A usable file: the edits of each device by its qualified name, and those that any of them brings along."""

    path: str
    edits: Edits
    devices: Mapping[str, Edits] = field(default_factory=dict)


def read_specification(path: Path) -> Specification:
    """Read and check a file. Blocks; raises OSError, ValueError with the reason."""
    content = read_limited(path, SIZE_MAX)
    if path.suffix == ".json":
        document = json.loads(content)
    else:
        import yaml  # few nodes have such files

        try:
            document = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.YAMLError as error:
            raise ValueError(f"not YAML: {error}") from error
    return _specification(str(path), document)


def _specification(path: str, document: Any) -> Specification:
    _known(document, "the file", {"cdiVersion": _text, "kind": _text, "devices": _list})
    version = document["cdiVersion"].removeprefix("v")
    if version not in VERSIONS:
        raise ValueError(f"cdiVersion {version[:40]!r} is none of {', '.join(VERSIONS)}")
    since = _Since(VERSIONS.index(version))
    optional: dict[str, Check] = {"annotations": _mapping, "containerEdits": _mapping}
    _known(document, "the file", {"cdiVersion": _text, "kind": _text, "devices": _list}, optional)
    kind = document["kind"]
    since.demand("0.6.0", "annotations", "annotations" in document)
    since.demand("0.6.0", "a dot in the class", "." in split_kind(kind)[1])
    if not 1 <= len(document["devices"]) <= DEVICES_MAX:
        raise ValueError(f"it has {len(document['devices'])} devices; 1 to {DEVICES_MAX} are allowed")
    devices: dict[str, Edits] = {}
    for device in document["devices"]:
        _known(device, "a device", {"name": _text}, {"annotations": _mapping, "containerEdits": _mapping})
        name = device["name"]
        if not DEVICE.fullmatch(name) or f"{kind}={name}" in devices:
            raise ValueError(f"device name {name[:100]!r} is malformed or there twice")
        since.demand("0.5.0", f"device {name}: a digit in front", name[0].isdigit())
        since.demand("0.6.0", f"device {name}: annotations", "annotations" in device)
        devices[f"{kind}={name}"] = _edits(device.get("containerEdits") or {}, f"device {name}", since)
    return Specification(path, _edits(document.get("containerEdits") or {}, "containerEdits", since), devices)


class _Since:
    """The version that a file says it has, against what its fields need."""

    def __init__(self, given: int) -> None:
        self._given = given

    def demand(self, version: str, what: str, used: bool) -> None:
        if used and VERSIONS.index(version) > self._given:
            raise ValueError(f"{what} came with CDI {version}, but cdiVersion is {VERSIONS[self._given]}")


def _edits(edits: Edits, where: str, since: _Since) -> Edits:
    optional: dict[str, Check] = {
        **dict.fromkeys(("env", "deviceNodes", "mounts", "hooks", "additionalGids", "netDevices"), _list),
        "intelRdt": _mapping,
    }
    _known(edits, where, {}, optional)
    for name, version in (("intelRdt", "0.7.0"), ("additionalGids", "0.7.0"), ("netDevices", "1.1.0")):
        since.demand(version, f"{where}: {name}", name in edits)
    for variable in edits.get("env") or ():
        _demand(_text(variable) and variable.find("=") > 0 and "\0" not in variable, where, f"env {variable!r}")
    for node in edits.get("deviceNodes") or ():
        _device_node(node, where, since)
    for mount in edits.get("mounts") or ():
        _known(mount, where, {"hostPath": _text, "containerPath": _path}, {"options": _texts, "type": _text})
        since.demand("0.4.0", f"{where}: type of a mount", "type" in mount)
    for hook in edits.get("hooks") or ():
        optional = {"args": _texts, "env": _texts, "timeout": _positive}
        _known(hook, where, {"hookName": _text, "path": _path}, optional)
        _demand(hook["hookName"] in HOOKS, where, f"hookName {hook['hookName'][:40]!r} is none of {', '.join(HOOKS)}")
    for gid in edits.get("additionalGids") or ():
        _demand(_number(gid) and gid < 2**32 - 1, where, f"additionalGids: {gid!r} is no group id")
    return edits


def _device_node(node: Any, where: str, since: _Since) -> None:
    numbers: dict[str, Check] = dict.fromkeys(("major", "minor", "fileMode", "uid", "gid"), _number)
    _known(node, where, {"path": _path}, {"hostPath": _path, "type": _text, "permissions": _text, **numbers})
    since.demand("0.5.0", f"{where}: hostPath of a device node", "hostPath" in node)
    _demand(node.get("type", "c") in ("b", "c", "u", "p"), where, f"type {node.get('type')!r} is none of b, c, u, p")
    permissions = node.get("permissions", "rwm")
    _demand(set(permissions) <= set("rwm"), where, f"permissions {permissions[:16]!r} are not of r, w, m")


def _known(
    document: Any, where: str, required: Mapping[str, Check], optional: Mapping[str, Check] | None = None
) -> None:
    """Check an object's fields; the first pass over the file, without `optional`, lets unknown ones through."""
    _demand(isinstance(document, dict), where, "is no object")
    for name, check in required.items():
        _demand(name in document and check(document[name]), where, f"{name} is missing or malformed")
    if optional is None:
        return
    for name, value in document.items():
        _demand(name in required or name in optional, where, f"unknown field {name!r}")
        _demand(name not in optional or value is None or optional[name](value), where, f"{name} is malformed")


def _demand(true: bool, where: str, what: str) -> None:
    if not true:
        raise ValueError(f"{where}: {what}")


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _path(value: Any) -> bool:
    return _text(value) and value.startswith("/") and "\0" not in value


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and "\0" not in item for item in value)


def _list(value: Any) -> bool:
    return isinstance(value, list)


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _positive(value: Any) -> bool:
    return _number(value) and value > 0
