"""The machine's two disks, made without loop devices: a root with kernels and packages, and this checkout.

The root is the host's own distribution, so that the checkout's virtual environment runs there unchanged; it is built
once and kept in .cache/vm. The checkout is copied anew for every boot, to the path that it has on the host, and with it
critest, since the machine has no network to build it from.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support import peers

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "vm"
PACKAGES = (
    *("python3", "python3-venv", "libcap2", "libseccomp2", "libnftables1", "nftables", "iproute2", "kmod"),
    *("busybox-static", "ca-certificates", "docker-registry", "skopeo", "umoci", "containernetworking-plugins"),
    *("apache2-utils", "strace", "procps", "e2fsprogs", "curl", "git", "initramfs-tools", "udev"),
    *("apparmor", "secilc", "runc", "gcc", "libc6-dev"),
)
KERNELS = {
    "debian": {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"},
    "ubuntu": {"6.8": "linux-image-virtual"},
}
SOURCES = {
    "debian": (
        "deb http://deb.debian.org/debian {codename} main",
        "deb http://deb.debian.org/debian {codename}-updates main",
        "deb http://deb.debian.org/debian-security {codename}-security main",
    ),
    "ubuntu": (
        "deb http://archive.ubuntu.com/ubuntu {codename} main universe",
        "deb http://archive.ubuntu.com/ubuntu {codename}-security main universe",
    ),
}
PEERS = ("critest", "ginkgo")
ROOT_DISK_MIB = 4096
BUILD_DEADLINE_S = 1200


@dataclass(frozen=True)
class Kernel:
    """A bootable pair; `name` is the version series, such as "6.12"."""

    name: str
    vmlinuz: Path
    initrd: Path


@dataclass(frozen=True)
class Distribution:
    id: str
    codename: str

    @classmethod
    def of_host(cls) -> Distribution:
        release = platform.freedesktop_os_release()
        if release["ID"] not in KERNELS:
            raise SystemExit(f"tests.vm: the host is {release['ID']}; the machine is built from debian or ubuntu only")
        return cls(release["ID"], release["VERSION_CODENAME"])


def run(*argv: str | Path, deadline_s: float = BUILD_DEADLINE_S) -> None:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=deadline_s, check=False)
    if done.returncode != 0:
        raise SystemExit(f"tests.vm: `{' '.join(map(str, argv))}` exited {done.returncode}:\n{done.stderr[-4000:]}")


def make_ext4(disk: Path, source: Path, label: str, size_mib: int) -> None:
    """An ext4 file system in the sparse file `disk`, filled from `source`."""
    disk.unlink(missing_ok=True)
    run("mke2fs", "-q", "-t", "ext4", "-L", label, "-E", "root_owner=0:0", "-d", source, disk, f"{size_mib}M")


def build_root() -> dict[str, Kernel]:
    """The root disk and its kernels, from the cache where the recipe is unchanged."""
    host = Distribution.of_host()
    recipe = repr((host, PACKAGES, KERNELS[host.id], SOURCES[host.id], ROOT_DISK_MIB))
    home = CACHE / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if not (home / "root.ext4").exists():
        shutil.rmtree(CACHE, ignore_errors=True)
        home.mkdir(parents=True)
        _debootstrap(host, home)
    return {name: Kernel(name, home / f"vmlinuz-{name}", home / f"initrd-{name}") for name in KERNELS[host.id]}


def _debootstrap(host: Distribution, home: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="na-vm-") as scratch:
        tree = Path(scratch) / "root"
        include = ",".join([*PACKAGES, *KERNELS[host.id].values()])
        sources = "\n".join(SOURCES[host.id]).format(codename=host.codename)
        (Path(scratch) / "sources.list").write_text(sources + "\n")
        run(
            "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={include}",
            "--customize-hook=echo ext4 virtio_blk virtio_pci | tr ' ' '\\n' >> $1/etc/initramfs-tools/modules",
            "--customize-hook=chroot $1 update-initramfs -u -k all",
            host.codename, tree, Path(scratch) / "sources.list",
        )  # fmt: skip
        _take_kernels(host, tree, home)
        make_ext4(home / "root.part", tree, "root", ROOT_DISK_MIB)
        (home / "root.part").rename(home / "root.ext4")


def _take_kernels(host: Distribution, tree: Path, home: Path) -> None:
    for name in KERNELS[host.id]:
        [vmlinuz] = (tree / "boot").glob(f"vmlinuz-{name}.*")
        shutil.copy(vmlinuz, home / f"vmlinuz-{name}")
        shutil.copy(vmlinuz.with_name(vmlinuz.name.replace("vmlinuz", "initrd.img")), home / f"initrd-{name}")


def build_checkout(disk: Path, command: str) -> None:
    """What git tracks or would track, the virtual environment and the command, on an ext4 disk labelled `checkout`."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, timeout=60, check=True
    ).stdout
    with tempfile.TemporaryDirectory(prefix="na-vm-") as scratch:
        for name in filter(None, os.fsdecode(listed).split("\0")):
            target = Path(scratch) / name
            if (ROOT / name).exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target, follow_symlinks=False)
        run("cp", "-a", ROOT / ".venv", Path(scratch) / ".venv")
        _take_peers(Path(scratch) / ".cache/peers")
        (Path(scratch) / ".vm-command").write_text(command + "\n")
        size = int(subprocess.check_output(["du", "-sm", scratch], timeout=60).split()[0])
        make_ext4(disk, Path(scratch), "checkout", size * 3 // 2 + 512)


def _take_peers(cache: Path) -> None:
    """Copy the peers' programs to where tests.support.peers looks; without one, the tests that want it say so."""
    for name in PEERS:
        try:
            program = peers.tool(name)
        except peers.PeerUnavailable as reason:
            print(f"tests.vm: {reason}", flush=True)
            continue
        target = cache / program.relative_to(peers.CACHE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(program, target)


def overlay(disk: Path, base: Path) -> None:
    """A throw-away qcow2 over `base`, so that every boot finds the same machine."""
    disk.unlink(missing_ok=True)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base.resolve(), disk)
