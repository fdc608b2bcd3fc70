"""What the options of a mount mean (mount(8), OCI config.md "Mount options"), in the words of mount_setattr(2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from runtime.linux import mountapi as api
from runtime.linux.syscalls import AT_RECURSIVE, MS_PRIVATE

# mount(8) option -> (attributes to set, attributes to clear); mount_setattr(2).
_ATTRIBUTES: Final[dict[str, tuple[int, int]]] = {
    "ro": (api.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, api.MOUNT_ATTR_RDONLY),
    "nosuid": (api.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, api.MOUNT_ATTR_NOSUID),
    "nodev": (api.MOUNT_ATTR_NODEV, 0),
    "dev": (0, api.MOUNT_ATTR_NODEV),
    "noexec": (api.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, api.MOUNT_ATTR_NOEXEC),
    "nodiratime": (api.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, api.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (api.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, api.MOUNT_ATTR_NOSYMFOLLOW),
    "noatime": (api.MOUNT_ATTR_NOATIME, api.MOUNT_ATTR__ATIME),
    "strictatime": (api.MOUNT_ATTR_STRICTATIME, api.MOUNT_ATTR__ATIME),
    "relatime": (api.MOUNT_ATTR_RELATIME, api.MOUNT_ATTR__ATIME),
    "atime": (api.MOUNT_ATTR_RELATIME, api.MOUNT_ATTR__ATIME),
}
# mount(2) flag values that mount_setattr takes in `propagation`; an "r" in front makes it recursive.
_PROPAGATION: Final[dict[str, int]] = {
    "private": 1 << 18,
    "slave": 1 << 19,
    "shared": 1 << 20,
    "unbindable": 1 << 17,
}
_IGNORED: Final = frozenset({"defaults", "async", "_netdev"})


@dataclass(slots=True)
class MountOptions:
    """A list of OCI mount options, sorted by what they act on (runtime-spec, config.md "Mount options")."""

    set_: int = 0
    clear: int = 0
    recursive_set: int = 0
    recursive_clear: int = 0
    propagation: int = 0
    propagation_recursive: bool = False
    bind: bool = False
    recursive: bool = False
    data: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def parse(cls, options: Iterable[str]) -> MountOptions:
        """Sort the options; one that is no attribute is data for the filesystem, as in mount(8)."""
        parsed = cls()
        for option in options:
            if not parsed._take_attribute(option) and not parsed._take_word(option):
                key, separator, value = option.partition("=")
                parsed.data += ((key, value if separator else None),)
        return parsed

    def _take_attribute(self, option: str) -> bool:
        if option in _ATTRIBUTES:
            set_, clear = _ATTRIBUTES[option]
            self.set_ = self.set_ & ~clear | set_
            self.clear = self.clear & ~set_ | clear
        elif option[:1] == "r" and option[1:] in _ATTRIBUTES:
            set_, clear = _ATTRIBUTES[option[1:]]
            self.recursive_set = self.recursive_set & ~clear | set_
            self.recursive_clear = self.recursive_clear & ~set_ | clear
        else:
            return False
        return True

    def _take_word(self, option: str) -> bool:
        recursive = option[:1] == "r" and option[1:] in _PROPAGATION
        if option in _PROPAGATION or recursive:
            self.propagation = _PROPAGATION[option[1:] if recursive else option]
            self.propagation_recursive = recursive
        elif option in ("bind", "rbind"):
            self.bind, self.recursive = True, option == "rbind"
        else:
            return option in _IGNORED
        return True

    def apply(self, mount_fd: int) -> None:
        """Change a detached mount as the options say; without a word about propagation it becomes private."""
        everywhere = self.propagation_recursive or (self.recursive and not self.propagation)
        propagation = self.propagation or MS_PRIVATE
        if everywhere or self.recursive_set or self.recursive_clear:
            api.mount_setattr(
                mount_fd,
                set_=self.recursive_set,
                clear=self.recursive_clear,
                propagation=propagation if everywhere else 0,
                flags=AT_RECURSIVE,
            )
        if self.set_ or self.clear or not everywhere:
            api.mount_setattr(mount_fd, set_=self.set_, clear=self.clear, propagation=0 if everywhere else propagation)
