/* nouring.c - runs a program as a container runtime would: io_uring_setup refused (EPERM) and RLIMIT_MEMLOCK at 64 KiB.
 *
 *     nouring PROGRAM [ARGUMENT...]
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int
main(int argc, char **argv)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { .len = sizeof(code) / sizeof(code[0]), .filter = code };
	struct rlimit lock = { .rlim_cur = 64 << 10, .rlim_max = 64 << 10 };

	if (argc < 2) {
		fprintf(stderr, "usage: nouring PROGRAM [ARGUMENT...]\n");
		return 2;
	}
	if (setrlimit(RLIMIT_MEMLOCK, &lock) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
		fprintf(stderr, "nouring: %s\n", strerror(errno));
		return 126;
	}
	/* A root process may lock without limit whatever RLIMIT_MEMLOCK says: take that capability away. */
	if (prctl(PR_CAPBSET_DROP, 14 /* CAP_IPC_LOCK */, 0, 0, 0) != 0 && errno != EPERM) {
		fprintf(stderr, "nouring: CAP_IPC_LOCK: %s\n", strerror(errno));
		return 126;
	}
	execvp(argv[1], argv + 1);
	fprintf(stderr, "nouring: %s: %s\n", argv[1], strerror(errno));
	return 127;
}
