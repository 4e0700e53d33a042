/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the programs that run in the guest share: pinning threads to vCPUs, a time that costs no
 * page and a barrier that costs no system call.
 *
 * Each of these programs must make pages move between nodes, so its threads stand on different
 * vCPUs and whatever they share for their own bookkeeping is kept off the pages under test.
 */
#ifndef TESTS_GUEST_CPUS_H
#define TESTS_GUEST_CPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_PAGE    4096u
#define GUEST_THREADS 256u

/* CPUs that this process may use; at least 1. */
unsigned int cpus_count(void);
/* Pins the calling thread to the index'th (modulo their count) of them. */
void cpus_pin(unsigned int index);

/* Reads the TSC; nothing later is read before it, nothing earlier after it. */
static inline uint64_t tsc_read(void)
{
	uint32_t low, high;
	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* TSC ticks in a second, measured against the kernel's clock (30 ms). Call once, at start. */
uint64_t tsc_measure_hz(void);

/* One spin of waiting: gives the CPU away now and then, so that more threads than CPUs get on. */
void cpus_relax(unsigned int *spins);

/* Zeroed pages, none of them shared with anything else. Ends the program when there are none. */
void *pages_new(size_t count);

/*
 * Runs `threads` threads, number i pinned to CPU i + rotation, each in work(context, i), until all
 * have returned. None begins before all have been started, which can take long in a pod. Ends the
 * program when they cannot be had.
 */
void cpus_run(unsigned int threads, unsigned int rotation, void (*work)(void *, unsigned int),
	      void *context);

/* A positive number from the command line, at most max; ends the program with a line when it is not
 * one. */
uint64_t number_argument(const char *name, const char *text, uint64_t max);

#endif
