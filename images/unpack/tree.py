"""The directory that a layer is extracted into, reached by fds only: no path of the archive is ever walked by name.

Each directory is opened once, beneath its parent's fd and without following links, and kept for the files that
come after it. Where a component is a symbolic link (`lib -> usr/lib`, then `lib/x`), the kernel resolves the path as
if the layer were the whole world (openat2(2), RESOLVE_IN_ROOT), so a link to `/etc` leads to the layer's own etc.
"""

from __future__ import annotations

import os
import stat

from images.errors import UnsafeLayer
from images.unpack.names import shown
from runtime.linux.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, openat2
from runtime.linux.trees import remove_tree

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FOLLOWED = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
#: Fds kept open between two entries; archives go through directories one after another, so few are needed.
KEPT = 128


class Tree:
    """Holds the fds of one layer's directories until close(); paths are relative and clean (names.clean)."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.root = os.open(path, FOLLOWED)
        #: Directories that were made on the way to something, and not (yet) named by the archive itself.
        self.implicit: set[bytes] = set()
        self._open: dict[bytes, int] = {b"": self.root}

    def close(self) -> None:
        """Close every fd."""
        self.forget()
        os.close(self.root)

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """The fd of the directory that holds `path`, and the last component; valid until trim() or clear_way()."""
        above, _, base = path.rpartition(b"/")
        fd = self._open.get(above)
        return (self.directory(above) if fd is None else fd), base

    def directory(self, path: bytes) -> int:
        """The fd of a directory, which is made with mode 0755 when it is missing."""
        fd = self._open.get(path)
        if fd is not None:
            return fd
        above, _, base = path.rpartition(b"/")
        parent = self.directory(above)
        try:
            fd = os.open(base, DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            os.mkdir(base, 0o755, dir_fd=parent)
            self.implicit.add(path)
            fd = os.open(base, DIRECTORY, dir_fd=parent)
        except NotADirectoryError:
            fd = self._through_links(path)
        self._open[path] = fd
        return fd

    def _through_links(self, path: bytes) -> int:
        try:
            return openat2(self.root, os.fsdecode(path), FOLLOWED, resolve=INSIDE)
        except OSError as error:
            raise UnsafeLayer(f"the way to {shown(path)} leads through something that is no directory") from error

    def make_directory(self, path: bytes) -> None:
        """Make sure that `path` is a directory; what else has that name goes away."""
        parent, base = self.parent(path)
        try:
            os.mkdir(base, 0o755, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode):
                self.clear_way(path)
                parent, base = self.parent(path)
                os.mkdir(base, 0o755, dir_fd=parent)
        self.implicit.discard(path)

    def existing(self, path: bytes) -> int | None:
        """A new fd of the directory at `path` itself; None when something else, or nothing, has come to be there."""
        parent, base = self.parent(path)
        try:
            return os.open(base or b".", DIRECTORY, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def clear_way(self, path: bytes) -> None:
        """Remove what is at `path`, a whole tree perhaps, for a later entry of the same name."""
        parent, base = self.parent(path)
        if stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode):
            remove_tree(f"/proc/self/fd/{parent}/{os.fsdecode(base)}")
        else:
            os.unlink(base, dir_fd=parent)
        self.forget()  # what was a directory, or a link to one, may have fds here that lead elsewhere now

    def trim(self) -> None:
        """Between two entries: close fds when there are many."""
        if len(self._open) > KEPT:
            self.forget()

    def forget(self) -> None:
        """Close every fd but the root's."""
        for path, fd in self._open.items():
            if path:
                os.close(fd)
        self._open = {b"": self.root}
