/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread of a vCPU and the signal that kicks it: what all engines do alike (engine.h says what
 * a kick is).
 *
 *      who kicks                            the thread
 *   1. flags := 1                           a. flag := 0
 *   2. signal, each time                    b. looks for work
 *                                           c. flag set? do not enter the guest   (one step with
 *                                           d. the guest                           d, or d's start)
 *
 * Who kicks never leaves the signal to somebody else who has kicked before: that one may have been
 * stopped between 1 and 2, or his signal may have been handled already. So at any moment a kick
 * whose 2 is through is in one of three states: its signal is pending; or it was handled before c,
 * and c, which comes after 1, sees the flag; or it was handled in d, and the handler ended d. What
 * "handled in d" means is the engine's part: kvm/run.c, soft/run/vcpu.c. That no other handler
 * of the thread is in between is everybody's part (ENGINE_KICK_SIGNAL). models/kick.pml explores
 * it.
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

/* 2. 0: nobody runs the vCPU. */
static inline void engine_kick_send(pid_t thread)
{
	if (thread)
		syscall(SYS_tgkill, getpid(), thread, ENGINE_KICK_SIGNAL);
}

#endif
