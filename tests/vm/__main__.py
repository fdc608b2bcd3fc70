"""Boots a Debian kernel under QEMU with unified cgroup v2, and runs the kernel tests and the demo inside.

    python -m tests.vm                       every kernel: the kernel tests and the demo, then AppArmor, then SELinux
    python -m tests.vm --kernel 6.12 -- CMD  one kernel, one shell command in the checkout
    python -m tests.vm --boot "security=selinux enforcing=1" -- CMD    with further words for the kernel

The exit status is the command's own; of several, the first that is not 0. Everything is emulated unless --accel kvm
says otherwise: 5 to 25 times slower than the host, but the same on every machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.vm import image

PYTEST = (
    ".venv/bin/python -m pytest -q -o timeout=1500 -o cache_dir=/tmp/pytest "
    "--basetemp=/var/tmp/pytest --durations=10 "  # on ext4, where a node has its files
)
CRITEST = "tests/cri/test_critest.py::test_the_specs_of_a_security_module_pass"
#: Words for the kernel, and what is run where it heeds them; one machine each.
BOOTS = (
    ("", PYTEST + "tests/kernel tests/node/test_demo.py"),
    ("security=apparmor", PYTEST + "tests/cri/test_apparmor_enforced.py " + CRITEST),
    ("security=selinux selinux=1 enforcing=1", PYTEST + "tests/cri/test_selinux_enforced.py " + CRITEST),
)
#: The machine ended without a word. Now and then an emulated kernel does ("Oops: int3"): its processors are threads
#: that trip over code which it changes while it runs, such as a static key. What is our fault happens again.
DIED = 126
GUEST = "exec /usr/bin/python3 {path}/tests/vm/guest.py {path}"
BOOT_LINE = (
    "root=LABEL=root rootfstype=ext4 rw console=ttyS0 quiet panic=-1 net.ifnames=0 cgroup_no_v1=all psi=1 {words} "
    'init=/bin/sh -- -c "mkdir -p {path} && mount -L checkout {path} && ' + GUEST + '"'
)


def qemu(
    kernel: image.Kernel, words: str, disks: list[Path], exit_file: Path, memory_mib: int, accelerator: str
) -> list[str]:
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
        "-append", BOOT_LINE.format(path=image.ROOT, words=words), *drives,
    ]  # fmt: skip


def boot(kernel: image.Kernel, words: str, command: str, deadline_s: float, memory_mib: int, accelerator: str) -> int:
    """Runs `command` in a machine of its own; returns its exit status, 124 when the deadline passed, or DIED."""
    with tempfile.TemporaryDirectory(prefix="na-vm-") as scratch_name:
        scratch = Path(scratch_name)
        exit_file, root, checkout = scratch / "exit", scratch / "root.qcow2", scratch / "checkout.ext4"
        image.build_checkout(checkout, command)
        image.overlay(root, kernel.vmlinuz.with_name("root.ext4"))
        started = time.monotonic()
        try:
            subprocess.run(
                qemu(kernel, words, [root, checkout], exit_file, memory_mib, accelerator),
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
        status = int(said.split()[1]) if said.startswith("exit ") else DIED
        print(
            f"tests.vm: kernel {' '.join([kernel.name, *words.split()])}: exit status {status} "
            f"after {time.monotonic() - started:.0f} s",
            flush=True,
        )
        return status


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.vm", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--kernel", action="append", help="version series, such as 6.12; all that the image has by default"
    )
    parser.add_argument("--deadline", type=float, default=3600, metavar="SECONDS", help="for each boot (default 3600)")
    parser.add_argument("--memory", type=int, default=3072, metavar="MIB")
    parser.add_argument("--accel", choices=("tcg", "kvm"), default="tcg", help="kvm where the host has a working one")
    parser.add_argument(
        "--boot", default="", metavar="WORDS", help="further words for the kernel that runs the command"
    )
    parser.add_argument("command", nargs="*", help="shell command to run in the checkout")
    args = parser.parse_args()
    if args.boot and not args.command:
        parser.error("--boot goes with a command")
    kernels = image.build_root()
    chosen = args.kernel or list(kernels)
    if unknown := set(chosen) - set(kernels):
        parser.error(f"no kernel {', '.join(sorted(unknown))} in the image; it has {', '.join(kernels)}")
    statuses = []
    for name in chosen:
        for words, command in [(args.boot, " ".join(args.command))] if args.command else BOOTS:
            machine = kernels[name], words, command, args.deadline, args.memory, args.accel
            status = boot(*machine)
            statuses.append(boot(*machine) if status == DIED else status)
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main())
