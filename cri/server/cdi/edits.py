"""What CDI devices mean for a container: edits of its OCI document (SPEC.md, "OCI Edits").

They are the administrator's word and stand over the request's: a device node or mount takes the place of one at the
same path. What this runtime has no part in (network devices, resctrl) is refused, because a device without it would
not be what its vendor describes.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Sequence
from typing import Any

from cri.server.cdi.registry import Registry
from cri.server.cdi.specs import Edits
from cri.server.errors import InvalidRequest, NotFound
from cri.server.specs.mounts import in_order

Document = dict[str, Any]
REFUSED = {"netDevices": "moving network devices", "intelRdt": "resctrl (intelRdt)"}
_BIND = frozenset({"bind", "rbind"})
_TYPES = {stat.S_IFBLK: "b", stat.S_IFCHR: "c", stat.S_IFIFO: "p"}


def inject(registry: Registry, names: Sequence[str], document: Document) -> None:
    """Give a container the devices of these names. Blocks; raises NotFound, InvalidRequest."""
    apply_edits(document, registry.edits(names))


def apply_edits(document: Document, edits: Iterable[Edits]) -> None:
    """Change `document` in place. Blocks on device nodes and mount sources; raises InvalidRequest, NotFound."""
    for each in edits:
        for name, what in REFUSED.items():
            if each.get(name):
                raise InvalidRequest(f"a CDI device asks for {name}, but {what} is not supported here")
        _environment(document["process"], each.get("env") or ())
        for node in each.get("deviceNodes") or ():
            _device_node(document, node)
        for mount in each.get("mounts") or ():
            _mount(document["mounts"], mount)
        for hook in each.get("hooks") or ():
            _hook(document, hook)
        groups = document["process"]["user"]["additionalGids"]
        groups += [gid for gid in each.get("additionalGids") or () if gid and gid not in groups]
    document["mounts"] = in_order(document["mounts"])


def _environment(process: Document, variables: Iterable[str]) -> None:
    for variable in variables:
        name = variable.partition("=")[0]
        kept = [line for line in process["env"] if line.partition("=")[0] != name]
        process["env"] = [*kept, variable]


def _device_node(document: Document, node: Edits) -> None:
    user, linux = document["process"]["user"], document["linux"]
    found = _complete(node)
    device = {
        "path": posixpath.normpath(node["path"]),
        **found,
        "uid": node.get("uid") if node.get("uid") is not None else user["uid"],
        "gid": node.get("gid") if node.get("gid") is not None else user["gid"],
    }
    linux["devices"] = [*(each for each in linux["devices"] if each["path"] != device["path"]), device]
    if device["type"] != "p":
        rule = {
            "allow": True,
            "type": "b" if device["type"] == "b" else "c",
            "access": node.get("permissions") or "rwm",
        }
        linux["resources"]["devices"].append(rule | {"major": device["major"], "minor": device["minor"]})


def _complete(node: Edits) -> Document:
    """Type, numbers and mode; what the description leaves open is as the node of the host has it."""
    path, kind = node.get("hostPath") or node["path"], node.get("type") or ""
    settled = bool(kind) and (bool(node.get("major")) or kind == "p")
    try:
        status = os.stat(path)
    except OSError as error:
        if not settled:
            raise NotFound(f"device node {path} of a CDI device: {error.strerror}") from error
        status = None
    mode = node.get("fileMode")
    if mode is None:
        mode = stat.S_IMODE(status.st_mode) if status is not None else 0o666
    if settled or status is None:
        return {"type": kind, "major": node.get("major") or 0, "minor": node.get("minor") or 0, "fileMode": mode}
    found = _TYPES.get(stat.S_IFMT(status.st_mode), "")
    if not found or (kind and kind.replace("u", "c") != found):
        raise InvalidRequest(f"device node {path} of a CDI device is not of type {kind or 'b, c or p'}")
    return {"type": found, "major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev), "fileMode": mode}


def _mount(mounts: list[Document], mount: Edits) -> None:
    target = posixpath.normpath("/" + mount["containerPath"]).replace("//", "/")
    if target == "/":
        raise InvalidRequest("a mount of a CDI device has the containerPath '/'")
    options, kind = list(mount.get("options") or ()), mount.get("type") or ""
    if kind in ("", "none", "bind") or not _BIND.isdisjoint(options):
        kind = "bind"
        options = options if not _BIND.isdisjoint(options) else ["rbind", *options]
        if not os.path.lexists(mount["hostPath"]):
            raise NotFound(f"mount source {mount['hostPath']} of a CDI device does not exist")
    mounts[:] = [each for each in mounts if each["destination"] != target]
    mounts.append({"destination": target, "type": kind, "source": mount["hostPath"], "options": options})


def _hook(document: Document, hook: Edits) -> None:
    made = {"path": hook["path"], **{key: hook[key] for key in ("args", "env", "timeout") if hook.get(key)}}
    document.setdefault("hooks", {}).setdefault(hook["hookName"], []).append(made)
