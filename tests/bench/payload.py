"""The images of the bench, in a registry of its own: a small one for pods, and a large one for pulling.

The large one is made of files of this machine's Debian packages, as real images are: some large libraries and many
small text files, in several gzip layers. Making it takes half a minute, so the registry's storage is kept in the
checkout's cache between runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from images.build import LayerFile, layer_tar, regular
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry

STORAGE = Path(__file__).parents[2] / ".cache" / "bench" / "registry"
SMALL = "bench/busybox:1"
LARGE = "bench/packages:2"
PAUSE = "bench/pause:1"

LARGE_BYTES = 400_000_000
LARGE_FILES = 30_000
LARGEST_FILE = 10_000_000
LAYERS = 4
_DESCRIPTION = STORAGE.with_name("large.txt")
_LISTS = Path("/var/lib/dpkg/info")


def push_small(registry: Registry) -> None:
    """busybox for the containers, and as a sandbox image for runtimes that need one."""
    push_image(registry, SMALL, [busybox_rootfs()], {"Env": ["PATH=/bin"], "Cmd": ["sh"]})
    push_image(registry, PAUSE, [busybox_rootfs()], {"Entrypoint": ["/bin/sleep", "infinity"]})


def push_large(registry: Registry) -> str:
    """The large image, unless the registry has it from an earlier run; what is in it, in words."""
    repository, _, tag = LARGE.rpartition(":")
    if registry.request("HEAD", f"/v2/{repository}/manifests/{tag}")[0] != 200:
        files = list(_package_files())
        size = len(files) // LAYERS + 1
        layers = [layer_tar(files[start : start + size]) for start in range(0, len(files), size)]
        push_image(registry, LARGE, layers, {"Cmd": ["sh"]})
        total = sum(len(layer) for layer in layers) / 1e6
        _DESCRIPTION.write_text(f"{total:.0f} MB in {len(files)} files, {len(layers)} gzip layers")
    return _DESCRIPTION.read_text()


def _package_files() -> Iterator[LayerFile]:
    """Regular files under /usr, package after package, until there are enough. Links are left out."""
    taken, seen = 0, set[str]()
    for package in sorted(_LISTS.glob("*.list")):
        for line in package.read_text().splitlines():
            path = Path(line)
            if not line.startswith("/usr/") or line in seen or path.is_symlink() or not path.is_file():
                continue
            size = path.stat().st_size
            if size > LARGEST_FILE:
                continue
            if taken + size > LARGE_BYTES or len(seen) >= LARGE_FILES:
                return
            seen.add(line)
            taken += size
            yield regular(line, path, path.stat().st_mode & 0o777)
