/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread of a vCPU and the signal that kicks it: what all engines do alike (engine.h says what
 * a kick is).
 */
#ifndef ENGINE_KICK_H
#define ENGINE_KICK_H

#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "engine/engine.h"

/* The calling thread takes kicks from now on; its id. 0 or negative errno. */
static inline int engine_kick_accept(pid_t *ret_thread)
{
	sigset_t kick;
	int err;

	sigemptyset(&kick);
	sigaddset(&kick, ENGINE_KICK_SIGNAL);
	err = pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	if (err)
		return -err;
	*ret_thread = (pid_t)syscall(SYS_gettid);
	return 0;
}

#endif
