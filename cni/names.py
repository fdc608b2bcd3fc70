"""Names that end up in file paths, in arguments of programs and in the kernel, checked once at the border.

A plugin's type is the name of a program that runs as root, and the network's name becomes a directory, so a slash in
either is the way out of the directory that was meant (CVE-2021-20206).
"""

from __future__ import annotations

import re
from typing import Final

from cni.errors import InvalidConfig, InvalidEnvironment

#: SPEC.md, "Configuration format": for networks and container ids alike.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_PLUGIN_TYPE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-+]*")
#: Together with an interface name they make a file name in the result cache, at most 255 bytes.
NETWORK_LIMIT: Final = 128
CONTAINER_ID_LIMIT: Final = 100
#: IFNAMSIZ of linux/if.h counts the closing NUL.
IFNAME_LIMIT: Final = 15


def check_network_name(name: object) -> str:
    """The name of a network, or InvalidConfig."""
    if not isinstance(name, str) or not name:
        raise InvalidConfig("missing network name", 'set "name" in the network configuration')
    if len(name) > NETWORK_LIMIT or not _NAME.fullmatch(name):
        raise InvalidConfig(
            f"network name {name!r} is not usable",
            f"it starts with a letter or digit, goes on with those and _.-, up to {NETWORK_LIMIT}",
        )
    return name


def check_plugin_type(name: object) -> str:
    """The type of a plugin, which is the name of its program, or InvalidConfig."""
    if not isinstance(name, str) or not name:
        raise InvalidConfig('plugin without "type"', "the type is the name of the plugin's program")
    if len(name) > NETWORK_LIMIT or not _PLUGIN_TYPE.fullmatch(name):
        raise InvalidConfig(f"plugin type {name!r} is not usable", "it is a file name, without a directory")
    return name


def check_container_id(container_id: str) -> str:
    """A container id, or InvalidEnvironment."""
    if len(container_id) > CONTAINER_ID_LIMIT or not _NAME.fullmatch(container_id):
        raise InvalidEnvironment(
            f"container id {container_id!r} (CNI_CONTAINERID) is not usable",
            f"it starts with a letter or digit, goes on with those and _.-, up to {CONTAINER_ID_LIMIT}",
        )
    return container_id


def check_ifname(ifname: str) -> str:
    """The name of a network interface (dev_valid_name() of net/core/dev.c), or InvalidEnvironment."""
    fits = 0 < len(ifname.encode()) <= IFNAME_LIMIT and ifname not in (".", "..")
    if not fits or any(letter in "/:" or letter.isspace() for letter in ifname):
        raise InvalidEnvironment(
            f"interface name {ifname!r} (CNI_IFNAME) is not usable",
            f"1 to {IFNAME_LIMIT} bytes without '/', ':' and white space",
        )
    return ifname
