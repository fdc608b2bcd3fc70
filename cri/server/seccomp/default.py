"""The RuntimeDefault seccomp profile, as data.

It grants what the ecosystem's default profiles grant (containerd 2.4, moby/profiles of mid 2026), so that an image that
runs there runs here; here it is ordered by subject, because "which part of the kernel can a container reach" is the
question that one asks of it. The form that default_profile() returns is the one of Docker's profile files, an OCI
`linux.seccomp` whose rules may carry `includes` and `excludes` by capability and architecture.

Everything else fails with EPERM; system calls that are newer than any named here with ENOSYS (bpf.py), because
C libraries only fall back from a new call to an old one when the kernel says that it does not know the new one.
"""

from __future__ import annotations

from typing import Any

ENOSYS = 38
AF_ALG, AF_VSOCK = 38, 40

#: New namespaces (clone(2)): NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
CLONE_NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

#: Linux, Linux32 and both without address randomisation, and the query (personality(2)).
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

ALWAYS = {
    "files by name": """
        access chdir chmod chown chown32 creat faccessat faccessat2 fchdir fchmodat fchmodat2 fchownat fstatat64
        futimesat getcwd lchown lchown32 link linkat lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at
        newfstatat open openat openat2 readlink readlinkat rename renameat renameat2 rmdir stat stat64 statfs statfs64
        statx symlink symlinkat truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes
        listmount statmount""",
    "files by descriptor": """
        close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fchmod fchown fchown32 fcntl
        fcntl64 fdatasync flock fstat fstat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 getdents getdents64 ioctl
        _llseek lseek pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile
        sendfile64 splice sync sync_file_range syncfs tee vmsplice write writev""",
    "extended attributes": """
        fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr
        lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat""",
    "waiting for events": """
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
        eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch _newselect poll ppoll
        ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4 timerfd_create timerfd_gettime
        timerfd_gettime64 timerfd_settime timerfd_settime64""",
    "asynchronous I/O (not io_uring)": """
        io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioprio_get
        ioprio_set""",
    "sockets, but for socket(2) itself": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
        recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair""",
    "memory": """
        brk cachestat get_thread_area madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock
        mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free
        pkey_mprotect process_mrelease remap_file_pages set_thread_area""",
    "processes and threads": """
        execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
        get_robust_list getcpu getpgid getpgrp getpid getppid getpriority getrlimit getrusage getsid gettid kill
        pidfd_open pidfd_send_signal prctl prlimit64 process_vm_readv process_vm_writev ptrace restart_syscall rseq
        set_robust_list set_tid_address setpgid setpriority setrlimit setsid tgkill tkill ugetrlimit vfork wait4 waitid
        waitpid""",
    "scheduling": """
        sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
        sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
        sched_setscheduler sched_yield""",
    "signals": """
        pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
        rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn uretprobe""",
    "users, groups and capabilities": """
        capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32
        getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
        setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid
        setuid32""",
    "further restriction of oneself": """
        landlock_add_rule landlock_create_ruleset landlock_restrict_self lsm_get_self_attr lsm_list_modules
        lsm_set_self_attr seccomp""",
    "time (setting the clock needs a capability as well)": """
        adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
        clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create
        timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 times""",
    "System V and POSIX IPC": """
        ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
        mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt
        shmget""",
    "the system": "getrandom sysinfo uname",
}

BY_ARCHITECTURE = (
    (("amd64", "x32"), "arch_prctl"),
    (("amd64", "x32", "x86"), "modify_ldt"),
    (("arm", "arm64"), "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"),
    (("riscv64",), "riscv_flush_icache riscv_hwprobe"),
    (("ppc64le",), "sync_file_range2 swapcontext"),
    (("s390", "s390x"), "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
)

BY_CAPABILITY = (
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    (
        "CAP_SYS_ADMIN",
        """bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
        open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2
        unshare""",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
)


def default_profile() -> dict[str, Any]:
    """The profile as a document: OCI `linux.seccomp` with Docker's conditions."""
    rules = [_allow(" ".join(ALWAYS.values()))]
    rules += [_allow(names, includes={"arches": list(arches)}) for arches, names in BY_ARCHITECTURE]
    rules += [_allow(names, includes={"caps": [capability]}) for capability, names in BY_CAPABILITY]
    rules += [_allow("personality", args=[_argument(0, "EQ", value)]) for value in PERSONALITIES]
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": rules + _sockets() + _clones()}


def _allow(names: str, **conditions: Any) -> dict[str, Any]:
    return {"names": names.split(), "action": "SCMP_ACT_ALLOW", **conditions}


def _argument(index: int, operator: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": index, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": second}


def _sockets() -> list[dict[str, Any]]:
    """socket(2) for every family but AF_ALG (kernel crypto, a row of CVEs) and AF_VSOCK (the host's hypervisor).

    Three ranges around them: rules of one call are alternatives, so two "not equal" would allow everything.
    socketcall(2) of 32-bit x86 passes its arguments in memory, out of a filter's sight.
    """
    ranges = (("LT", AF_ALG), ("EQ", AF_ALG + 1), ("GT", AF_VSOCK))
    return [_allow("socket", args=[_argument(0, operator, family)]) for operator, family in ranges]


def _clones() -> list[dict[str, Any]]:
    """clone(2) without new namespaces; clone3, whose flags are in memory, does not exist unless all is allowed."""
    unless_admin = {"caps": ["CAP_SYS_ADMIN"]}
    s390 = ["s390", "s390x"]
    no_namespace = [_argument(index, "MASKED_EQ", CLONE_NEW_NAMESPACES) for index in (0, 1)]
    return [
        _allow("clone", args=no_namespace[:1], excludes={**unless_admin, "arches": s390}),
        _allow("clone", args=no_namespace[1:], excludes=unless_admin, includes={"arches": s390}),
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS, "excludes": unless_admin},
    ]
