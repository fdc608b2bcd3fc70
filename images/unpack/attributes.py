"""Ownership, mode, times and extended attributes, set in the order that keeps them.

chown(2) clears set-id bits and file capabilities, so it comes first; the mode follows, then the attributes. Times
come last, since everything before changes them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from images.errors import TooLarge
from images.limits import Limits

#: Attributes that a layer may set. `trusted.*` steers overlayfs itself (redirects, opaque directories, metacopy)
#: and `user.overlay.*` would do so on mounts with `userxattr`; labels of security modules belong to this host.
ALLOWED = frozenset({"security.capability", "system.posix_acl_access", "system.posix_acl_default"})
USER = "user."
USER_OVERLAY = "user.overlay."
#: What setting an attribute may fail with on a filesystem, or a file type, that has none of this kind.
UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EPERM})


def allowed(name: str) -> bool:
    """Whether a layer may set this extended attribute."""
    return name in ALLOWED or (name.startswith(USER) and not name.startswith(USER_OVERLAY))


def set_xattrs(where: int | str, xattrs: Mapping[str, bytes], limits: Limits) -> None:
    """Set those that are allowed, on an fd or on a path below /proc/self/fd that ends in a name, links not followed."""
    for name, value in xattrs.items():
        if not allowed(name):
            continue
        if len(value) > limits.xattr or len(name) > 255:
            raise TooLarge(f"an extended attribute of {len(value)} bytes: {name[:80]}")
        try:
            os.setxattr(where, name, value, follow_symlinks=isinstance(where, int))
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise


def xattrs_of(fd: int) -> dict[str, bytes]:
    """The allowed attributes that a file has; `fd` may be an O_PATH one."""
    path = f"/proc/self/fd/{fd}"
    return {name: os.getxattr(path, name) for name in os.listxattr(path) if allowed(name)}
