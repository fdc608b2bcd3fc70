/* What a hostile program inside a container tries; each verb prints what the kernel allowed, one finding per line.

   calls            system calls that a container has no use for: NAME and 0 or the errno
   swap A B         exchanges two names for ever (renameat2)
   seize PATH       takes hold of every process that appears in its PID namespace: SEIZED with the capabilities that it
                    has beyond our own, else EQUAL; LEAKED when PATH can be reached through it; FD for each of its own
   overwrite        opens the executable of every process for writing, for ever: WRITABLE and which
   eat MIB          takes memory, page by page, and holds it
   stuck FILE       reads a file, and says so before it does */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void tell(const char *name, long result) { printf("%s %d\n", name, result < 0 ? errno : 0); }

static void calls(void)
{
	char buffer[256] = {0};
	tell("AF_ALG", socket(38, SOCK_SEQPACKET, 0));
	tell("AF_VSOCK", socket(40, SOCK_STREAM, 0));
	tell("io_uring_setup", syscall(SYS_io_uring_setup, 1, buffer));
	tell("bpf", syscall(SYS_bpf, 0, buffer, 64));
	tell("keyctl", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, -3, 0));
	tell("add_key", syscall(SYS_add_key, "user", "n", "v", 1, -3));
	tell("request_key", syscall(SYS_request_key, "user", "n", 0, 0));
	tell("userfaultfd", syscall(SYS_userfaultfd, 0));
	tell("perf_event_open", syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0));
	tell("open_by_handle_at", syscall(SYS_open_by_handle_at, -100, buffer, 0));
	tell("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
	tell("open_tree", syscall(SYS_open_tree, -100, "/", 1));
	tell("mount", mount("none", "/tmp", "tmpfs", 0, 0));
	tell("pivot_root", syscall(SYS_pivot_root, ".", "."));
	tell("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
	tell("init_module", syscall(SYS_init_module, buffer, 0, ""));
	tell("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0));
	tell("setns", setns(open("/proc/1/ns/mnt", O_RDONLY), 0));
	tell("unshare_user", unshare(CLONE_NEWUSER));
	tell("unshare_net", unshare(CLONE_NEWNET));
	long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
	if (!pid)
		_exit(0);
	tell("clone_user", pid);
	tell("clone3", syscall(SYS_clone3, buffer, 0));
	tell("syslog", syscall(SYS_syslog, 3, buffer, 10));
	tell("swapon", syscall(SYS_swapon, "/nothing", 0));
	tell("quotactl", syscall(SYS_quotactl, 0, 0, 0, 0));
	tell("acct", syscall(SYS_acct, 0));
	tell("iopl", syscall(SYS_iopl, 0));
	tell("move_pages", syscall(SYS_move_pages, 1, 0, 0, 0, 0, 0));
	tell("nonexistent", syscall(999));
}

static void swap(const char *a, const char *b)
{
	for (;;)
		if (syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2))
			usleep(100);
}

static unsigned long long capabilities(int pid, char *name)
{
	char path[64], line[256];
	unsigned long long set = 0;
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *status = fopen(path, "r");
	while (status && fgets(line, sizeof line, status)) {
		sscanf(line, "Name: %63[^\n]", name);
		if (!strncmp(line, "CapPrm:", 7))
			set = strtoull(line + 7, 0, 16);
	}
	if (status)
		fclose(status);
	return set;
}

static void look(int pid, const char *wanted)
{
	char path[512], name[64] = "";
	struct stat found;
	if (ptrace(PTRACE_SEIZE, pid, 0, 0))
		return;
	ptrace(PTRACE_INTERRUPT, pid, 0, 0);
	waitpid(pid, 0, __WALL);
	unsigned long long held = capabilities(pid, name), own = capabilities(getpid(), path);
	snprintf(path, sizeof path, "/proc/%d/root%s", pid, wanted);
	printf("%s %s %llx\n", held & ~own ? "SEIZED" : "EQUAL", name, held & ~own);
	if (!stat(path, &found))
		printf("LEAKED %s\n", path);
	int pidfd = syscall(SYS_pidfd_open, pid, 0);
	for (int fd = 3; fd < 64; fd++) {
		int copy = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
		if (copy < 0)
			continue;
		char proc[64], target[256] = "";
		snprintf(proc, sizeof proc, "/proc/self/fd/%d", copy);
		if (readlink(proc, target, sizeof target - 1) > 0 && strncmp(target, "socket:", 7))
			printf("FD %d %s\n", fd, target);
		close(copy);
	}
	close(pidfd);
	fflush(stdout);
	ptrace(PTRACE_DETACH, pid, 0, 0);
}

static void seize(const char *wanted)
{
	printf("ready\n");
	for (int pid = getpid() + 1;; ) {
		if (kill(pid, 0) && errno == ESRCH) {
			if (!kill(pid + 1, 0))
				pid++;
			continue;
		}
		look(pid++, wanted);
	}
}

static void overwrite(void)
{
	char path[64];
	printf("ready\n");
	for (;;) {
		DIR *proc = opendir("/proc");
		for (struct dirent *entry; (entry = readdir(proc));) {
			int pid = atoi(entry->d_name), fd;
			if (pid < 1)
				continue;
			snprintf(path, sizeof path, "/proc/%d/exe", pid);
			if ((fd = open(path, O_RDONLY)) >= 0) {
				char self[64], target[256] = "";
				snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
				int writable = open(self, O_WRONLY);
				readlink(self, target, sizeof target - 1);
				if (writable >= 0)
					printf("WRITABLE %s\n", target);
				close(writable);
				close(fd);
			}
		}
		closedir(proc);
	}
}

static void eat(long mib)
{
	for (long i = 0; i < mib; i++)
		memset(malloc(1 << 20), 1, 1 << 20);
	printf("ate\n");
	pause();
}

static void stuck(const char *path)
{
	char byte;
	printf("ready\n");
	fflush(stdout);
	read(open(path, O_RDONLY), &byte, 1);
	printf("read\n");
}

int main(int argc, char **argv)
{
	if (access("/this-is-a-test-image", F_OK))
		return 3; /* outside of a container made for it, this program would do damage */
	setvbuf(stdout, 0, _IOLBF, 0);
	const char *verb = argc > 1 ? argv[1] : "";
	if (!strcmp(verb, "calls"))
		calls();
	else if (!strcmp(verb, "swap") && argc == 4)
		swap(argv[2], argv[3]);
	else if (!strcmp(verb, "seize") && argc == 3)
		seize(argv[2]);
	else if (!strcmp(verb, "overwrite"))
		overwrite();
	else if (!strcmp(verb, "eat") && argc == 3)
		eat(atol(argv[2]));
	else if (!strcmp(verb, "stuck") && argc == 3)
		stuck(argv[2]);
	else
		return 2;
	return 0;
}
