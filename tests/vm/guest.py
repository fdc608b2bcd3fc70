"""PID 1 of the test machine: mounts what systemd would, runs one command, reports its exit status, powers off.

Where the kernel runs SELinux it loads a policy too, as any init does: until then nothing is forbidden.

It is copied nowhere: the kernel starts a shell line that mounts the checkout and executes this file from it, with
the system's Python and nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

MOUNTS = (
    ("proc", "/proc", "proc", ""),
    ("sysfs", "/sys", "sysfs", ""),
    ("securityfs", "/sys/kernel/security", "securityfs", ""),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", "nsdelegate,memory_recursiveprot"),
    ("bpf", "/sys/fs/bpf", "bpf", ""),
    ("tmpfs", "/run", "tmpfs", "mode=755"),
    ("tmpfs", "/tmp", "tmpfs", "mode=1777"),
    ("devpts", "/dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", "tmpfs", "mode=1777"),
)
EXIT_PORT = "/dev/ttyS1"
SELINUX = "/sys/fs/selinux"  # made by a kernel that runs it
CATEGORIES = 1024


def prepare() -> None:
    for source, target, kind, options in MOUNTS:
        os.makedirs(target, exist_ok=True)
        subprocess.run(
            ["mount", "-t", kind, "-o", options or "rw", source, target], check=False, stderr=subprocess.DEVNULL
        )
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    subprocess.run(["modprobe", "-a", "loop", "tun", "overlay", "bridge", "veth"], check=False)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.environ.update(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", HOME="/root", LANG="C.UTF-8")


def load_policy(source: str) -> None:
    """Compile `source` (secilc(8)) and have the kernel go by it."""
    subprocess.run(["mount", "-t", "selinuxfs", "selinuxfs", SELINUX], check=True)
    names = [f"c{number}" for number in range(CATEGORIES)]
    with open("/run/categories.cil", "w", encoding="ascii") as categories:
        categories.writelines(f"(category {name})\n" for name in names)
        categories.write(f"(categoryorder ({' '.join(names)}))\n(sensitivitycategory s0 (range c0 {names[-1]}))\n")
    compiled = "/run/policy"
    subprocess.run(["secilc", "-f", "/dev/null", "-o", compiled, source, categories.name], check=True)
    with open(compiled, "rb") as policy, open(f"{SELINUX}/load", "wb", buffering=0) as load:
        load.write(policy.read())


def run(command: list[str], directory: str) -> int:
    """The command's exit status; as PID 1 we reap every orphan meanwhile."""
    child = subprocess.Popen(command, cwd=directory)
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status) & 0xFF


def main() -> None:
    directory = sys.argv[1]
    status = 125
    try:
        prepare()
        if os.path.isdir(SELINUX):
            load_policy(f"{directory}/tests/vm/policy.cil")
        with open(f"{directory}/.vm-command", encoding="utf-8") as script:
            status = run(["/bin/sh", "-c", script.read()], directory)
    finally:
        with open(EXIT_PORT, "w", encoding="ascii") as port:
            port.write(f"exit {status}\n")
        os.sync()
        with open("/proc/sysrq-trigger", "w", encoding="ascii") as trigger:
            trigger.write("o")
        signal.pause()


if __name__ == "__main__":
    main()
