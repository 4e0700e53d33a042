/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU benchmark's items: what the program that runs natively and in guests is made of.
 *
 *      cpu_items.c     the program: an item a process, units timed, lines printed; init in a guest
 *      cpu_compute.c   integer code, memory patterns, doubles
 *      cpu_library.c   zlib, zstd, SQLite, Lua, libc's memcpy and memset
 *      cpu_kernel.c    system calls, pipes, page faults, processes, threads
 *
 * An item is work cut into equal units of a few milliseconds of native time. Every unit returns the
 * same checksum, everywhere: how many units run is then free, and a machine that is 200 times
 * slower runs fewer.
 */
#ifndef BENCH_CPU_ITEMS_H
#define BENCH_CPU_ITEMS_H

#include <stddef.h>
#include <stdint.h>

struct cpu_item {
	const char *name;
	void (*prepare)(void); /* not timed; NULL: nothing to do */
	uint64_t (*unit)(void);
	uint64_t (*against)(void); /* NULL, or a unit that is done before each: half the work */
	/* NULL, or, of the last unit: thousandths of its slower thread's time that the quicker took
	 */
	uint64_t (*evenness)(void);
};

/* Each ends with an item without a name. */
extern const struct cpu_item cpu_compute_items[];
extern const struct cpu_item cpu_library_items[];
extern const struct cpu_item cpu_kernel_items[];

/* What the program was started as: the exec item starts it again, with CPU_ITEMS_NOTHING. */
#define CPU_ITEMS_NOTHING "nothing"
extern const char *cpu_items_path;

/* Ends the program, saying what failed. */
void cpu_die(const char *what) __attribute__((noreturn));
/* Zeroed memory, page-aligned, that is not given back; ends the program if there is none. */
void *cpu_memory(size_t bytes);
/* Some text with repetitions in it, as logs and sources have; the same in every run. */
void cpu_text(char *text, size_t bytes);
/* The next of a sequence (xorshift); the state must not be 0. */
uint64_t cpu_random(uint64_t *state);
/* Mixes `value` into a checksum. */
uint64_t cpu_mix(uint64_t sum, uint64_t value);
/* Work for one thread, about 12 ms natively: integer, calls, memory. */
uint64_t cpu_mixed_work(void);

#endif
