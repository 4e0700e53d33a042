/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The litmus programs: what each role of a test does to a cell of two variables. For the native pod
 * memory test (tests/podmem) and for the test inside a guest (tests/guest); each has its own way to
 * bring roles together and to judge what they read.
 *
 * A cell's variables hold older values when its run begins; role 0 (and 1, where two write) stores
 * `one` (or `two`). What a role reads goes to out[]. Accesses are single instructions in inline
 * assembly, because the compiler is not under test. Names as in Sewell et al., "x86-TSO", CACM
 * 2010.
 */
#ifndef TESTS_LITMUS_PROGRAMS_H
#define TESTS_LITMUS_PROGRAMS_H

#include <stdint.h>

struct litmus_cell {
	uint64_t *x, *y;
	uint64_t one, two;
	uint32_t between; /* pauses between two accesses */
};

typedef void litmus_act(const struct litmus_cell *cell, unsigned int role, uint64_t out[2]);

static inline void litmus_put(uint64_t *p, uint64_t value)
{
	__asm__ volatile("movq %1, %0" : "=m"(*p) : "r"(value) : "memory");
}

static inline uint64_t litmus_get(const uint64_t *p)
{
	uint64_t value;

	__asm__ volatile("movq %1, %0" : "=r"(value) : "m"(*p) : "memory");
	return value;
}

static inline void litmus_fence(void)
{
	__asm__ volatile("mfence" : : : "memory");
}

static inline uint64_t litmus_swap(uint64_t *p, uint64_t value)
{
	__asm__ volatile("xchgq %0, %1" : "+r"(value), "+m"(*p) : : "memory");
	return value;
}

/* Busy, so that the CPU's store buffer is as in a real program. */
static inline void litmus_pause(uint32_t turns)
{
	for (uint32_t i = 0; i < turns; i++)
		__asm__ volatile("pause");
}

static inline void litmus_read_both(const struct litmus_cell *cell, const uint64_t *first,
				    const uint64_t *second, uint64_t out[2])
{
	out[0] = litmus_get(first);
	litmus_pause(cell->between);
	out[1] = litmus_get(second);
}

/* Store buffering: own store, then the other's variable; out[1] is the own one again. */
static inline void litmus_sb(const struct litmus_cell *cell, unsigned int role, uint64_t out[2])
{
	uint64_t *mine = role ? cell->y : cell->x, *other = role ? cell->x : cell->y;

	litmus_put(mine, cell->one);
	out[0] = litmus_get(other);
	out[1] = litmus_get(mine);
}

static inline void litmus_sb_fence(const struct litmus_cell *cell, unsigned int role,
				   uint64_t out[2])
{
	uint64_t *mine = role ? cell->y : cell->x, *other = role ? cell->x : cell->y;

	litmus_put(mine, cell->one);
	litmus_fence();
	out[0] = litmus_get(other);
	out[1] = litmus_get(mine);
}

static inline void litmus_sb_swap(const struct litmus_cell *cell, unsigned int role,
				  uint64_t out[2])
{
	uint64_t *mine = role ? cell->y : cell->x, *other = role ? cell->x : cell->y;

	litmus_swap(mine, cell->one);
	out[0] = litmus_get(other);
	out[1] = litmus_get(mine);
}

/* Load buffering. */
static inline void litmus_lb(const struct litmus_cell *cell, unsigned int role, uint64_t out[2])
{
	uint64_t *mine = role ? cell->y : cell->x, *other = role ? cell->x : cell->y;

	out[0] = litmus_get(other);
	litmus_pause(cell->between);
	litmus_put(mine, cell->one);
}

/* Message passing: x is the data, y the flag. */
static inline void litmus_mp(const struct litmus_cell *cell, unsigned int role, uint64_t out[2])
{
	if (role == 0) {
		litmus_put(cell->x, cell->one);
		litmus_pause(cell->between);
		litmus_put(cell->y, cell->one);
	} else {
		litmus_read_both(cell, cell->y, cell->x, out);
	}
}

/* Write to read causality: role 1 hands on what it has seen. */
static inline void litmus_wrc(const struct litmus_cell *cell, unsigned int role, uint64_t out[2])
{
	if (role == 0) {
		litmus_put(cell->x, cell->one);
	} else if (role == 1) {
		out[0] = litmus_get(cell->x);
		if (out[0] == cell->one)
			litmus_put(cell->y, cell->one);
	} else {
		litmus_read_both(cell, cell->y, cell->x, out);
	}
}

/* Independent reads of independent writes. */
static inline void litmus_iriw(const struct litmus_cell *cell, unsigned int role, uint64_t out[2])
{
	if (role < 2)
		litmus_put(role ? cell->y : cell->x, cell->one);
	else
		litmus_read_both(cell, role == 2 ? cell->x : cell->y, role == 2 ? cell->y : cell->x,
				 out);
}

/* One location, one writer. */
static inline void litmus_corr(const struct litmus_cell *cell, unsigned int role, uint64_t out[2])
{
	if (role == 0)
		litmus_put(cell->x, cell->one);
	else
		litmus_read_both(cell, cell->x, cell->x, out);
}

/* One location, two writers. */
static inline void litmus_coww(const struct litmus_cell *cell, unsigned int role, uint64_t out[2])
{
	if (role < 2)
		litmus_put(cell->x, role ? cell->two : cell->one);
	else
		litmus_read_both(cell, cell->x, cell->x, out);
}

#endif
