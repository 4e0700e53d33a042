/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linked into eagre: SIGTERM comes in the middle of the reading of the clock that EAGRE_SIGNAL_IN counts
 * down to, or, if there are not so many, right before it sleeps. For tests/cmd/top_signal.
 */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

int __real_clock_gettime(clockid_t clock, struct timespec *ret_time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_time);
int __real_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *left,
		 const sigset_t *mask);
int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *left,
		 const sigset_t *mask);

static int signal_in; /* 0: it has come */

__attribute__((constructor)) static void begin(void)
{
	const char *in = getenv("EAGRE_SIGNAL_IN");
	signal_in = in ? atoi(in) : 0;
}

static void come(void)
{
	signal_in = 0;
	raise(SIGTERM);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_time)
{
	if (signal_in && --signal_in == 0)
		come();
	return __real_clock_gettime(clock, ret_time);
}

int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *left,
		 const sigset_t *mask)
{
	if (signal_in)
		come();
	return __real_ppoll(fds, count, left, mask);
}
