"""Boots a Debian kernel under QEMU with unified cgroup v2, and runs the kernel tests and the demo inside.

    python -m tests.vm                       every kernel: the kernel tests, then the demo
    python -m tests.vm --kernel 6.12 -- CMD  one kernel, one shell command in the checkout

The exit status is the command's own. Everything is emulated unless --accel kvm says otherwise:
5 to 25 times slower than the host, but the same on every machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.vm import image

DEFAULT_COMMAND = (
    ".venv/bin/python -m pytest tests/kernel tests/node/test_demo.py -q -o timeout=1500 -o cache_dir=/tmp/pytest "
    "--basetemp=/var/tmp/pytest --durations=10"  # on ext4, where a node has its files
)
GUEST = "exec /usr/bin/python3 {path}/tests/vm/guest.py {path}"
BOOT_LINE = (
    "root=LABEL=root rootfstype=ext4 rw console=ttyS0 quiet panic=-1 net.ifnames=0 cgroup_no_v1=all psi=1 "
    'init=/bin/sh -- -c "mkdir -p {path} && mount -L checkout {path} && ' + GUEST + '"'
)


def qemu(kernel: image.Kernel, disks: list[Path], exit_file: Path, memory_mib: int, accelerator: str) -> list[str]:
    cpu = "max" if accelerator == "tcg" else "host"
    drives = [
        word
        for disk in disks
        for word in (
            "-drive",
            f"file={disk},if=virtio,cache=unsafe,format={'qcow2' if disk.suffix == '.qcow2' else 'raw'}",
        )
    ]
    return [
        "qemu-system-x86_64", "-accel", accelerator, "-cpu", cpu, "-machine", "q35", "-smp", "2", "-m", str(memory_mib),
        "-nographic", "-no-reboot", "-nic", "none", "-monitor", "none",
        "-serial", "stdio", "-serial", f"file:{exit_file}",
        "-kernel", str(kernel.vmlinuz), "-initrd", str(kernel.initrd),
        "-append", BOOT_LINE.format(path=image.ROOT), *drives,
    ]  # fmt: skip


def boot(kernel: image.Kernel, command: str, deadline_s: float, memory_mib: int, accelerator: str) -> int:
    """Runs `command` in a machine of its own; returns its exit status, 124 when the deadline passed."""
    with tempfile.TemporaryDirectory(prefix="na-vm-") as scratch_name:
        scratch = Path(scratch_name)
        exit_file, root, checkout = scratch / "exit", scratch / "root.qcow2", scratch / "checkout.ext4"
        image.build_checkout(checkout, command)
        image.overlay(root, kernel.vmlinuz.with_name("root.ext4"))
        started = time.monotonic()
        try:
            subprocess.run(
                qemu(kernel, [root, checkout], exit_file, memory_mib, accelerator),
                stdin=subprocess.DEVNULL,
                timeout=deadline_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            print(
                f"tests.vm: kernel {kernel.name}: no end after {deadline_s:.0f} s; give --deadline more",
                file=sys.stderr,
            )
            return 124
        said = exit_file.read_text() if exit_file.exists() else ""
        status = int(said.split()[1]) if said.startswith("exit ") else 125
        print(
            f"tests.vm: kernel {kernel.name}: exit status {status} after {time.monotonic() - started:.0f} s", flush=True
        )
        return status


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.vm", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--kernel", action="append", help="version series, such as 6.12; all that the image has by default"
    )
    parser.add_argument(
        "--deadline", type=float, default=3600, metavar="SECONDS", help="for each kernel (default 3600)"
    )
    parser.add_argument("--memory", type=int, default=3072, metavar="MIB")
    parser.add_argument("--accel", choices=("tcg", "kvm"), default="tcg", help="kvm where the host has a working one")
    parser.add_argument("command", nargs="*", help="shell command to run in the checkout")
    args = parser.parse_args()
    kernels = image.build_root()
    chosen = args.kernel or list(kernels)
    if unknown := set(chosen) - set(kernels):
        parser.error(f"no kernel {', '.join(sorted(unknown))} in the image; it has {', '.join(kernels)}")
    command = " ".join(args.command) or DEFAULT_COMMAND
    statuses = [boot(kernels[name], command, args.deadline, args.memory, args.accel) for name in chosen]
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main())
