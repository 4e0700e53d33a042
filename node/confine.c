/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filter on system calls (confine.h), by libseccomp.
 *
 * What is allowed is what such a thread was seen to do in the tests of whole pods, and what libc does
 * in its name: memory of malloc(), locks, its end. The few calls that could do more than a vCPU needs
 * are judged by their arguments: memory is never made executable, signals go to this process alone.
 * Not allowed is all that opens or makes something: files, sockets, processes, threads, descriptors.
 *
 * The kernel remembers which calls are allowed whatever their arguments are (Linux 5.11), so the
 * frequent ones do not run the filter. It would also forbid the thread to speculate past stores
 * (before Linux 5.16, and that is dear for translated code); that stays as it is without a filter,
 * since `soft` is no wall against speculation anyway (SECURITY.md).
 *
 * Tested by tests/node/test_confine.c; with whole pods by tests/pod/privileges, and by all others that
 * run on soft.
 */
#include "node/confine.h"

#include <asm/ioctls.h>
#include <asm/prctl.h>
#include <asm/termbits.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

#define CALLS_MAX  512
#define CALL_BYTES 32

struct confine {
	pthread_mutex_t lock; /* guards `filter`, which is not for two threads at once */
	scmp_filter_ctx filter;
	void (*forbidden)(const char *call);
	/* Made before, as nothing can be in a handler; "": no call. */
	char name[CALLS_MAX][CALL_BYTES];
};

/* For the handler alone, which is given nothing else to find it by. */
static struct confine *_Atomic confine_of_process;

static const int allowed[] = {
	/* waiting, and waking others up: eventfds, locks */
	SCMP_SYS(futex),
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(writev), /* libc's last words */
	SCMP_SYS(sched_yield),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep),
	SCMP_SYS(restart_syscall),
	/* time, where the vDSO has no clock, and how long the thread had a core */
	SCMP_SYS(clock_gettime),
	SCMP_SYS(getcpu),
	/* its own timer and signals */
	SCMP_SYS(timer_settime),
	SCMP_SYS(timer_delete),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	/* messages to other nodes, and from them while MOVE is looked for; TLS may want random numbers */
	SCMP_SYS(sendmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(recvmsg),
	SCMP_SYS(recvfrom),
	SCMP_SYS(getrandom),
	/* memory: malloc(), the engine's tables, a link's queue that is emptied */
	SCMP_SYS(brk),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(sched_getaffinity), /* malloc() wants to know how many CPUs there are */
	/* the end */
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
};

static void on_forbidden(int number, siginfo_t *info, void *context)
{
	struct confine *confine = atomic_load(&confine_of_process);
	const char *name = "";
	(void)number;
	(void)context;
	if (info->si_arch != AUDIT_ARCH_X86_64)
		name = "one of 32 bits";
	else if (info->si_syscall >= 0 && info->si_syscall < CALLS_MAX)
		name = confine->name[info->si_syscall];
	if (confine->forbidden)
		confine->forbidden(name[0] ? name : "one that is not known");
	abort();
}

static int allow(scmp_filter_ctx filter)
{
	const uint32_t low = UINT32_MAX;
	int r = 0;
	for (size_t i = 0; !r && i < sizeof(allowed) / sizeof(allowed[0]); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
	if (!r)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!r)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* Kicks, and abort(). */
	if (!r)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				     SCMP_A0(SCMP_CMP_MASKED_EQ, low, (uint32_t)getpid()));
	/* On CPUs without WRGSBASE. */
	if (!r)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(arch_prctl), 1,
				     SCMP_A0(SCMP_CMP_MASKED_EQ, low, ARCH_SET_GS));
	/* For how much of what comes the control thread is to be woken. */
	if (!r)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(setsockopt), 2,
				     SCMP_A1(SCMP_CMP_MASKED_EQ, low, SOL_SOCKET),
				     SCMP_A2(SCMP_CMP_MASKED_EQ, low, SO_RCVLOWAT));
	/* Who prints a last line asks how it must end there. */
	if (!r)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				     SCMP_A1(SCMP_CMP_MASKED_EQ, low, TCGETS));
	if (!r)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				     SCMP_A1(SCMP_CMP_MASKED_EQ, low, TCGETS2));
	return r;
}

static int make_filter(scmp_filter_ctx *ret_filter, uint32_t otherwise)
{
	scmp_filter_ctx filter = seccomp_init(otherwise);
	if (!filter)
		return -ENOMEM;
	int r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, otherwise);
	if (!r)
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
	if (!r)
		r = allow(filter);
	if (r)
		seccomp_release(filter);
	else
		*ret_filter = filter;
	return r;
}

static void take_names(struct confine *confine)
{
	for (int call = 0; call < CALLS_MAX; call++) {
		char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, call);
		if (name)
			snprintf(confine->name[call], CALL_BYTES, "%s", name);
		free(name);
	}
}

/* A kernel may be built without, and who runs this process may forbid it. */
static int look_for_filters(void)
{
	const uint32_t trap = SECCOMP_RET_TRAP;
	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &trap) < 0 ? -errno : 0;
}

static int take_signal(void)
{
	struct sigaction action = { .sa_sigaction = on_forbidden,
				    .sa_flags = SA_SIGINFO | SA_ONSTACK };
	sigfillset(&action.sa_mask);
	return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}

int confine_create(void (*forbidden)(const char *call), struct confine **ret_confine, char *why,
		   size_t why_size)
{
	const char *mode = getenv("EAGRE_SECCOMP");
	bool log = mode && strcmp(mode, "log") == 0;
	*ret_confine = NULL;
	if (SANITIZED || (mode && strcmp(mode, "off") == 0))
		return 0;
	struct confine *confine = calloc(1, sizeof(*confine));
	int r = confine ? look_for_filters() : -ENOMEM;
	if (!r)
		r = make_filter(&confine->filter, log ? SCMP_ACT_LOG : SCMP_ACT_TRAP);
	if (!r)
		r = take_signal();
	if (r) {
		snprintf(why, why_size,
			 "no filter on system calls for vCPUs (seccomp): %s; EAGRE_SECCOMP=off in "
			 "the environment does without",
			 strerror(-r));
		free(confine);
		return r;
	}
	confine->forbidden = forbidden;
	pthread_mutex_init(&confine->lock, NULL);
	take_names(confine);
	atomic_store(&confine_of_process, confine);
	*ret_confine = confine;
	return 0;
}

int confine_thread(struct confine *confine)
{
	if (!confine)
		return 0;
	/* What malloc() keeps for a thread it makes at the first use, and may read files for that. */
	void *volatile some = malloc(1);
	free(some);
	pthread_mutex_lock(&confine->lock);
	int r = seccomp_load(confine->filter);
	pthread_mutex_unlock(&confine->lock);
	return r;
}
