"""From a CRI container configuration to what the runtime starts: image, user, mounts and security settled.

All that has to look at file systems of others (sources of mounts, device nodes) happens in one look (sources.py): a
source that hangs then hangs this one request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.cdi.edits import inject
from cri.server.cdi.names import requested_names
from cri.server.daemon import Daemon, pod_of
from cri.server.errors import InvalidRequest, NotFound
from cri.server.handlers import chosen
from cri.server.pods import Sandbox
from cri.server.seccomp.choice import compiled_filter, filter_document
from cri.server.security.selinux import Labels, check_relabel, relabel, shared
from cri.server.security.user_namespaces import check_container, check_identity, mode_name, try_volumes
from cri.server.security.users import Identity, resolve_identity
from cri.server.specs.declared_volumes import with_declared
from cri.server.specs.mounts import OciMount, host_volume, image_volume
from cri.server.specs.oci import Surroundings, oci_config
from cri.server.specs.sources import look
from images import Image
from runtime.linux.overlay import OverlayRootfs
from runtime.spec import ContainerSpec


@dataclass(frozen=True, slots=True)
class Settled:
    """Who the container runs as, and the runtime's spec of it (without a log path yet)."""

    identity: Identity
    spec: ContainerSpec


async def settle(
    daemon: Daemon, sandbox: Sandbox, id: str, config: api.ContainerConfig, image: Image, snapshots: list[str]
) -> Settled:
    """Settle everything; each snapshot that is made is added to `snapshots` first, for the caller to give back.

    Raises InvalidRequest, NotFound, WrongState, ImageError, OSError.
    """
    context = config.linux.security_context
    _check_security(sandbox, context)
    rootfs = await _snapshot(daemon, sandbox, id, image, snapshots)
    check_container(sandbox.options, context.namespace_options)
    accounts = await daemon.accounts.of_image(image.id, rootfs.lower)
    identity = resolve_identity(accounts, context, _user(image))
    check_identity(identity, sandbox.userns)
    images = await _image_volumes(daemon, sandbox, id, config, snapshots)
    labels = daemon.selinux.labels(sandbox.id, _pod_labels(sandbox), context.selinux_options, context.privileged)
    around = _surroundings(daemon, sandbox, id, config, labels)
    document = await _settled_document(daemon, sandbox, config, image, identity, around, images)
    if declared := image.config.get("Volumes"):
        document["mounts"] = await asyncio.to_thread(
            with_declared, document["mounts"], declared, rootfs, sandbox.userns, labels.mount
        )
    confined = {"apparmorProfile": await daemon.apparmor.profile_of(context), "selinuxLabel": labels.process}
    document["process"] |= {name: value for name, value in confined.items() if value}
    options = context.namespace_options
    spec = ContainerSpec(
        id=id,
        sandbox_id=sandbox.id,
        oci=document,
        rootfs=rootfs,
        rootfs_readonly=context.readonly_rootfs,
        tty=config.tty,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        seccomp_filter=await _seccomp_filter(daemon, sandbox, context, document),
        pid_own=options.pid == api.CONTAINER,
        pid_target=_target(sandbox, options) if options.pid == api.TARGET else "",
        devices_all=context.privileged and around.host_devices,
        external=sandbox.runtime is not None,
    )
    return Settled(identity, spec)


def _check_security(sandbox: Sandbox, context: api.LinuxContainerSecurityContext) -> None:
    if context.privileged and not sandbox.config.linux.security_context.privileged:
        raise InvalidRequest("a privileged container needs a sandbox whose security context is privileged too")
    for field in ("network", "ipc", "pid"):
        asked, given = getattr(context.namespace_options, field), getattr(sandbox.options, field)
        # POD is also what an absent field says; a container then takes what its pod has. Less it can always have.
        if asked not in (given, api.POD) and not (field == "pid" and asked in (api.CONTAINER, api.TARGET)):
            raise InvalidRequest(f"namespace_options.{field} is {mode_name(asked)}, but the pod has {mode_name(given)}")


async def _snapshot(daemon: Daemon, sandbox: Sandbox, key: str, image: Image, snapshots: list[str]) -> OverlayRootfs:
    snapshots.append(key)
    return await daemon.images.containers.prepare(key, image.id, holder=sandbox.id)


async def _image_volumes(
    daemon: Daemon, sandbox: Sandbox, id: str, config: api.ContainerConfig, snapshots: list[str]
) -> dict[int, OverlayRootfs]:
    """The layers of each mount that is an image, by its place in the request; its digest is noted down there."""
    images: dict[int, OverlayRootfs] = {}
    for number, mount in enumerate(config.mounts):
        if not mount.HasField("image") or not mount.image.image:
            continue
        if mount.host_path:
            raise InvalidRequest(f"mount {mount.container_path}: host_path and image are both set")
        if (image := daemon.images.get(mount.image.image)) is None:
            raise NotFound(
                f"mount {mount.container_path}: image {mount.image.image[:200]!r} is not on this node; pull it first"
            )
        images[number] = await _snapshot(daemon, sandbox, f"{id}-volume-{number}", image, snapshots)
        mount.image.image_ref = image.digest_ref  # for ContainerStatus (KEP-5365)
    return images


async def _settled_document(
    daemon: Daemon,
    sandbox: Sandbox,
    config: api.ContainerConfig,
    image: Image,
    identity: Identity,
    around: Surroundings,
    images: Mapping[int, OverlayRootfs],
) -> dict[str, Any]:
    """The OCI document; a thread is spent where there are file systems of others to look at."""
    cdi = requested_names((device.name for device in config.CDI_devices), config.annotations)
    if config.mounts or config.devices or cdi or around.mount_label:
        document = await look(sandbox.id, _document, config, image.config, identity, around, images)
    else:
        document = _document(config, image.config, identity, around, images)
    if cdi:
        await look(sandbox.id, inject, daemon.cdi, cdi, document)
    return document


def _document(
    config: api.ContainerConfig,
    image: Mapping[str, Any],
    identity: Identity,
    around: Surroundings,
    images: Mapping[int, OverlayRootfs],
) -> dict[str, Any]:
    volumes: list[OciMount] = [
        _image_volume(mount, images[number], around) if number in images else host_volume(mount, around.userns)
        for number, mount in enumerate(config.mounts)
    ]
    try_volumes(volumes, around.etc.parent / "ns/user")
    if around.mount_label:
        _relabel(config, volumes, around)
    return oci_config(config, image, identity, around, volumes)


def _image_volume(mount: api.Mount, image: OverlayRootfs, around: Surroundings) -> OciMount:
    volume = image_volume(mount, image.lower, around.userns, image.upper if around.mount_label else "")
    if around.mount_label and volume["type"] == "bind":  # one file of the image, for all who mount it
        relabel(volume["source"], shared(around.mount_label))
    return volume


def _relabel(config: api.ContainerConfig, volumes: Sequence[OciMount], around: Surroundings) -> None:
    """Give the pod's own files, and the volumes that ask for it, to the container's SELinux label. Blocks."""
    asked = [volume["source"] for mount, volume in zip(config.mounts, volumes, strict=True) if mount.selinux_relabel]
    for source in asked:
        check_relabel(source)
    own = [around.shm] if around.shm != "/dev/shm" else []
    for path in (*own, str(around.etc), *asked):
        relabel(path, around.mount_label)


def _pod_labels(sandbox: Sandbox) -> api.SELinuxOption:
    return sandbox.config.linux.security_context.selinux_options


def _surroundings(
    daemon: Daemon, sandbox: Sandbox, id: str, config: api.ContainerConfig, labels: Labels
) -> Surroundings:
    handler = daemon.handlers.options(sandbox.runtime_handler)
    return Surroundings(
        hostname=sandbox.hostname,
        etc=Path(daemon.sandbox_directory(sandbox.id), "etc"),
        shm="/dev/shm" if sandbox.options.ipc == api.NODE else pod_of(sandbox).shm_path,
        cgroup=f"{sandbox.cgroup}/{id}",
        userns=sandbox.userns,
        host_network=sandbox.host_network,
        mount_label=labels.mount,
        host_devices=not handler.privileged_without_host_devices,
        devices_owned=daemon.config.device_ownership_from_security_context,
        cgroup_writable=handler.cgroup_writable,
        annotations={
            **chosen(sandbox.config.annotations, handler.pod_annotations),
            **chosen(config.annotations, handler.container_annotations),
        },
    )


async def _seccomp_filter(
    daemon: Daemon, sandbox: Sandbox, context: api.LinuxContainerSecurityContext, document: dict[str, Any]
) -> str:
    """The path of the compiled filter; an external runtime finds its filter in the document, and compiles it itself."""
    capabilities = frozenset(document["process"]["capabilities"]["bounding"])
    if sandbox.runtime is None:
        return await compiled_filter(daemon.profiles, context, capabilities)
    if filter := await filter_document(daemon.profiles, context, capabilities):
        document["linux"]["seccomp"] = filter
    return ""


def _target(sandbox: Sandbox, options: api.NamespaceOption) -> str:
    target = sandbox.containers.get(options.target_id)
    if target is None:
        raise InvalidRequest(f"namespace_options.target_id {options.target_id[:80]!r} is no container of this pod")
    if not target.running:
        raise InvalidRequest(f"target container {target.name} does not run; its PID namespace is gone")
    return target.id


def _user(image: Image) -> str:
    user = image.config.get("User")
    return user if isinstance(user, str) else ""
