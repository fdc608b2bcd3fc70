"""Which SELinux labels a container and its files have, and relabelling volumes for it.

The policy's own file says what containers are (selinux_lxc_contexts_path(3)); a request may change each part. Two pods
are kept apart by their level: a pair of categories that follows from the pod's id, so that nothing has to be kept for
it. On a kernel without SELinux labels mean nothing, and the request's are passed over, as by the peers.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest
from runtime.linux.fds import Fd
from runtime.linux.files import read_limited
from runtime.linux.lsm import LABEL, SELINUX, selinux_enabled, set_label
from runtime.linux.syscalls import AT_FDCWD, RESOLVE_NO_SYMLINKS, openat2

CONFIG: Final = Path("/etc/selinux")
CATEGORIES: Final = 1024
_PART: Final = re.compile(r"[A-Za-z0-9_.-]*")
_LEVEL: Final = re.compile(r"(s\d{1,2}(-s\d{1,2})?(:c\d{1,4}([.,]c\d{1,4})*)?)?")
_DEFAULTS: Final = {
    "process": "system_u:system_r:container_t:s0",
    "file": "system_u:object_r:container_file_t:s0",
    "ro_file": "system_u:object_r:container_ro_file_t:s0",
}

#: Directories whose files the node itself needs under the labels that they have (CVE-2021-43816).
SYSTEM: Final = frozenset(
    {
        *("/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp"),
        *("/var", "/var/lib", "/var/log", "/var/run", "/var/tmp"),
    }
)
#: These and all below them: no label there is anybody's to change but the distribution's.
SYSTEM_TREES: Final = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr")


@dataclass(frozen=True, slots=True)
class Labels:
    """Of the container's processes, and of its files and mounts; "" for none."""

    process: str = ""
    mount: str = ""


class Selinux:
    """The host's SELinux, or its absence. `directory` holds the policies, `kernel` is what runs one of them."""

    def __init__(self, enabled: bool | None = None, directory: Path = CONFIG, kernel: Path = Path(SELINUX)) -> None:
        self.enabled = selinux_enabled() if enabled is None else enabled
        self._kernel = kernel
        self._contexts = _contexts(directory) if self.enabled else _DEFAULTS

    def labels(self, sandbox_id: str, pod: api.SELinuxOption, own: api.SELinuxOption, privileged: bool) -> Labels:
        """The labels of a container; its own options come before its pod's. Raises InvalidRequest."""
        parts = {name: getattr(own, name) or getattr(pod, name) for name in ("user", "role", "type", "level")}
        for name, value in parts.items():
            if not (_LEVEL if name == "level" else _PART).fullmatch(value):
                raise InvalidRequest(f"selinux_options.{name} {value[:80]!r} is no {name} of a context")
        if not self.enabled:
            return Labels()
        level = parts["level"] or f"s0:{_categories(sandbox_id)}"
        process = _with(self._contexts["process"], parts["user"], parts["role"], parts["type"], level)
        # Files keep the policy's user, role and type: the options describe processes.
        labels = Labels("" if privileged else process, _with(self._contexts["file"], "", "", "", level))
        for label in filter(None, (labels.process, labels.mount)):
            if not self._knows(label):
                raise InvalidRequest(
                    f"the policy that this node runs has no SELinux context {label[:200]!r}; ask for another by "
                    "selinux_options, or install container-selinux"
                )
        return labels

    def share_layers(self, directory: Path) -> None:
        """Let containers read what is unpacked into a directory; what is made in there later inherits it. Blocks.

        They see the labels of their mounts, but for a file that is mapped, kernels such as 6.1 ask for the label that
        it has in its layer. The directory itself comes last: it tells whether all this has been done.
        """
        label = self._contexts["ro_file"]
        if not self.enabled or not self._knows(label):
            return
        directory.mkdir(parents=True, exist_ok=True)
        if os.getxattr(directory, LABEL) != label.encode() + b"\0":
            for part in directory.iterdir():
                relabel(str(part), label)
            with _where_files_have_labels():
                set_label(str(directory), label)

    def _knows(self, label: str) -> bool:
        """Whether the policy has it: the kernel's answer, as by security_check_context(3)."""
        try:
            (self._kernel / "context").write_bytes(label.encode() + b"\0")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        return True


def _with(context: str, user: str, role: str, type: str, level: str) -> str:
    was_user, was_role, was_type, _ = context.split(":", 3)
    return ":".join([user or was_user, role or was_role, type or was_type, level])


def _categories(sandbox_id: str) -> str:
    """Two different categories, the lower one first: one of half a million pairs."""
    number = int.from_bytes(hashlib.sha256(sandbox_id.encode()).digest()[:8], "big")
    first, second = number % CATEGORIES, number // CATEGORIES % (CATEGORIES - 1)
    second += second >= first
    return f"c{min(first, second)},c{max(first, second)}"


def _contexts(directory: Path) -> dict[str, str]:
    """`process`, `file` and `ro_file` of the policy's lxc_contexts; a policy without that file has the usual ones."""
    with contextlib.suppress(OSError, ValueError):
        config = read_limited(directory / "config", 1 << 16).decode()
        policy = re.search(r"^SELINUXTYPE\s*=\s*([\w-]+)", config, re.MULTILINE)
        if policy is None:
            return _DEFAULTS
        text = read_limited(directory / policy[1] / "contexts/lxc_contexts", 1 << 16).decode()
        found = dict(re.findall(r'^(process|file|ro_file)\s*=\s*"([^"]+)"', text, re.MULTILINE))
        return _DEFAULTS | {name: context for name, context in found.items() if context.count(":") >= 3}
    return _DEFAULTS


def check_relabel(path: str) -> None:
    """Refuse to relabel what the node lives on; `path` is free of links. Raises InvalidRequest."""
    if path in SYSTEM or f"{path}/".startswith(tuple(f"{tree}/" for tree in SYSTEM_TREES)):
        raise InvalidRequest(
            f"selinux_relabel of a mount of {path} would take the files of the node itself away from it; "
            "mount a directory of the pod's own, or leave the labels as they are"
        )


def shared(label: str) -> str:
    """The same label for containers of all pods: without categories."""
    return ":".join([*label.split(":")[:3], "s0"])


def relabel(path: str, label: str) -> None:
    """Give a file, or a tree without following links, to `label`. Blocks; a filesystem without labels is left as it is.

    The path was free of links when it was looked at; a link that has come into it since is refused (ELOOP). Raises
    OSError.
    """
    with Fd(openat2(AT_FDCWD, path, os.O_PATH, resolve=RESOLVE_NO_SYMLINKS)) as fd:
        top = f"/proc/self/fd/{fd.fileno()}"
        with _where_files_have_labels():
            set_label(top, label)
            if stat.S_ISDIR(os.fstat(fd.fileno()).st_mode):
                for _, directories, files, place in os.fwalk(".", dir_fd=fd.fileno()):
                    for name in (*directories, *files):
                        set_label(f"/proc/self/fd/{place}/{name}", label, follow=False)


@contextlib.contextmanager
def _where_files_have_labels() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
