/* SPDX-License-Identifier: Apache-2.0 */
/* See split.h. */
#include "engine/soft/split.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/soft/x86.h"

/* The CPU alone takes a thousand or so. A trap takes some ten thousand, and now and then seconds. */
#define DEAR_CYCLES 10000u
#define TRIES	    4 /* the thread may lose its core in one */
/* Linux's split_lock_detect=warn lets all be for 2 jiffies after one that it has held up. */
#define APART_US 30000

static __thread sigjmp_buf *volatile trying;
static bool traps;

static uint64_t one_split_lock(void)
{
	_Alignas(LINE_BYTES) uint8_t lines[2 * LINE_BYTES] = { 0 };
	uint64_t begin = __builtin_ia32_rdtsc();

	__asm__ volatile("lock addl $1, %0"
			 : "+m"(*(uint32_t *)(void *)(lines + LINE_BYTES - 2))
			 :
			 : "cc", "memory");
	return __builtin_ia32_rdtsc() - begin;
}

static bool are_dear(void)
{
	for (int i = 0; i < TRIES; i++) {
		if (i > 0)
			usleep(APART_US);
		if (one_split_lock() < DEAR_CYCLES)
			return false;
	}
	return true;
}

static void try_some(void)
{
	sigjmp_buf forbidden;

	if (sigsetjmp(forbidden, 1)) {
		traps = true;
	} else {
		trying = &forbidden;
		traps = are_dear();
	}
	trying = NULL;
}

bool soft_split_locks_trap(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	const char *text = getenv("EAGRE_SOFT_SPLIT_LOCKS");

	if (text && (*text == '0' || *text == '1'))
		return *text == '1';
	pthread_once(&once, try_some);
	return traps;
}

void soft_split_forbidden(void)
{
	if (trying)
		siglongjmp(*trying, 1);
}
